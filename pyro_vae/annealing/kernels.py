"""Adapting the transitions in a pilot run, and freezing them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.hmc import Moved, transition
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath, Point
from pyro_vae.annealing.schedules import equal_steps, interpolate, schedule
from pyro_vae.precision import home, wide

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
    #: Λ = ∫ sd_β dβ, the length of the way, by the pilot run; NaN for one temperature, (B,).
    barrier: Tensor

    def move(self, path: AnnealingPath, point: Point, step: int) -> Moved:
        """The transition at β of this step, 1 to T."""
        beta = self.betas[step].to(point.u)
        size = self.step_sizes[step - 1].to(point.u)
        return transition(path, point, beta, size, scales(beta, self.variances), self.leapfrog_steps)


def scales(beta: Tensor, variances: tuple[Tensor, Tensor]) -> Tensor:
    """The scale of each coordinate at β, (B, n): precisions mixed as the log densities of the path are."""
    start, end = variances
    beta = beta[:, None]
    return ((1 - beta) / start + beta / end).rsqrt()


def pilot_steps(num_temperatures: int) -> int:
    """Temperatures of the pilot run: a fifth of the run's, 40 at the least and 400 at the most."""
    return min(max(num_temperatures // 5, 40), 400)


def pilot_transitions(num_temperatures: int) -> int:
    """Transitions of the pilot run; none for one temperature, which takes no transition."""
    return _FIRST + pilot_steps(num_temperatures) if num_temperatures > 1 else 0


@torch.no_grad()
def tune(path: AnnealingPath, options: AnnealingOptions, after: Callable[[], None] = lambda: None) -> Kernels:
    """Kernels for one batch of data, by a pilot run of its own chains and random numbers.

    The log step size of each datum follows the acceptance of its chains up the pilot's temperatures:
    log ε ← log ε + 0.5 (acceptance − target) after each transition (Robbins & Monro 1951). Chains at a
    likelihood of zero, which cannot move and have weight 0, do not count.

    Args:
        path: The densities.
        options: How to anneal.
        after: Called after each transition.
    """
    num_temperatures, name = options.num_temperatures, options.schedule
    variances = _variances(path)
    fixed = (
        schedule(name, num_temperatures)
        .to(home(path.batch.device))[:, None]
        .expand(-1, len(path.batch))
        .contiguous()
    )
    if num_temperatures == 1:
        return Kernels(fixed, fixed[1:], variances, options.leapfrog_steps, fixed[1] * torch.nan)
    betas = schedule(name, pilot_steps(num_temperatures)).to(home(path.batch.device))
    point = path.point(path.draw(options.num_chains))
    log_size = point.u.new_full(point.u.shape[1:2], 0.5).log()
    sizes, deviations = [], [_deviation(point)]
    for number in range(pilot_transitions(num_temperatures)):
        beta = betas[max(number - _FIRST, 0) + 1].to(point.u).expand(len(log_size))
        scale = scales(beta, variances)
        moved = transition(path, point, beta, log_size.exp(), scale, options.leapfrog_steps)
        alive = point.log_ratio.isfinite()
        change = _mean(moved.acceptance, alive) - options.target_acceptance
        point, log_size = moved.point, log_size + _GAIN * torch.where(alive.any(0), change, 0.0)
        if number >= _FIRST:
            sizes.append(wide(log_size))
            deviations.append(_deviation(point))
        after()
    measured = torch.stack(deviations)
    if name == "adaptive":
        fixed = equal_steps(betas, measured, num_temperatures)
    where = betas[1:, None].expand(-1, len(log_size)).contiguous()
    sizes_there = interpolate(fixed[1:], where, torch.stack(sizes))
    barrier = torch.trapezoid(measured, betas, dim=0)
    return Kernels(fixed, sizes_there.exp(), variances, options.leapfrog_steps, barrier)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the chains (C, B) that count, (B,); 0 where none does."""
    return torch.where(counted, values, 0.0).sum(0) / counted.sum(0).clamp(min=1)


def _deviation(point: Point) -> Tensor:
    """Spread of the log ratio over the chains where it is finite, (B,)."""
    ratio = wide(point.log_ratio)
    counted = ratio.isfinite()
    return _mean((ratio - _mean(ratio, counted)).square(), counted).sqrt()


def _variances(path: AnnealingPath) -> tuple[Tensor, Tensor]:
    """Variances of u under the start and under the guide, (B, n) each."""
    chunk = max(path.latents.pair.rows // len(path.batch), 1)
    numbers = [min(chunk, _SCALE_DRAWS - first) for first in range(0, _SCALE_DRAWS, chunk)]
    start = torch.cat([path.draw(number) for number in numbers]).var(0).clamp(min=1e-12)
    end = torch.cat([path.latents.from_guide(path.batch, number) for number in numbers]).var(0)
    # a coordinate that the guide does not move has no scale of its own
    return start, torch.where(end > 1e-12 * start, end, start)
