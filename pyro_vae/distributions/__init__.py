"""Distributions that torch and Pyro lack."""

from pyro_vae.distributions.affine import Affine
from pyro_vae.distributions.columnwise import Categories, Columnwise
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.lattice import DiscretizedLogistic, Lattice, OnLattice
from pyro_vae.distributions.normals import DiagonalNormalMixture, kl_from_correlated_normal
from pyro_vae.distributions.observed import Observed
from pyro_vae.distributions.words import BagOfWords

__all__ = [
    "Affine",
    "BagOfWords",
    "Categories",
    "Columnwise",
    "ContinuousBernoulli",
    "DiagonalNormalMixture",
    "DiscretizedLogistic",
    "Lattice",
    "Observed",
    "OnLattice",
    "kl_from_correlated_normal",
]
