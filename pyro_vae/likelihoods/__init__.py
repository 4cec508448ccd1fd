"""Likelihoods p(x|z): a network that ends in a distribution over data."""

from pyro_vae.likelihoods.base import Likelihood, bits_per_dim
from pyro_vae.likelihoods.binary import BernoulliLikelihood
from pyro_vae.likelihoods.columns import ColumnsLikelihood
from pyro_vae.likelihoods.continuous import (
    ContinuousBernoulliLikelihood,
    LaplaceLikelihood,
    NormalLikelihood,
)
from pyro_vae.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_vae.likelihoods.densities import (
    BernoulliColumns,
    CategoricalColumns,
    ColumnDensity,
    LogNormalColumns,
    NegativeBinomialColumns,
    NormalColumns,
    PoissonColumns,
    StudentTColumns,
)
from pyro_vae.likelihoods.levels import (
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
)
from pyro_vae.likelihoods.observed import ObservedLikelihood
from pyro_vae.likelihoods.words import MultinomialLikelihood

__all__ = [
    "BernoulliColumns",
    "BernoulliLikelihood",
    "CategoricalColumns",
    "CategoricalLikelihood",
    "ColumnDensity",
    "ColumnsLikelihood",
    "ContinuousBernoulliLikelihood",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "LogNormalColumns",
    "MultinomialLikelihood",
    "NegativeBinomialColumns",
    "NegativeBinomialLikelihood",
    "NormalColumns",
    "NormalLikelihood",
    "ObservedLikelihood",
    "PoissonColumns",
    "PoissonLikelihood",
    "StudentTColumns",
    "bits_per_dim",
]
