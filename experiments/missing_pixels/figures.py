"""The picture: test digits, what is seen of them, and what the models fill in."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae as pv
from experiments.missing_pixels.measuring import pixel_means
from experiments.missing_pixels.setting import Data
from pyro_vae import plots
from pyro_vae.randomness import own_randomness

#: Digits that are shown.
NUM = 12
_NAMES = {"miwae": "MIWAE", "mvae": "MVAE", "vae": "trained on\ncomplete images"}


def picture(vaes: Mapping[str, pv.VAE], data: Data, particles: int) -> Figure:
    """One digit in each column."""
    x, hollow = (each.test.batch()[:NUM] for each in (data.complete, data.incomplete))
    rows = {"test digits": x, "observed": hollow.nan_to_num(nan=0.5)}
    for name, vae in vaes.items():
        with own_randomness(1, torch.device("cpu")):
            found = pv.impute(vae.model, vae.guide, hollow, num_particles=particles, num_draws=3)
        rows[f"{_NAMES[name]}: mean"] = found.mean
        if name == "miwae":
            rows |= {
                f"{_NAMES[name]}: draw {number}": each for number, each in enumerate(found.draws, start=1)
            }
    rows["pixel means"] = _of_means(data, hollow)
    return plots.strips(
        rows, title="half of the pixels are missing (grey) and filled in: E[x_mis|x_obs], and draws"
    )


def _of_means(data: Data, hollow: Tensor) -> Tensor:
    return torch.where(hollow.isnan(), pixel_means(data), hollow)
