"""Training: the SVI loop, and nothing of any model."""

from pyro_vae.randomness import own_randomness
from pyro_vae.training.history import Epoch, History
from pyro_vae.training.svi import fit
from pyro_vae.training.trained import resolve_device

__all__ = ["Epoch", "History", "fit", "own_randomness", "resolve_device"]
