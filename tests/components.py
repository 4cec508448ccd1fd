"""The registry: name → constructor. Every law of test_components.py holds for every entry."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from zuko.flows import NSF

import pyro_vae as pv

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
        SMALL.encoder(shape), dim, hidden_dims=(16,)
    ),
    "Flow, neural spline": lambda shape, dim: pv.FlowPosterior(
        SMALL.encoder(shape), dim, flow=NSF, hidden_dims=(16,)
    ),
}

LIKELIHOODS: dict[str, Callable[[tuple[int, ...], int], pv.Likelihood]] = {
    "Bernoulli": lambda shape, dim: pv.BernoulliLikelihood(SMALL.decoder(dim, shape), shape),
    "ContinuousBernoulli": lambda shape, dim: pv.ContinuousBernoulliLikelihood(
        SMALL.decoder(dim, shape), shape
    ),
    "Normal, fixed scale": lambda shape, dim: pv.NormalLikelihood(
        SMALL.decoder(dim, shape), shape, scale=0.7
    ),
    "Normal, shared scale": lambda shape, dim: pv.NormalLikelihood(SMALL.decoder(dim, shape), shape),
    "Normal, scale per pixel": lambda shape, dim: pv.NormalLikelihood(
        SMALL.decoder(dim, shape), shape, scale="per_pixel"
    ),
    "Laplace, fixed scale": lambda shape, dim: pv.LaplaceLikelihood(
        SMALL.decoder(dim, shape), shape, scale=0.7
    ),
    "Laplace, shared scale": lambda shape, dim: pv.LaplaceLikelihood(SMALL.decoder(dim, shape), shape),
    "Laplace, scale per pixel": lambda shape, dim: pv.LaplaceLikelihood(
        SMALL.decoder(dim, shape), shape, scale="per_pixel"
    ),
    "Categorical": lambda shape, dim: pv.CategoricalLikelihood(SMALL.decoder(dim, shape), shape, 5),
    "DiscretizedLogistic": lambda shape, dim: pv.DiscretizedLogisticLikelihood(
        SMALL.decoder(dim, shape), shape, 5
    ),
    "DiscretizedLogisticMixture": lambda shape, dim: pv.DiscretizedLogisticMixtureLikelihood(
        SMALL.decoder(dim, shape), shape, 5, components=3
    ),
    "Poisson": lambda shape, dim: pv.PoissonLikelihood(SMALL.decoder(dim, shape), shape),
    "NegativeBinomial, in quarters": lambda shape, dim: pv.NegativeBinomialLikelihood(
        SMALL.decoder(dim, shape), shape, unit=0.25
    ),
    "Normal, standardised": lambda shape, dim: pv.StandardisedLikelihood(
        pv.NormalLikelihood(SMALL.decoder(dim, shape), shape),
        torch.linspace(-0.5, 1.0, math.prod(shape)).reshape(shape),
        torch.linspace(0.5, 2.0, math.prod(shape)).reshape(shape),
    ),
}

#: The values of one number under each discrete likelihood; of counts, as far as they have any mass.
DISCRETE: dict[str, torch.Tensor] = {
    "Bernoulli": torch.tensor([0.0, 1.0]),
    "Categorical": torch.arange(5.0) / 4,
    "DiscretizedLogistic": torch.arange(5.0) / 4,
    "DiscretizedLogisticMixture": torch.arange(5.0) / 4,
    "Poisson": torch.arange(300.0),
    "NegativeBinomial, in quarters": torch.arange(300.0) / 4,
}

PRIORS: dict[str, Callable[[int], pv.Prior]] = {
    "StandardNormal": pv.StandardNormalPrior,
    "Laplace": pv.LaplacePrior,
    "StudentT": pv.StudentTPrior,
    "Mixture": lambda dim: pv.MixturePrior(dim, components=4),
    "Vamp": lambda dim: pv.VampPrior(
        POSTERIORS["DiagonalNormal"](DATA_SHAPE, dim), torch.rand(9, *DATA_SHAPE), components=4
    ),
    "Flow, masked autoregressive": lambda dim: pv.FlowPrior(dim, hidden_dims=(16,)),
    "Flow, neural spline": lambda dim: pv.FlowPrior(dim, flow=NSF, hidden_dims=(16,)),
}

OBJECTIVES: dict[str, Callable[..., ELBO]] = {
    "Trace": Trace_ELBO,
    "TraceMeanField": TraceMeanField_ELBO,
    "ImportanceWeighted, plain": partial(pv.ImportanceWeightedELBO, gradient="plain"),
    "ImportanceWeighted, stl": partial(pv.ImportanceWeightedELBO, gradient="stl"),
    "ImportanceWeighted, dreg": partial(pv.ImportanceWeightedELBO, gradient="dreg"),
    "FreeBits": partial(pv.FreeBitsELBO, free_bits=0.0),
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
    if likelihood not in DISCRETE:
        return torch.rand(num, *DATA_SHAPE)
    few = DISCRETE[likelihood][:5]
    return few[torch.randint(len(few), (num, *DATA_SHAPE))]


def refused(text: str) -> "pytest.RaisesExc[pv.InputError]":
    """Expect an InputError of this text."""
    return pytest.raises(pv.InputError, match=text)
