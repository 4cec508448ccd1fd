"""Inverse temperatures 0 = β_0 < β_1 < … < β_T = 1."""

import math

import torch
from torch import Tensor

from pyro_vae.annealing.options import Schedule
from pyro_vae.precision import wide

#: Half the range over which the sigmoid runs (Wu et al. 2017).
_RANGE = 4.0


def schedule(name: Schedule, num_temperatures: int) -> Tensor:
    """A fixed schedule of `num_temperatures` steps: (T + 1,) float64, from 0 to 1.

    `linear` is t/T; `sigmoid` is σ(8t/T − 4), moved and stretched to end at 0 and 1, with small steps at
    both ends (Wu, Burda, Salakhutdinov & Grosse 2017). `adaptive` starts from the sigmoid.

    >>> schedule("linear", 4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
    """
    steps = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
    if name == "linear":
        return steps
    low = 1 / (1 + math.exp(_RANGE))
    sigmoid = ((torch.sigmoid(_RANGE * (2 * steps - 1)) - low) / (1 - 2 * low)).clamp(0, 1)
    sigmoid[0], sigmoid[-1] = 0, 1
    return sigmoid


def equal_steps(betas: Tensor, deviation: Tensor, num_temperatures: int) -> Tensor:
    """Inverse temperatures that lie at equal thermodynamic length, for each datum: (T + 1, B) float64.

    The length ∫ sd_β dβ, sd_β being the standard deviation of the log ratio of end to start under the
    density at β: the variance of the log weight is the least where each step has the same length
    (Gelman & Meng 1998; Crooks 2007).

    Args:
        betas: Where the deviation was measured, (P,), increasing from 0 to 1.
        deviation: (P, B), not negative.
        num_temperatures: T.
    """
    smooth = _smooth(wide(deviation))
    smooth = smooth + 1e-3 * smooth.mean(0) + 1e-12  # so that none is passed in no step
    pieces = (smooth[1:] + smooth[:-1]) / 2 * betas.diff()[:, None]
    length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    wanted = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64, device=betas.device)
    wanted = wanted[:, None] * length[-1]
    found = interpolate(wanted, length, betas[:, None].expand_as(length))
    found[0], found[-1] = 0, 1
    return found


def _smooth(values: Tensor) -> Tensor:
    """Moving average over five rows, fewer at the ends."""
    total = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    index = torch.arange(len(values), device=values.device)
    low, high = (index - 2).clamp(min=0), (index + 3).clamp(max=len(values))
    return (total[high] - total[low]) / (high - low)[:, None]


def interpolate(wanted: Tensor, points: Tensor, values: Tensor) -> Tensor:
    """`values` at `wanted`, linear between `points`, which increase along the first axis: (T, B).

    Args:
        wanted: (T, B).
        points: (P, B).
        values: (P, B).
    """
    right = torch.searchsorted(points.T.contiguous(), wanted.T.contiguous()).T.clamp(1, len(points) - 1)
    low, high = points.gather(0, right - 1), points.gather(0, right)
    share = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
    return values.gather(0, right - 1) * (1 - share) + values.gather(0, right) * share
