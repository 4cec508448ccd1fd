"""Distributions that torch and Pyro lack."""

from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.lattice import DiscretizedLogistic, Lattice, OnLattice
from pyro_vae.distributions.normals import DiagonalNormalMixture, kl_from_correlated_normal

__all__ = [
    "ContinuousBernoulli",
    "DiagonalNormalMixture",
    "DiscretizedLogistic",
    "Lattice",
    "OnLattice",
    "kl_from_correlated_normal",
]
