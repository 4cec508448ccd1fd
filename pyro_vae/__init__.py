"""Variational autoencoders as Pyro programs.

A component is a module whose call returns a distribution: `prior()` is p(z), `likelihood(z)` is
p(x|z), `posterior(x)` is q(z|x). `VAE` makes a Pyro model and guide of the three, `fit` trains them,
`log_evidence` estimates log p(x).
"""

from pyro_vae.comparison import Comparison, compare
from pyro_vae.compiled import CompiledELBO
from pyro_vae.data import (
    MNIST,
    ArrayFile,
    Dataset,
    Digits,
    FashionMNIST,
    FreyFaces,
    ImageFolder,
    Omniglot,
    StaticMNIST,
)
from pyro_vae.diagnosis import Diagnosis, diagnose
from pyro_vae.distributions import ContinuousBernoulli, DiscretizedLogistic, Lattice
from pyro_vae.errors import InputError, NonFiniteLossError
from pyro_vae.importance import ELBO, LogEvidence, elbo, log_evidence, log_weights
from pyro_vae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    LaplaceLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
    bits_per_dim,
)
from pyro_vae.networks import (
    MLP,
    Architecture,
    Convolutional,
    GatedMLP,
    Network,
    ResidualConvolutional,
    head,
)
from pyro_vae.objectives import FreeBitsELBO, ImportanceWeightedELBO, KLWeight
from pyro_vae.optimisers import FusedAdam, SingleOptimiser
from pyro_vae.posteriors import (
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    LowRankNormalPosterior,
    Posterior,
)
from pyro_vae.priors import (
    FlowPrior,
    LaplacePrior,
    MixturePrior,
    Prior,
    StandardNormalPrior,
    StudentTPrior,
    VampPrior,
)
from pyro_vae.training import Epoch, History, fit
from pyro_vae.vae import VAE, Autoencoder, HierarchicalVAE, JointProgram, assemble

__all__ = [
    "ELBO",
    "MLP",
    "MNIST",
    "VAE",
    "Architecture",
    "ArrayFile",
    "Autoencoder",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "Comparison",
    "CompiledELBO",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "Convolutional",
    "Dataset",
    "Diagnosis",
    "DiagonalNormalPosterior",
    "Digits",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "Epoch",
    "FashionMNIST",
    "FlowPosterior",
    "FlowPrior",
    "FreeBitsELBO",
    "FreyFaces",
    "FullNormalPosterior",
    "FusedAdam",
    "GatedMLP",
    "HierarchicalVAE",
    "History",
    "ImageFolder",
    "ImportanceWeightedELBO",
    "InputError",
    "JointProgram",
    "KLWeight",
    "LaplaceLikelihood",
    "LaplacePrior",
    "Lattice",
    "Likelihood",
    "LogEvidence",
    "LowRankNormalPosterior",
    "MixturePrior",
    "NegativeBinomialLikelihood",
    "Network",
    "NonFiniteLossError",
    "NormalLikelihood",
    "Omniglot",
    "PoissonLikelihood",
    "Posterior",
    "Prior",
    "ResidualConvolutional",
    "SingleOptimiser",
    "StandardNormalPrior",
    "StaticMNIST",
    "StudentTPrior",
    "VampPrior",
    "assemble",
    "bits_per_dim",
    "compare",
    "diagnose",
    "elbo",
    "fit",
    "head",
    "log_evidence",
    "log_weights",
]
