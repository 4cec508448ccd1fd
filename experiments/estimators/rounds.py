"""Annealing with a schedule of equal barriers, found in rounds of twice as many temperatures each.

Syed, Bouchard-Côté, Chern & Doucet, "Optimised annealed sequential Monte Carlo samplers" (2024).
"""

import math

import torch
from torch import Tensor

from pyro_vae.annealing.chains import anneal, begin
from pyro_vae.annealing.hmc import transition
from pyro_vae.annealing.kernels import Kernels, scales
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.schedules import interpolate

#: Temperatures of the first round, and the gain of the adaptation of log step sizes.
FIRST, _GAIN = 8, 0.5


def temperatures(last: int) -> list[int]:
    """Those of the rounds before the last, which are doubled up to it."""
    return [FIRST * 2**number for number in range(int(math.log2(max(last / FIRST, 1))))]


def annealed_in_rounds(path: AnnealingPath, options: AnnealingOptions) -> Tensor:
    """Log weights (C, B) of a last round of `num_temperatures`, by chains of its own.

    All rounds before only give its schedule and step sizes, which are frozen, so that E w = p(x).
    """
    kernels = optimised(path, options)
    return anneal(path, kernels, begin(path.draw(options.num_chains))).log_weights


@torch.no_grad()
def optimised(path: AnnealingPath, options: AnnealingOptions) -> Kernels:
    """Kernels whose steps have equal barriers for each datum, and the acceptance asked for."""
    betas = torch.linspace(0, 1, FIRST + 1, dtype=torch.float64)[:, None].repeat(1, len(path.batch))
    log_sizes = torch.full_like(betas[1:], math.log(0.5))
    draws = path.draw(100), path.latents.from_guide(path.batch, 100)
    start, end = (each.var(0).clamp(min=1e-12) for each in draws)
    unknown = torch.full_like(betas[0], math.nan)
    for number in temperatures(options.num_temperatures):
        kernels = Kernels(betas, log_sizes.exp(), (start, end), options.leapfrog_steps, unknown)
        barriers, log_sizes = _round(path, kernels, options)
        new = equal_barriers(betas, barriers, min(2 * number, options.num_temperatures))
        log_sizes = interpolate(new[1:], betas[1:], log_sizes)
        betas = new
    return Kernels(betas, log_sizes.exp(), (start, end), options.leapfrog_steps, unknown)


def _round(path: AnnealingPath, kernels: Kernels, options: AnnealingOptions) -> tuple[Tensor, Tensor]:
    """The barrier of each step, and the log step sizes as they have become on the way: (T, B) each."""
    point, change = path.point(path.draw(options.num_chains)), torch.zeros_like(kernels.betas[0])
    barriers, changes = [], []
    for step, increment in enumerate(kernels.betas.diff(dim=0), start=1):
        barriers.append(_barrier(increment * point.log_ratio.double()))
        beta, size = kernels.betas[step].to(point.u), kernels.step_sizes[step - 1] * change.exp()
        scale = scales(beta, kernels.variances)
        point, accepted = transition(path, point, beta, size.to(point.u), scale, options.leapfrog_steps)
        change = change + _GAIN * (accepted.double().mean(0) - options.target_acceptance)
        changes.append(change)
    return torch.stack(barriers), kernels.step_sizes.log() + torch.stack(changes)


def _barrier(log_g: Tensor) -> Tensor:
    """√ log(E g² / (E g)²) of the incremental weights g of a step, (C, B): (B,)."""
    finite = log_g.nan_to_num(-1e9, 1e9, -1e9)
    divergence = (2 * finite).logsumexp(0) - 2 * finite.logsumexp(0) + math.log(len(log_g))
    return divergence.clamp(min=0).sqrt()


def equal_barriers(betas: Tensor, barriers: Tensor, num: int) -> Tensor:
    """`num` steps of equal shares of the sum of barriers, which is linear between betas: (num + 1, B).

    Args:
        betas: (T + 1, B), from 0 to 1.
        barriers: Of each of their steps, (T, B).
        num: How many steps.
    """
    some = barriers + 1e-3 * barriers.mean(0) + 1e-12  # so that none is passed in no step
    length = torch.cat([torch.zeros_like(some[:1]), some.cumsum(0)])
    wanted = torch.linspace(0, 1, num + 1, dtype=betas.dtype)[:, None] * length[-1]
    found = interpolate(wanted, length, betas)
    found[0], found[-1] = 0, 1
    return found
