"""Annealing runs, forward and in reverse."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.kernels import Kernels
from pyro_vae.annealing.path import AnnealingPath


class Chains(NamedTuple):
    """Where a run is."""

    #: Unconstrained latents, (C, B, n).
    u: Tensor
    #: Log weights so far, (C, B) float64.
    log_weights: Tensor
    #: Sum of the acceptance probabilities so far, (B,) float64.
    acceptance: Tensor
    #: Temperatures passed, 0 to T.
    step: int


def begin(u: Tensor) -> Chains:
    """Chains at their start."""
    zeros = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
    return Chains(u, zeros, zeros[0].clone(), 0)


@torch.no_grad()
def anneal(
    path: AnnealingPath,
    kernels: Kernels,
    chains: Chains,
    *,
    reverse: bool = False,
    after: Callable[[Chains], None] = lambda _: None,
) -> Chains:
    """Run chains to the end: log w = Σ_t (β_t − β_{t−1}) log ratio(u_{t−1}), u_t by the transition at β_t.

    Forward, u_0 comes from the start, and E[w] = p(x) (Neal 2001). In reverse u_{T−1} is a draw from p(z|x),
    the same transitions run backwards to u_0, and E[1/w] = 1/p(x).

    Args:
        path: The densities.
        kernels: The transitions.
        chains: Where they are.
        reverse: Whether they run from the end to the start.
        after: Called after each temperature.
    """
    num = len(kernels.betas) - 1
    increments = kernels.betas.diff(dim=0)
    point = path.point(chains.u)
    for passed in range(chains.step, num):
        step = num - passed if reverse else passed + 1
        log_weights = chains.log_weights + increments[step - 1] * point.log_ratio.double()
        acceptance = chains.acceptance
        if passed < num - 1:  # nothing is weighed after the last
            point, probability = kernels.move(path, point, step - 1 if reverse else step)
            acceptance = acceptance + probability.double().mean(0)
        chains = Chains(point.u, log_weights, acceptance, passed + 1)
        after(chains)
    return chains
