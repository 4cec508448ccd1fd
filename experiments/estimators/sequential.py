"""Annealing whose chains are drawn anew by their weights: sequential Monte Carlo.

Del Moral, Doucet & Jasra, "Sequential Monte Carlo samplers" (2006).
"""

import math

import torch
from torch import Tensor

from pyro_vae.annealing.kernels import Kernels
from pyro_vae.annealing.path import AnnealingPath, Point


@torch.no_grad()
def sequential(path: AnnealingPath, kernels: Kernels, num_chains: int, threshold: float = 0.5) -> Tensor:
    """Log p(x) of each datum, (B,): annealing, with resampling below an effective share of `threshold`.

    Where the effective sample size of a datum's chains is below `threshold` · C, these are drawn anew by
    their weights (systematically), and log p̂ takes over the logarithm of the mean weight. The transitions
    are those of annealing, frozen, so that E p̂(x) = p(x). With a threshold of 0 it is annealing.
    """
    point = path.point(path.draw(num_chains))
    log_w = torch.zeros(point.log_ratio.shape, dtype=torch.float64)
    total, increments = torch.zeros_like(log_w[0]), kernels.betas.diff(dim=0)
    for step, increment in enumerate(increments, start=1):
        log_w = log_w + increment * point.log_ratio.double()
        if step < len(increments):
            poor = 1 / log_w.softmax(0).square().sum(0) < threshold * num_chains
            total = total + torch.where(poor, _log_mean(log_w), 0.0)
            point = _resampled(point, log_w, poor) if threshold else point
            log_w = log_w.masked_fill(poor, 0.0)
            point, _ = kernels.move(path, point, step)
    return total + _log_mean(log_w)


def _resampled(point: Point, log_w: Tensor, chosen: Tensor) -> Point:
    """Chains drawn anew by their weights (C, B) for the data that are chosen (B,)."""
    num = len(log_w)
    places = (torch.arange(num)[:, None] + torch.rand(log_w.shape[1], dtype=torch.float64)) / num
    edges = log_w.softmax(0).cumsum(0)
    drawn = torch.searchsorted(edges.T.contiguous(), places.T.contiguous()).T.clamp(max=num - 1)
    index = torch.where(chosen, drawn, torch.arange(num)[:, None])

    def of(values: Tensor) -> Tensor:
        where = index if values.ndim == 2 else index[..., None].expand_as(values)
        return values.gather(0, where)

    return Point(*map(of, point))


def _log_mean(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) - math.log(len(log_w))
