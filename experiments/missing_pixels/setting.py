"""The data, of which half of the pixels are missing, and the models that are trained on them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

import pyro_vae as pv

#: Probability that a pixel is missing.
SHARE = 0.5


class Data(NamedTuple):
    """The same images twice."""

    #: All pixels.
    complete: pv.Dataset
    #: NaN for half of them.
    incomplete: pv.Dataset


def data_of(source: pv.Dataset, sizes: tuple[int, int, int]) -> Data:
    """Bits of which each pixel is missing with probability 1/2, whatever it and all others are.

    Args:
        source: Bits that are the same at each use.
        sizes: How many images of train, valid and test are used, at the most.
    """
    splits = (source.train, source.valid, source.test)
    x = [split.subset(size).batch() for split, size in zip(splits, sizes, strict=True)]
    hollow = [with_holes(each, stream) for stream, each in enumerate(x)]
    return Data(*(pv.Dataset(*each, maximum=1, missing=True) for each in (x, hollow)))


def with_holes(x: Tensor, stream: int) -> Tensor:
    """The data with NaN in half of the places, drawn by `RandomState([0, stream])`."""
    missing = np.random.RandomState([0, stream]).random_sample(x.shape) < SHARE
    return torch.where(torch.from_numpy(missing), torch.nan, x)


class Trained(NamedTuple):
    """On which data a model is trained, and by which objective."""

    #: In the table.
    label: str
    #: Whether on all pixels.
    complete: bool
    #: K of the importance-weighted bound; 1 is the ELBO.
    num_particles: int

    @property
    def objective(self) -> Callable[..., Any]:
        """With the gradient of the bound itself."""
        weighted = partial(pv.ImportanceWeightedELBO, gradient="plain")
        return Trace_ELBO if self.num_particles == 1 else weighted


#: By the name of their run.
MODELS = {
    "miwae": Trained("importance-weighted bound of the observed pixels (MIWAE)", False, 20),
    "mvae": Trained("ELBO of the observed pixels (MVAE)", False, 1),
    "vae": Trained("ELBO, trained on complete images", True, 1),
}


class Options(NamedTuple):
    """How all models are made and trained."""

    sizes: tuple[int, int, int] = (10_000, 500, 500)
    hidden: tuple[int, ...] = (200, 200)
    latent_dim: int = 50
    epochs: int = 12
    batch_size: int = 25
    #: Draws of z per image for log p(x), and for imputation.
    particles: int = 1000
    draws: int = 200


#: For a trial in seconds.
SMOKE = Options((100, 20, 10), (10,), 3, 1, 50, 30, 30)


def trained(name: str, seed: int, data: Data, options: Options, runs: Path) -> pv.VAE:
    """A model, trained, or read where it is: it goes on where it was interrupted.

    All of one seed start with the same parameters; what is missing the encoder sees as its mean.
    """
    what = MODELS[name]
    torch.manual_seed(seed)
    network = pv.MLP(options.hidden)
    vae = pv.assemble(data.incomplete, latent_dim=options.latent_dim, network=network)
    pv.fit(
        vae,
        data.complete if what.complete else data.incomplete,
        epochs=options.epochs,
        batch_size=options.batch_size,
        objective=what.objective,
        num_particles=what.num_particles,
        keep="last",  # the validation ELBO does not judge the other bound
        seed=seed,
        device="cpu",
        checkpoints=runs / f"{name}-{seed}",
        resume=True,
    )
    return vae
