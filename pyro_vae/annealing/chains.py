"""Annealing runs, forward and in reverse."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.kernels import Kernels
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.rate_distortion import look_at, recorded_steps
from pyro_vae.precision import home, wide


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
    #: What was seen of them at the steps looked at, (G, 5, B) float64; none is looked at where G is 0.
    record: Tensor


def begin(u: Tensor, looks: int = 0) -> Chains:
    """Chains at their start, to be looked at `looks` times."""
    zeros = torch.zeros(u.shape[:2], dtype=torch.float64, device=home(u.device))
    return Chains(u, zeros, zeros[0].clone(), 0, zeros.new_zeros(looks, 5, u.shape[1]))


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

    Chains from the prior are looked at on their way where `begin` says so: with the weights so far they stand
    for the density at each β.

    Args:
        path: The densities.
        kernels: The transitions.
        chains: Where they are.
        reverse: Whether they run from the end to the start.
        after: Called after each temperature.
    """
    num = len(kernels.betas) - 1
    increments = kernels.betas.diff(dim=0)
    looked = {step: place for place, step in enumerate(recorded_steps(num))} if len(chains.record) else {}
    point = path.point(chains.u)
    for passed in range(chains.step, num):
        step = num - passed if reverse else passed + 1
        if passed in looked:
            chains.record[looked[passed]] = look_at(
                kernels.betas[passed], chains.log_weights, point.log_ratio
            )
        log_weights = chains.log_weights + increments[step - 1] * wide(point.log_ratio)
        acceptance = chains.acceptance
        if passed < num - 1:  # nothing is weighed after the last
            point, probability = kernels.move(path, point, step - 1 if reverse else step)
            acceptance = acceptance + wide(probability).mean(0)
        chains = Chains(point.u, log_weights, acceptance, passed + 1, chains.record)
        if passed + 1 == num and looked:
            chains.record[-1] = look_at(kernels.betas[num], log_weights, point.log_ratio)
        after(chains)
    return chains
