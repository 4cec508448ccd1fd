"""Model and guide as functions of tensors: what everything after training is written on."""

from pyro_vae.programs.pair import Pair, Program, refusals
from pyro_vae.programs.sites import check_axes, per_datum, plates, sites, unscaled

__all__ = ["Pair", "Program", "check_axes", "per_datum", "plates", "refusals", "sites", "unscaled"]
