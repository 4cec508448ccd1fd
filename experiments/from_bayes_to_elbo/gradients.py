"""Two estimators of the ELBO's gradient: their variances as integrals, and their draws by Pyro.

With z ~ q(z|x) and f(z) = log p(x, z) − log q(z|x), one draw of each is

    reparameterised   ∇_φ f(m + s e),  e ~ N(0, I)                      Kingma & Welling (2014)
    score function    ∇_φ log q(z|x) · (f(z) − b), any constant b       Williams (1992)
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import Tensor

import pyro_vae as pv
from experiments.from_bayes_to_elbo.integrals import integrated_elbo, log_joint, normal_lattice

Estimator = Literal["reparameterised", "baseline", "score"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


class Moments(NamedTuple):
    """Gradients of one datum's ELBO by (m, log s), and variances of one draw: (B, 2L) each."""

    #: The mean of the reparameterised draw.
    gradient: Tensor
    #: That of the score function, which is the same.
    score_gradient: Tensor
    #: Variance of the reparameterised draw.
    reparameterised: Tensor
    #: Of the score function with the ELBO as its baseline b.
    baseline: Tensor
    #: Of the score function with the best constant b for each number.
    best_baseline: Tensor
    #: Of the score function without a baseline.
    score: Tensor


def gradient_moments(vae: pv.VAE, x: Tensor, *, step: float) -> Moments:
    """Mean and variance of each estimator, by the sums over e ~ N(0, I) of `integrals.normal_lattice`."""
    qz = vae.posterior(x)
    loc, scale = qz.mean.detach(), qz.stddev.detach()
    points, weights = normal_lattice(step, qz.event_shape[0])
    rows = max(1, 2**18 // x.numel())
    parts = [_draws(vae, x, loc, scale, e) for e in points.split(rows)]
    f, pathwise = (torch.cat(each) for each in zip(*parts, strict=True))  # (G, B), (G, B, 2L)
    e = points[:, None].expand(-1, len(x), -1)
    score = torch.cat([e / scale, e.square() - 1], dim=2)

    def mean(values: Tensor) -> Tensor:
        return torch.einsum("g,gb...->b...", weights, values)

    elbo, f = mean(f)[:, None], f[..., None]
    best = mean(score.square() * f) / mean(score.square())
    gradient = mean(pathwise)
    raw, centred, fitted = (mean((score * (f - b)).square()) - gradient.square() for b in (0.0, elbo, best))
    variance = mean((pathwise - gradient).square())
    return Moments(gradient, mean(score * f), variance, centred, fitted, raw)


def _draws(vae: pv.VAE, x: Tensor, loc: Tensor, scale: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Values f at z = m + s e, (G, B), and its total derivative by (m, log s), (G, B, 2L)."""
    z = (loc + scale * e[:, None]).requires_grad_()
    log_p = log_joint(vae, z, x)
    (slope,) = torch.autograd.grad(log_p.sum(), z)
    log_q = dist.Normal(loc, scale).to_event(1).log_prob(z)
    # along the path log q = −e²/2 − log s + constant
    return (log_p - log_q).detach(), torch.cat([slope, slope * scale * e[:, None] + 1], dim=2)


def draw(
    vae: pv.VAE,
    posterior: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    estimator: Estimator,
    num_particles: int,
    *,
    elbo: Tensor,
    by: Sequence[Tensor],
) -> list[Tensor]:
    """The ELBO's gradient, summed over the data, by each tensor of `by`, as Pyro estimates it.

    Args:
        vae: For its model.
        posterior: Gives m(x) and s(x), (B, L) each.
        x: Data: (B, *data_shape).
        estimator: "reparameterised", "baseline" (score function less the ELBO) or "score".
        num_particles: K, whose mean is one estimate.
        elbo: The baseline of each datum, (B,).
        by: Leaves of the graph.
    """
    baseline = elbo if num_particles == 1 else elbo.expand(num_particles, -1)  # Pyro has no plate for one
    infer = {"baseline": {"baseline_value": baseline}} if estimator == "baseline" else {}

    family = dist.Normal if estimator == "reparameterised" else NonreparameterizedNormal

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", family(*posterior(x)).to_event(1), infer=infer)

    kind = TraceGraph_ELBO if estimator == "baseline" else Trace_ELBO
    objective = kind(num_particles=num_particles, max_plate_nesting=1, vectorize_particles=True)
    leaves = [*vae.parameters(), *by]
    with pyro.get_param_store().scope():
        objective.loss_and_grads(vae.model, guide, x)
    found = [-leaf.grad for leaf in by if leaf.grad is not None]
    for leaf in leaves:
        leaf.grad = None
    return found


def datum_draws(
    vae: pv.VAE, x: Tensor, estimator: Estimator, num_particles: int, repeats: int, *, elbo: Tensor
) -> Tensor:
    """Estimates of the gradient of one datum's ELBO by (m, log s), x being (1, *data_shape): (repeats, 2L).

    A repeat is a datum of its own with its own m and s, so that one backward pass gives all.
    """
    qz = vae.posterior(x)
    loc, log_scale = (
        each.detach().expand(repeats, -1).clone().requires_grad_() for each in (qz.mean, qz.stddev.log())
    )

    def posterior(_: Tensor) -> tuple[Tensor, Tensor]:
        return loc, log_scale.exp()

    many, baseline = x.expand(repeats, *x.shape[1:]), elbo.expand(repeats)
    found = draw(vae, posterior, many, estimator, num_particles, elbo=baseline, by=(loc, log_scale))
    return torch.cat(found, dim=1)


def encoder_draws(
    vae: pv.VAE, x: Tensor, estimator: Estimator, num_particles: int, repeats: int, *, elbo: Tensor
) -> Tensor:
    """Estimates of the gradient of the mean ELBO of x by the parameters of q(z|x): (repeats, P)."""

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        qz = vae.posterior(x)
        return qz.mean, qz.stddev

    by = [*vae.posterior.parameters()]
    drawn = (draw(vae, posterior, x, estimator, num_particles, elbo=elbo, by=by) for _ in range(repeats))
    return torch.stack([torch.cat([each.flatten() for each in one]) for one in drawn]) / len(x)


def encoder_gradient(vae: pv.VAE, x: Tensor, *, step: float) -> Tensor:
    """The same without noise, by `integrals.integrated_elbo`: (P,)."""
    value = integrated_elbo(vae, x, step=step).mean()
    return torch.cat([each.flatten() for each in torch.autograd.grad(value, [*vae.posterior.parameters()])])
