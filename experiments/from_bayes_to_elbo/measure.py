"""The measurements, each a record of plain numbers."""

from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.from_bayes_to_elbo.gradients import (
    ESTIMATORS,
    datum_draws,
    encoder_draws,
    encoder_gradient,
    gradient_moments,
)
from experiments.from_bayes_to_elbo.integrals import integrated_elbo, plane_sums

Record = dict[str, Any]


def identity(vae: pv.VAE, x: Tensor, *, step: float, limit: float, q_step: float, draws: int) -> Record:
    """Log p(x) = ELBO + KL, the three being sums over three different lattices; and the same by sampling."""
    fine, coarse = (plane_sums(vae, x, step=each, limit=limit) for each in (step, 2 * step))
    other = plane_sums(vae, x, step=1.15 * step, limit=limit)
    with torch.no_grad():
        elbo, rough = (integrated_elbo(vae, x, step=each) for each in (q_step, 2 * q_step))
    return {
        "step": step,
        "limit": limit,
        "q_step": q_step,
        "log_evidence": _numbers(fine.log_evidence),
        "elbo": _numbers(elbo),
        "kl": _numbers(other.kl),
        "residual": _largest(fine.log_evidence - elbo - other.kl),
        "halving_evidence": _largest(fine.log_evidence - coarse.log_evidence),
        "halving_elbo": _largest(elbo - rough),
        "mass_of_q": _largest(other.mass_of_q - 1),
        "border": float(fine.border.max()),
        "narrowest": float(vae.posterior(x).stddev.detach().min()),
        **_sampled(vae, x, elbo, fine.log_evidence, draws),
    }


def _sampled(vae: pv.VAE, x: Tensor, elbo: Tensor, log_evidence: Tensor, draws: int) -> Record:
    """`pv.elbo` and `pv.log_evidence` less the integrals, with the Monte Carlo errors of both.

    `pv.elbo` reports no error per datum: its error is taken from the spread of as many further draws.
    """
    bound = pv.elbo(vae.model, vae.guide, x, num_particles=draws).elbo
    weights = pv.log_weights(vae.model, vae.guide, x, draws)
    result = pv.log_evidence(vae.model, vae.guide, x, num_particles=draws)
    return {
        "draws": draws,
        "sampled_elbo": _numbers(bound - elbo),
        "sampled_elbo_error": _numbers(weights.std(0) / draws**0.5),
        "sampled_evidence": _numbers(result.estimate - log_evidence),
        "sampled_evidence_error": _numbers(result.standard_error),
        "pareto_k": _numbers(result.pareto_k),
    }


def datum_gradients(vae: pv.VAE, x: Tensor, *, step: float, repeats: int, draws: tuple[int, ...]) -> Record:
    """Variances by (m, log s) for each datum, integrated; for a typical one drawn, too, by Pyro for each K.

    The typical datum is the one with the median ratio of variances, score function to reparameterised.
    """
    found = gradient_moments(vae, x, step=step)
    half = found.gradient.shape[1] // 2
    variances = {
        name: _numbers(getattr(found, name).unflatten(1, (2, half)).sum(2).T)  # by m, by log s: (2, B)
        for name in ("reparameterised", "baseline", "best_baseline", "score")
    }
    ratio = found.score.sum(1) / found.reparameterised.sum(1)
    typical = int(ratio.argsort()[len(x) // 2])
    one = x[typical : typical + 1]
    with torch.no_grad():
        elbo = integrated_elbo(vae, one, step=step)
    drawn = []
    for estimator in ESTIMATORS:
        for number in draws:
            estimates = datum_draws(vae, one, estimator, number, repeats, elbo=elbo)
            error = (estimates.var(0) / repeats).sqrt()
            drawn.append(
                {
                    "estimator": estimator,
                    "num_particles": number,
                    "variance": float(estimates.var(0).sum()),
                    "exact": float(getattr(found, estimator)[typical].sum() / number),
                    "z": _numbers((estimates.mean(0) - found.gradient[typical]) / error),
                }
            )
    difference = _largest(found.gradient - found.score_gradient)
    return {"difference": difference, "variances": variances, "typical": typical, "drawn": drawn}


def encoder_gradients(
    vae: pv.VAE, x: Tensor, *, repeats: int, draws: tuple[int, ...], step: float | None
) -> Record:
    """Variance of the gradient of the mean ELBO of x by the encoder's parameters, summed over these.

    Args:
        vae: The model.
        x: A batch.
        repeats: Estimates of the gradient, for each estimator and K.
        draws: The numbers K.
        step: Of the lattice, in deviations of q, by which the gradient is integrated and bias is measured;
            None where the latent has too many dimensions for that.
    """
    elbo = pv.elbo(vae.model, vae.guide, x, num_particles=1000).elbo.to(x)
    exact = None if step is None else encoder_gradient(vae, x, step=step)
    drawn = []
    for estimator in ESTIMATORS:
        for number in draws:
            estimates = encoder_draws(vae, x, estimator, number, repeats, elbo=elbo)
            record: Record = {"estimator": estimator, "num_particles": number}
            record["variance"] = float(estimates.var(0).sum())
            if exact is not None:
                along = estimates @ exact / exact.norm()
                record["z"] = float((along.mean() - exact.norm()) / along.std() * repeats**0.5)
            drawn.append(record)
    return {"repeats": repeats, "drawn": drawn}


def moves(vae: pv.VAE, data: pv.Digits, x: Tensor, *, step: float, distance: float) -> Record:
    """Log p(x) of 0/1 images drawn at z that were moved, beside that of data and of images without a z."""
    generator = torch.Generator().manual_seed(0)
    code, pair = vae.encode(x), x.roll(1, 0)
    direction = torch.randn(code.shape, generator=generator, dtype=code.dtype)
    nearby = code + distance * direction / direction.norm(dim=1, keepdim=True)
    frequencies = data.train.values.double().mean(0).expand_as(x) / data.train.maximum
    means = {
        "z drawn from q": vae.reconstruct(x),
        f"moved by {distance:g} in z": vae.decode(nearby),
        "half-way in z": vae.decode((code + vae.encode(pair)) / 2),
        "half-way in pixels": (x + pair) / 2,
        "independent pixels": frequencies,
    }
    found = {"test data": x} | {
        name: torch.bernoulli(mean, generator=generator) for name, mean in means.items()
    }
    log_evidence = {name: plane_sums(vae, each, step=step).log_evidence for name, each in found.items()}
    change = (vae.decode(nearby) - vae.decode(code)).flatten(1).norm(dim=1)
    slope, scale = slopes(vae, code), vae.posterior(x).stddev.detach()
    return {
        "log_evidence": {name: _numbers(each) for name, each in log_evidence.items()},
        "change": float(change.median() / distance),
        "slope": float(slope.median()),
        "widest": float((slope * scale.amax(1)).median()),
    }


def slopes(vae: pv.VAE, z: Tensor) -> Tensor:
    """The largest singular value of ∂E[x|z]/∂z: how far the mean image moves per unit of z, (N,)."""

    def mean(point: Tensor) -> Tensor:
        return vae.likelihood(point).mean.flatten()

    jacobian: Tensor = torch.func.vmap(torch.func.jacrev(mean))(z)
    return torch.linalg.matrix_norm(jacobian.detach(), ord=2)


def _largest(values: Tensor) -> float:
    return float(values.detach().abs().max())


def _numbers(values: Tensor) -> Any:
    """Nested lists with six digits, null for what is not finite."""
    if values.ndim > 1:
        return [_numbers(each) for each in values.detach()]
    return [float(f"{each:.6g}") if each == each else None for each in values.detach().double().tolist()]
