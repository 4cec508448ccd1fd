"""Model and guide as functions of data: what everything after training is written on."""

from pyro_vae.batch import Program
from pyro_vae.programs.enumeration import Terms
from pyro_vae.programs.latents import Latents, LogProbs
from pyro_vae.programs.layout import Layout, Place
from pyro_vae.programs.pair import Drawn, GivenLatents, Pair, rows_of
from pyro_vae.programs.running import one_at_a_time, refusals, say
from pyro_vae.programs.simulation import Simulated, entries_of, simulate
from pyro_vae.programs.sites import plates, sites, unscaled

__all__ = [
    "Drawn",
    "GivenLatents",
    "Latents",
    "Layout",
    "LogProbs",
    "Pair",
    "Place",
    "Program",
    "Simulated",
    "Terms",
    "entries_of",
    "one_at_a_time",
    "plates",
    "refusals",
    "rows_of",
    "say",
    "simulate",
    "sites",
    "unscaled",
]
