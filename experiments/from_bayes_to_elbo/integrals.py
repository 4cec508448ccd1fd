"""log p(x), KL(q(z|x) ‖ p(z|x)) and the ELBO as sums over lattices of z.

Each is a trapezoidal rule: for a smooth integrand that vanishes at the border its error falls faster than any
power of the step h, for a normal density of deviation s as 2 exp(−2π² s² / h²) per axis (Trefethen &
Weideman, "The Exponentially Convergent Trapezoidal Rule", 2014).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.grid import log_joint_table

#: Numbers computed at once, which fit a CPU's cache.
_AT_ONCE = 2**18


class PlaneSums(NamedTuple):
    """Sums over one lattice of the space of z, per datum: (B,), float64."""

    #: log p(x) in nats.
    log_evidence: Tensor
    #: KL(q(z|x) ‖ p(z|x)) in nats, p(z|x) being normalised by the `log_evidence` beside it.
    kl: Tensor
    #: ∫ q(z|x) dz, 1 where the lattice resolves q.
    mass_of_q: Tensor
    #: Posterior mass of the outermost unit of the lattice.
    border: Tensor


def lattice(step: float, limit: float, dim: int) -> Tensor:
    """All points with coordinates k · step in [−limit, limit]: (G, dim), float64."""
    number = math.floor(limit / step + 1e-9)
    axis = step * torch.arange(-number, number + 1, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)


def log_joint(vae: pv.VAE, z: Tensor, x: Tensor) -> Tensor:
    """Log p(x, z), z being (..., L), broadcast against the data x (B, *data_shape)."""
    return vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z)


@torch.no_grad()
def plane_sums(vae: pv.VAE, x: Tensor, *, step: float, limit: float = 8.0) -> PlaneSums:
    """Σ_g h^L p(x, z_g) over a lattice of all z, and what follows from it.

    Args:
        vae: With few latent dimensions and a Bernoulli likelihood, in float64.
        x: Data: (B, *data_shape).
        step: h, no larger than about the deviation of the narrowest density.
        limit: The lattice reaches from −limit to limit along each axis.
    """
    points, qz = lattice(step, limit, vae.prior().event_shape[0]), vae.posterior(x)
    log_volume = points.shape[1] * math.log(step)
    log_evidence = torch.full((len(x),), -math.inf, dtype=torch.float64)
    log_border, below, mass = log_evidence.clone(), torch.zeros(len(x)).double(), torch.zeros(len(x)).double()
    for z in points.split(max(1, _AT_ONCE // len(x))):
        log_p, log_q = log_joint_table(vae, z, x), qz.log_prob(z[:, None])  # (G', B)
        q = (log_q + log_volume).exp()
        mass += q.sum(0)
        below += (q * (log_q - log_p)).sum(0)
        log_evidence = torch.logaddexp(log_evidence, log_p.logsumexp(0))
        outer = z.abs().amax(1) > limit - 1
        if outer.any():
            log_border = torch.logaddexp(log_border, log_p[outer].logsumexp(0))
    log_evidence += log_volume
    border = (log_border + log_volume - log_evidence).exp()
    return PlaneSums(log_evidence, below + mass * log_evidence, mass, border)


def normal_lattice(step: float, dim: int, limit: float = 7.0) -> tuple[Tensor, Tensor]:
    """Points e (G, dim) and weights (G,) with Σ_g weight_g f(e_g) ≈ E f(e), e ~ N(0, I)."""
    points = lattice(step, limit, dim)
    points = points[points.square().sum(1) <= limit**2]  # beyond it lies 2e-11 of the mass in two dimensions
    return points, (-points.square().sum(1) / 2).exp() * (step / math.sqrt(2 * math.pi)) ** dim


def integrated_elbo(vae: pv.VAE, x: Tensor, *, step: float) -> Tensor:
    """Σ_g w_g [log p(x, z_g) − log q(z_g|x)] at z_g = m(x) + s(x) e_g: the ELBO, (B,), with its gradient.

    The lattice is in the units of each datum's own q, so that it resolves a narrow one as well as a wide one.

    Args:
        vae: With a diagonal normal posterior.
        x: Data: (B, *data_shape).
        step: h, in deviations of q.
    """
    qz = vae.posterior(x)
    points, weights = normal_lattice(step, qz.event_shape[0])
    total = x.new_zeros(len(x))
    rows = max(1, _AT_ONCE // x.numel())
    for e, weight in zip(points.split(rows), weights.split(rows), strict=True):
        z = qz.mean + qz.stddev * e[:, None]
        total = total + weight @ (log_joint(vae, z, x) - qz.log_prob(z))
    return total
