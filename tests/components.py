"""The registry: name → constructor. Every law of test_components.py holds for every entry."""

from collections.abc import Callable

import torch
from zuko.flows import NSF

import pyro_vae as pv  # before zuko, which switches validation off where it comes first

DATA_SHAPE = (1, 5, 4)
LATENT_DIM = 3
SMALL = pv.MLP((7, 6))

ARCHITECTURES: dict[str, Callable[[], pv.Architecture]] = {
    "MLP": lambda: SMALL,
    "MLP without hidden layers": lambda: pv.MLP(()),
    "GatedMLP": lambda: pv.GatedMLP((7, 6)),
    "Convolutional": lambda: pv.Convolutional((3, 4), hidden_dim=6),
    "ResidualConvolutional": lambda: pv.ResidualConvolutional((4, 6), hidden_dim=6, groups=2),
}

POSTERIORS: dict[str, Callable[[tuple[int, ...], int], pv.Posterior]] = {
    "DiagonalNormal": lambda shape, dim: pv.DiagonalNormalPosterior(SMALL.encoder(shape), dim),
    "FullNormal": lambda shape, dim: pv.FullNormalPosterior(SMALL.encoder(shape), dim),
    "LowRankNormal": lambda shape, dim: pv.LowRankNormalPosterior(SMALL.encoder(shape), dim),
    "Flow, inverse autoregressive": lambda shape, dim: pv.FlowPosterior(
        SMALL.encoder(shape), dim, hidden_dims=(8,)
    ),
    "Flow, neural spline": lambda shape, dim: pv.FlowPosterior(
        SMALL.encoder(shape), dim, flow=NSF, hidden_dims=(8,)
    ),
}

LIKELIHOODS: dict[str, Callable[[tuple[int, ...], int], pv.Likelihood]] = {
    "Bernoulli": lambda shape, dim: pv.BernoulliLikelihood(SMALL.decoder(dim, shape), shape),
    "Normal, fixed scale": lambda shape, dim: pv.NormalLikelihood(
        SMALL.decoder(dim, shape), shape, scale=0.7
    ),
    "Normal, shared scale": lambda shape, dim: pv.NormalLikelihood(SMALL.decoder(dim, shape), shape),
    "Normal, scale per pixel": lambda shape, dim: pv.NormalLikelihood(
        SMALL.decoder(dim, shape), shape, scale="per_pixel"
    ),
}
DISCRETE = {"Bernoulli"}

PRIORS: dict[str, Callable[[int], pv.Prior]] = {
    "StandardNormal": pv.StandardNormalPrior,
    "Laplace": pv.LaplacePrior,
    "StudentT": pv.StudentTPrior,
    "Mixture": lambda dim: pv.MixturePrior(dim, components=4),
    "Vamp": lambda dim: pv.VampPrior(
        POSTERIORS["DiagonalNormal"](DATA_SHAPE, dim), torch.rand(9, *DATA_SHAPE), components=4
    ),
    "Flow, masked autoregressive": lambda dim: pv.FlowPrior(dim, hidden_dims=(8,)),
    "Flow, neural spline": lambda dim: pv.FlowPrior(dim, flow=NSF, hidden_dims=(8,)),
}


def vae(
    prior: str = "StandardNormal", likelihood: str = "Bernoulli", posterior: str = "DiagonalNormal"
) -> pv.VAE:
    """A VAE of registered components; a VampPrior shares the posterior."""
    qz = POSTERIORS[posterior](DATA_SHAPE, LATENT_DIM)
    pz = PRIORS[prior](LATENT_DIM)
    if isinstance(pz, pv.VampPrior):
        pz.posterior = qz
    return pv.VAE(pz, LIKELIHOODS[likelihood](DATA_SHAPE, LATENT_DIM), qz)


def data_for(likelihood: str, num: int = 6) -> torch.Tensor:
    """Data in the support of a registered likelihood."""
    x = torch.rand(num, *DATA_SHAPE)
    return x.round() if likelihood in DISCRETE else x
