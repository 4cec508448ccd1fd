"""How heavy the tail of the weights is."""

import math

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

#: Weights of a tail at the most: of more than 111,000 draws the largest 1000, a smaller share than usual.
LONGEST_TAIL = 1000

#: Natural logarithm of the smallest excess told from 0, that of the largest weight being 0.
_SMALLEST = -600.0


def tail_length(num_particles: int) -> int:
    """M = min(K/5, 3√K, 1000), rounded up: how many of the largest weights are the tail."""
    return min(math.ceil(min(num_particles / 5, 3 * math.sqrt(num_particles))), LONGEST_TAIL)


def pareto_k(log_w: Tensor, num_particles: int, *, rounding: float) -> float:
    """The shape k̂ of a generalised Pareto distribution fitted to the tail of one datum's weights.

    The tail's excesses over the largest weight outside it are fitted by Zhang & Stephens (2009), with the
    weak prior of Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling,
    appendix C. Weights equal to that one are left out, as there.

    Args:
        log_w: The largest M + 1 log weights or more, from the largest down.
        num_particles: K.
        rounding: Relative rounding of the type in which log w was computed.

    Returns:
        k̂; 0 where the tail is flat up to rounding; infinity where fewer than five weights are positive;
        NaN below 25 draws, and where fewer than five weights lie above the rest.
    """
    tail = tail_length(num_particles)
    if num_particles < 25 or log_w[0] == -math.inf:
        return math.nan
    largest, threshold = float(log_w[0]), float(log_w[tail])
    if largest - threshold <= 16 * rounding * (1 + abs(largest)):
        return 0.0
    above = log_w[:tail][log_w[:tail] > threshold]
    if len(above) < 5:
        return math.nan if math.isfinite(threshold) else math.inf
    excess = above - largest + torch.log1p(-(threshold - above).exp())
    return _fitted(excess.clamp(min=_SMALLEST).exp())


def _fitted(excess: Tensor) -> float:
    try:
        k, _ = fit_generalized_pareto(excess)
    except ZeroDivisionError:  # a point of its grid is exactly 0, as for a hundred equal excesses
        k, _ = fit_generalized_pareto(excess * torch.linspace(1 + 1e-6, 1, len(excess), dtype=excess.dtype))
    return float(k)
