"""Hamiltonian Monte Carlo, vectorised over data and chains."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.path import AnnealingPath, Point

#: A step's length is drawn from this range around the adapted one, so that no trajectory closes on itself.
_JITTER = (0.8, 1.2)


class Moved(NamedTuple):
    """What a transition gives."""

    point: Point
    #: The probability of acceptance of each chain, (C, B).
    acceptance: Tensor


def transition(
    path: AnnealingPath, point: Point, beta: Tensor, step_size: Tensor, scale: Tensor, leapfrog_steps: int
) -> Moved:
    """One transition that leaves the density at β as it is, and is reversible.

    Momentum p ~ N(0, I); `leapfrog_steps` steps of length ε · scale, ε = step_size · U(0.8, 1.2); accepted
    with probability min(1, exp(−ΔH)) (Duane, Kennedy, Pendleton & Roweth 1987; Neal 2011). A proposal where
    the density is not finite is rejected.

    Args:
        path: The densities.
        point: Where the chains are.
        beta: Inverse temperature of each datum, (B,).
        step_size: (B,).
        scale: Of each coordinate, the square root of an inverse mass, (B, n).
        leapfrog_steps: Gradients per transition.
    """
    low, high = _JITTER
    shape = (*point.u.shape[:2], 1)
    jitter = low + (high - low) * torch.rand(shape, dtype=point.u.dtype, device=point.u.device)
    length = jitter * step_size[:, None] * scale
    momentum = torch.randn_like(point.u)
    energy = point.log_density(beta) - momentum.square().sum(-1) / 2
    u, gradient = point.u, point.gradient(beta)
    # p is the momentum in coordinates u / scale
    momentum = momentum + length * gradient / 2
    for _ in range(leapfrog_steps - 1):
        u = u + length * momentum
        momentum = momentum + length * path.force(u, beta)
    proposal = path.point(u + length * momentum)
    momentum = momentum + length * proposal.gradient(beta) / 2
    change = proposal.log_density(beta) - momentum.square().sum(-1) / 2 - energy
    acceptance = change.nan_to_num(-torch.inf, posinf=-torch.inf).clamp(max=0).exp()
    accepted = torch.rand_like(acceptance) < acceptance
    return Moved(proposal.where(accepted, point), acceptance)
