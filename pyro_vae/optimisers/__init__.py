"""Optimisers for SVI."""

from pyro_vae.optimisers.fused import FusedAdam
from pyro_vae.optimisers.made import make_optimiser
from pyro_vae.optimisers.single import SingleOptimiser

__all__ = ["FusedAdam", "SingleOptimiser", "make_optimiser"]
