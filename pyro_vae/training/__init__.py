"""Training: the SVI loop, and nothing of any model."""

from pyro_vae.randomness import own_randomness
from pyro_vae.training.history import Epoch, History
from pyro_vae.training.many import Fitted, fit_many
from pyro_vae.training.options import FIT_OPTIONS, FitOptions
from pyro_vae.training.svi import fit
from pyro_vae.training.trained import resolve_device

__all__ = [
    "FIT_OPTIONS",
    "Epoch",
    "FitOptions",
    "Fitted",
    "History",
    "fit",
    "fit_many",
    "own_randomness",
    "resolve_device",
]
