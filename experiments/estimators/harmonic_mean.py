"""The harmonic mean of p(x|z) over draws from p(z|x): Newton & Raftery (1994). Known to be bad.

"The worst Monte Carlo method ever" (Neal 2008): where the prior is wider than the posterior, 1/p(x|z) has no
finite variance.
"""

import math
from typing import Any, NamedTuple

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from pyro_vae.annealing.path import AnnealingPath

#: A trajectory has 2⁷ gradients at the most.
_DEPTH = 7


class Drawn(NamedTuple):
    """Draws from p(z|x)."""

    #: log p(x|z), (S, B).
    log_px: Tensor
    #: How many gradients they took, of each datum.
    gradients: int


def harmonic_mean(log_px: Tensor) -> Tensor:
    """Minus the log mean of 1/p(x|z_s) over draws from p(z|x): (S, B) to (B,)."""
    return math.log(len(log_px)) - (-log_px.double()).logsumexp(0)


def drawn_by_nuts(path: AnnealingPath, num: int, warm_up: int) -> Drawn:
    """`num` draws by Pyro's NUTS, of all data side by side, as one density of all their latents.

    Chains start at the guide. Step size and masses are adapted in the warm-up.

    Args:
        path: From the prior to the joint density, for one chain.
        num: S.
        warm_up: Transitions before.
    """
    counted = _Counted(path)
    kernel = NUTS(potential_fn=counted, max_tree_depth=_DEPTH)
    start = path.latents.from_guide(path.batch, 1).detach()
    mcmc = MCMC(
        kernel, num_samples=num, warmup_steps=warm_up, initial_params={"u": start}, disable_progbar=True
    )
    mcmc.run()
    u = mcmc.get_samples()["u"][:, 0]
    chunks = u.split(max(path.latents.pair.rows // len(path.batch), 2))
    with torch.no_grad():
        found = [path.latents.log_probs(path.batch, each, guide=False).log_px for each in chunks]
    return Drawn(torch.cat(found), counted.gradients)


class _Counted:
    """−log p(x, u), which counts its gradients."""

    def __init__(self, path: AnnealingPath) -> None:
        self.path, self.gradients = path, 0

    def __call__(self, values: dict[str, Tensor]) -> Tensor:
        self.gradients += 1
        energy: Tensor = _Energy.apply(values["u"], self.path)
        return energy


class _Energy(torch.autograd.Function):
    """−Σ log p(x, u) over all data, with the gradient that a path knows."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, path: AnnealingPath) -> Tensor:
        point, one = path.point(u.detach()), u.new_ones(u.shape[1])
        ctx.save_for_backward(point.gradient(one))
        return -point.log_density(one).sum()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return -outer[0] * gradient, None
