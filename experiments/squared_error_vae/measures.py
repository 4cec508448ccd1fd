"""What is measured of one trained model."""

import math
from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.squared_error_vae.losses import best_elbo, best_scale
from pyro_vae.diagnosis import latent_units
from pyro_vae.randomness import own_randomness

#: Of z per datum, for the error beside the ELBO.
DRAWS = 10


@torch.no_grad()
def measured(data: pv.Dataset, vae: pv.VAE, summary: dict[str, Any], num_data: int | None) -> dict[str, Any]:
    """All numbers of one run, for JSON; of `num_data` test data, or all."""
    evidence, terms = summary["log_evidence"], summary["elbo"]["test"]
    x = vae.place(data.test.subset(num_data).batch())
    with own_randomness(0, vae.device):
        squares = squared_error(vae, x, vae.posterior(x).sample())
        # on the data and by as many draws as the ELBO
        used = vae.place(data.test.subset(terms["num_data"]).batch()).repeat(DRAWS, *[1] * (x.ndim - 1))
        on_used = squared_error(vae, used, vae.posterior(used).sample())
        units = latent_units(vae.model, vae.guide, x[:1000], num_draws=20)
        spread = sample_spread(vae, data.train.subset(num_data).batch().mean(0))
    pixels = x[0].numel()
    return {
        "protocol": data.protocol,
        "bin_width": data.bin_width,
        "scale": learned_scale(vae, x),
        "elbo": round(terms["elbo"], 3),
        "kl": round(terms["kl"], 4),
        "active": units.num_active,
        "of": len(units.names),
        "rmse": round(math.sqrt(squares / pixels), 5),
        "best_scale": round(best_scale(on_used, pixels), 5),
        "best_elbo": round(best_elbo(on_used, terms["kl"], pixels), 3),
        "log_evidence": round(evidence["estimate"], 3),
        "standard_error": round(evidence["standard_error"], 3),
        "bits_per_dim": evidence["bits_per_dim"],
        "unreliable": summary["pareto_k"]["above"] + summary["pareto_k"]["unknown"],
        "data": terms["num_data"],
        **{name: round(value, 5) for name, value in spread.items()},
        "training": {name: summary["training"][name] for name in ("epochs", "best_epoch", "parameters")},
        "seconds": round(summary["training"]["seconds"], 1),
        "versions": summary["versions"],
    }


@torch.no_grad()
def squared_error(vae: pv.VAE, x: Tensor, z: Tensor) -> float:
    """Mean over the data of ‖x − m(z)‖², m being the mean of p(x|z)."""
    parts = zip(x.split(1000), z.split(1000), strict=True)
    sums = [(vae.decode(code) - each).double().square().sum() for each, code in parts]
    return float(torch.stack(sums).sum() / len(x))


@torch.no_grad()
def learned_scale(vae: pv.VAE, x: Tensor) -> float:
    """The scale, where it is one; else the geometric mean over pixels and data."""
    scale = vae.likelihood(vae.encode(x[:1000])).base_dist.scale
    return round(float(scale.double().log().mean().exp()), 5)


@torch.no_grad()
def sample_spread(vae: pv.VAE, mean_image: Tensor, num: int = 1000) -> dict[str, float]:
    """How far the means m(z) of draws z ~ p(z) lie from each other, and their mean from the data's.

    Both are root mean squares over pixels, in units of x.
    """
    pictures = vae.sample(num, mean=True).double()
    middle = pictures.mean(0)
    return {
        "spread": float((pictures - middle).square().mean().sqrt()),
        "to_mean_image": float((middle - vae.place(mean_image).double()).square().mean().sqrt()),
    }


def eigenvalues(x: Tensor, num: int) -> list[float]:
    """The `num` largest variances of data (N, *data_shape) along their principal axes."""
    return torch.linalg.eigvalsh(x.flatten(1).double().T.cov()).flip(0)[:num].tolist()


def linear_active(variances: list[float], scale: float) -> int:
    """Latent dimensions that a linear VAE of this scale uses at its optimum: principal variances above s².

    Its decoder is that of probabilistic PCA at a fixed scale, whose k-th column has length √(λ_k − s²), or 0:
    Tipping & Bishop, "Probabilistic Principal Component Analysis" (1999); Lucas, Tucker, Grosse & Norouzi,
    "Don't Blame the ELBO!" (2019).

    >>> linear_active([5.0, 2.0, 0.5], 1.0)
    2
    """
    return sum(each > scale**2 for each in variances)
