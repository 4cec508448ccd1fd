"""Model and guide as functions of tensors: what everything after training is written on."""

from pyro_vae.programs.latents import Given, Latents, LogProbs
from pyro_vae.programs.pair import Pair, Program, refusals
from pyro_vae.programs.simulation import Simulated, simulate
from pyro_vae.programs.sites import check_axes, per_datum, plates, sites, unscaled

__all__ = [
    "Given",
    "Latents",
    "LogProbs",
    "Pair",
    "Program",
    "Simulated",
    "check_axes",
    "per_datum",
    "plates",
    "refusals",
    "simulate",
    "sites",
    "unscaled",
]
