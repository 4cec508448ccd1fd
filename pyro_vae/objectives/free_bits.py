"""The ELBO with some KL for free."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.batch import Program
from pyro_vae.errors import InputError
from pyro_vae.objectives.bound import Bound, check_reparameterised
from pyro_vae.programs import sites


class FreeBitsELBO(Bound):
    """E_q[log p(x|z)] − Σ_j max(λ, KL_j): the ELBO with λ nats of KL for free in each group j.

    KL_j is the mean over the batch of log q(z_j|x) − log p(z_j) by the draws. Below λ it has no gradient,
    so the prior does not switch a latent dimension off while the decoder has not learned to use it. Kingma
    et al., "Improving Variational Inference with Inverse Autoregressive Flow" (2016), eq. 15. A group is
    a latent dimension where prior and posterior are both independent over them, else the whole site.

    Args:
        num_particles: K, draws of z per datum, averaged.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: As in Pyro's ELBOs, and without effect: the draws are always made at once.
        free_bits: λ, in nats per group and datum.

    Raises:
        InputError: where `free_bits` is negative.

    >>> import pyro
    >>> from pyro_vae import Digits, assemble
    >>> vae, x = assemble(Digits()), Digits().train.batch(slice(0, 100))
    >>> optimiser = pyro.optim.Adam({"lr": 1e-3})
    >>> loss = pyro.infer.SVI(vae.model, vae.guide, optimiser, FreeBitsELBO(free_bits=0.1)).step(x)
    """

    adds_up = False

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
        *,
        free_bits: float = 0.25,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        if not 0 <= free_bits < math.inf:
            raise InputError(f"free_bits expects a number of nats that is not negative, got {free_bits}")
        self.free_bits = free_bits

    def negative_bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """− Σ_b log p(x_b|z_b) + B Σ_j max(λ, KL_j), averaged over the draws."""
        observed = [model_trace.nodes[name]["log_prob_sum"] for name in sites(model_trace, observed=True)]
        loss = -torch.stack(observed).sum() / self.num_particles
        for name in sites(guide_trace, observed=False):
            site = guide_trace.nodes[name]
            kl = log_ratio(site, model_trace.nodes[name])
            draws = site["fn"].batch_shape.numel()
            mean = kl.reshape(draws, -1).mean(0)
            loss = loss + site["scale"] * draws / self.num_particles * mean.clamp(min=self.free_bits).sum()
        return loss

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        check_reparameterised(guide_trace, self)
        return model_trace, guide_trace


def log_ratio(guide_site: Mapping[str, Any], model_site: Mapping[str, Any]) -> Tensor:
    """Log q(z_j|x) − log p(z_j) at the draw: (*batch_shape, groups), unscaled."""
    q, p, z = guide_site["fn"], model_site["fn"], guide_site["value"]
    if guide_site["mask"] is not None or model_site["mask"] is not None:
        raise InputError(f"FreeBitsELBO expects sites without a mask, got {guide_site['name']!r}")
    if isinstance(q, Independent) and isinstance(p, Independent):
        return q.base_dist.log_prob(z) - p.base_dist.log_prob(z)
    return (guide_site["unscaled_log_prob"] - model_site["unscaled_log_prob"])[..., None]
