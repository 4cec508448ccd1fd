"""The models."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import pyro_vae as pv


class Log1p(nn.Module):
    """log(1 + x): counts of all sizes on one scale."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return (1 + x).log()


class CountMLP(pv.MLP):
    """An MLP whose encoder sees log(1 + x)."""

    def encoder(self, data_shape: Iterable[int]) -> pv.Network:
        """As that of `MLP`."""
        plain = super().encoder(data_shape)
        return pv.Network(nn.Sequential(Log1p(), plain.layers), plain.input_shape, plain.output_shape)


class Model(NamedTuple):
    """A likelihood, and what it is given."""

    label: str
    #: What stands behind the bar of p(x|·).
    given: str
    likelihood: Callable[..., Any]
    exposure: bool


def _counts(label: str, likelihood: Callable[..., Any], exposure: bool) -> Model:
    return Model(label, "e" if exposure else "–", partial(likelihood, exposure=exposure), exposure)


#: By the name of their records.
MODELS = {
    "poisson": _counts("Poisson", pv.PoissonLikelihood, False),
    "negative binomial": _counts("negative binomial", pv.NegativeBinomialLikelihood, False),
    "poisson, exposure": _counts("Poisson", pv.PoissonLikelihood, True),
    "negative binomial, exposure": _counts("negative binomial", pv.NegativeBinomialLikelihood, True),
    "multinomial": Model("multinomial", "n", pv.MultinomialLikelihood, False),
}


class Options(NamedTuple):
    """How all are made, trained and measured."""

    genes: int = 30
    sizes: tuple[int, int, int] = (4000, 500, 1000)
    hidden: tuple[int, ...] = (64, 64)
    latent_dim: int = 5
    epochs: int = 60
    particles: int = 1000
    #: Draws of z for the law of a model's total.
    draws: int = 2000


#: For a trial in seconds.
SMOKE = Options(5, (100, 20, 20), (8,), 2, 2, 30, 20)


def trained(name: str, data: pv.Dataset, options: Options, seed: int) -> pv.VAE:
    """A model with its parameters of the best validation ELBO."""
    what = MODELS[name]
    torch.manual_seed(seed)
    data = data.giving("exposure") if what.exposure else data
    vae = pv.assemble(
        data,
        latent_dim=options.latent_dim,
        network=CountMLP(options.hidden),
        likelihood=what.likelihood,
    )
    pv.fit(vae, data, epochs=options.epochs, seed=seed, device="cpu")
    return vae
