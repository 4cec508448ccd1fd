"""Model and guide as functions of data: what everything after training is written on."""

from pyro_vae.programs.enumeration import Terms
from pyro_vae.programs.latents import Latents, LogProbs
from pyro_vae.programs.layout import Layout, Place
from pyro_vae.programs.pair import Drawn, Given, Pair
from pyro_vae.programs.running import Program, one_at_a_time, refusals, say
from pyro_vae.programs.simulation import Simulated, simulate
from pyro_vae.programs.sites import check_axes, per_datum, plates, sites, unscaled

__all__ = [
    "Drawn",
    "Given",
    "Latents",
    "Layout",
    "LogProbs",
    "Pair",
    "Place",
    "Program",
    "Simulated",
    "Terms",
    "check_axes",
    "one_at_a_time",
    "per_datum",
    "plates",
    "refusals",
    "say",
    "simulate",
    "sites",
    "unscaled",
]
