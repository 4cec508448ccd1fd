"""Adapting the transitions in a pilot run, and freezing them."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.hmc import Moved, transition
from pyro_vae.annealing.path import Path, Point
from pyro_vae.annealing.schedules import Schedule, equal_steps, interpolate, schedule

#: Gain of the adaptation of a log step size, and how many transitions find the first one.
_GAIN, _FIRST = 0.5, 30
#: Draws from which the scales of the coordinates are estimated.
_SCALE_DRAWS = 100


class Kernels(NamedTuple):
    """Transitions that depend on no chain of the run that uses them."""

    #: 0 = β_0 < … < β_T = 1 for each datum, (T + 1, B).
    betas: Tensor
    #: Of the transition at β_t, t = 1 … T, (T, B).
    step_sizes: Tensor
    #: Variances of u under the start and under the guide, (B, n) each.
    variances: tuple[Tensor, Tensor]
    leapfrog_steps: int

    def move(self, path: Path, point: Point, step: int) -> Moved:
        """The transition at β of this step, 1 to T."""
        beta = self.betas[step].to(point.u)
        size = self.step_sizes[step - 1].to(point.u)
        return transition(path, point, beta, size, scales(beta, self.variances), self.leapfrog_steps)


def scales(beta: Tensor, variances: tuple[Tensor, Tensor]) -> Tensor:
    """The scale of each coordinate at β, (B, n): precisions mixed as the log densities of the path are."""
    start, end = variances
    beta = beta[:, None]
    return ((1 - beta) / start + beta / end).rsqrt()


@torch.no_grad()
def pilot_steps(num_temperatures: int) -> int:
    """Temperatures of the pilot run: a fifth of the run's, 40 at the least and 400 at the most."""
    return min(max(num_temperatures // 5, 40), 400)


@torch.no_grad()
def tune(
    path: Path,
    *,
    num_chains: int,
    num_temperatures: int,
    leapfrog_steps: int,
    name: Schedule,
    target_acceptance: float,
) -> Kernels:
    """Kernels for one batch of data, by a pilot run of its own chains and random numbers.

    The log step size of each datum follows the acceptance of its chains up the pilot's temperatures:
    log ε ← log ε + 0.5 (acceptance − target) after each transition (Robbins & Monro 1951).
    """
    betas = schedule(name, pilot_steps(num_temperatures)).to(path.x.device)
    variances = _variances(path)
    point = path.point(path.draw(num_chains))
    log_size = point.u.new_full(point.u.shape[1:2], 0.5).log()
    sizes, deviations = [], [_deviation(point)]
    for number in range(_FIRST + len(betas) - 1):
        at = max(number - _FIRST, 0) + 1
        beta = betas[at].to(point.u).expand(len(log_size))
        moved = transition(path, point, beta, log_size.exp(), scales(beta, variances), leapfrog_steps)
        point = moved.point
        log_size = log_size + _GAIN * (moved.acceptance.mean(0) - target_acceptance)
        if number >= _FIRST:
            sizes.append(log_size.double())
            deviations.append(_deviation(point))
    fixed = schedule(name, num_temperatures).to(betas)[:, None].expand(-1, len(log_size)).contiguous()
    if name == "adaptive":
        fixed = equal_steps(betas, torch.stack(deviations), num_temperatures)
    where = betas[1:, None].expand(-1, len(log_size)).contiguous()
    sizes_there = interpolate(fixed[1:], where, torch.stack(sizes))
    return Kernels(fixed, sizes_there.exp(), variances, leapfrog_steps)


def _deviation(point: Point) -> Tensor:
    """Spread of the log ratio over chains, (B,); 0 for one chain or where a ratio is not finite."""
    return point.log_ratio.std(0, correction=0).nan_to_num(0, 0, 0)


def _variances(path: Path) -> tuple[Tensor, Tensor]:
    """Variances of u under the start and under the guide, (B, n) each."""
    start = path.draw(_SCALE_DRAWS).var(0)
    end = path.latents.from_guide(path.x, _SCALE_DRAWS).var(0)
    start = start.clamp(min=1e-12)
    # a coordinate that the guide does not move has no scale of its own
    return start, torch.where(end > 1e-12 * start, end, start)
