"""Variational autoencoders as Pyro programs.

A component is a module whose call returns a distribution: `prior()` is p(z), `likelihood(z)` is
p(x|z), `posterior(x)` is q(z|x). `VAE` makes a Pyro model and guide of the three, `fit` trains them,
`log_evidence` estimates log p(x).

A name is imported where it is first used, so that the command line starts, and is interrupted, at once.
"""

import ast
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_vae.annealing import (
        AnnealedEvidence,
        AutoEvidence,
        BidirectionalGap,
        GapSearch,
        InformationBounds,
        RateDistortion,
        annealed_log_evidence,
        auto_log_evidence,
        bidirectional_gap,
    )
    from pyro_vae.batch import Batch
    from pyro_vae.classification import LabelPosterior, Reliability, label_posterior, reliability
    from pyro_vae.cli.loading import TrainedRun, load
    from pyro_vae.columns import Column, Schema
    from pyro_vae.comparison import Comparison, compare
    from pyro_vae.compiled import CompiledELBO
    from pyro_vae.data import (
        MNIST,
        ArrayFile,
        AsGiven,
        Counts,
        Dataset,
        Dequantised,
        Digits,
        Dynamic,
        FashionMNIST,
        Form,
        FreyFaces,
        ImageFolder,
        Levels,
        Omniglot,
        RawValues,
        SklearnTable,
        Standardised,
        Static,
        StaticMNIST,
        Table,
        Threshold,
        TorchData,
    )
    from pyro_vae.diagnosis import (
        Agreement,
        Calibration,
        Coverage,
        Diagnosis,
        ExactPosterior,
        LocalTest,
        RandomCoverage,
        agreement,
        calibrate,
        diagnose,
        exact_posterior,
        local_test,
        tarp,
    )
    from pyro_vae.distributions import (
        Affine,
        BagOfWords,
        Categories,
        Columnwise,
        ContinuousBernoulli,
        DiscretizedLogistic,
        Lattice,
        Observed,
    )
    from pyro_vae.errors import InputError, NonFiniteLossError
    from pyro_vae.exchange import to_datatree
    from pyro_vae.importance import BoundCurve, ELBOEstimate, LogEvidence, elbo, log_evidence, log_weights
    from pyro_vae.imputation import Imputation, LogConditional, impute, log_conditional
    from pyro_vae.likelihoods import (
        BernoulliColumns,
        BernoulliLikelihood,
        CategoricalColumns,
        CategoricalLikelihood,
        ColumnDensity,
        ColumnsLikelihood,
        ContinuousBernoulliLikelihood,
        DiscretizedLogisticLikelihood,
        DiscretizedLogisticMixtureLikelihood,
        LaplaceLikelihood,
        Likelihood,
        LogNormalColumns,
        MultinomialLikelihood,
        NegativeBinomialColumns,
        NegativeBinomialLikelihood,
        NormalColumns,
        NormalLikelihood,
        ObservedLikelihood,
        PoissonColumns,
        PoissonLikelihood,
        StudentTColumns,
        bits_per_dim,
    )
    from pyro_vae.networks import (
        MLP,
        Architecture,
        ColumnsEncoder,
        Convolutional,
        GatedMLP,
        Network,
        ObservedEncoder,
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
        ConditionalNormalPrior,
        FlowPrior,
        LaplacePrior,
        MixturePrior,
        Prior,
        StandardNormalPrior,
        StudentTPrior,
        VampPrior,
    )
    from pyro_vae.proposals import LocalProposal
    from pyro_vae.reports import Evaluation, evaluate
    from pyro_vae.tracking import CsvTracker, MLflowTracker, TensorBoardTracker, Tracker, WandbTracker
    from pyro_vae.training import Epoch, Fitted, History, fit, fit_many
    from pyro_vae.vae import (
        VAE,
        Autoencoder,
        Classifier,
        HierarchicalVAE,
        JointProgram,
        SemiSupervisedVAE,
        StandardisedLikelihood,
        StandardisedPosterior,
        assemble,
    )

__version__ = version("pyro_vae")

__all__ = [
    "MLP",
    "MNIST",
    "VAE",
    "Affine",
    "Agreement",
    "AnnealedEvidence",
    "Architecture",
    "ArrayFile",
    "AsGiven",
    "AutoEvidence",
    "Autoencoder",
    "BagOfWords",
    "Batch",
    "BernoulliColumns",
    "BernoulliLikelihood",
    "BidirectionalGap",
    "BoundCurve",
    "Calibration",
    "CategoricalColumns",
    "CategoricalLikelihood",
    "Categories",
    "Classifier",
    "Column",
    "ColumnDensity",
    "ColumnsEncoder",
    "ColumnsLikelihood",
    "Columnwise",
    "Comparison",
    "CompiledELBO",
    "ConditionalNormalPrior",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "Convolutional",
    "Counts",
    "Coverage",
    "CsvTracker",
    "Dataset",
    "Dequantised",
    "Diagnosis",
    "DiagonalNormalPosterior",
    "Digits",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureLikelihood",
    "Dynamic",
    "ELBOEstimate",
    "Epoch",
    "Evaluation",
    "ExactPosterior",
    "FashionMNIST",
    "Fitted",
    "FlowPosterior",
    "FlowPrior",
    "Form",
    "FreeBitsELBO",
    "FreyFaces",
    "FullNormalPosterior",
    "FusedAdam",
    "GapSearch",
    "GatedMLP",
    "HierarchicalVAE",
    "History",
    "ImageFolder",
    "ImportanceWeightedELBO",
    "Imputation",
    "InformationBounds",
    "InputError",
    "JointProgram",
    "KLWeight",
    "LabelPosterior",
    "LaplaceLikelihood",
    "LaplacePrior",
    "Lattice",
    "Levels",
    "Likelihood",
    "LocalProposal",
    "LocalTest",
    "LogConditional",
    "LogEvidence",
    "LogNormalColumns",
    "LowRankNormalPosterior",
    "MLflowTracker",
    "MixturePrior",
    "MultinomialLikelihood",
    "NegativeBinomialColumns",
    "NegativeBinomialLikelihood",
    "Network",
    "NonFiniteLossError",
    "NormalColumns",
    "NormalLikelihood",
    "Observed",
    "ObservedEncoder",
    "ObservedLikelihood",
    "Omniglot",
    "PoissonColumns",
    "PoissonLikelihood",
    "Posterior",
    "Prior",
    "RandomCoverage",
    "RateDistortion",
    "RawValues",
    "Reliability",
    "ResidualConvolutional",
    "Schema",
    "SemiSupervisedVAE",
    "SingleOptimiser",
    "SklearnTable",
    "StandardNormalPrior",
    "Standardised",
    "StandardisedLikelihood",
    "StandardisedPosterior",
    "Static",
    "StaticMNIST",
    "StudentTColumns",
    "StudentTPrior",
    "Table",
    "TensorBoardTracker",
    "Threshold",
    "TorchData",
    "Tracker",
    "TrainedRun",
    "VampPrior",
    "WandbTracker",
    "agreement",
    "annealed_log_evidence",
    "assemble",
    "auto_log_evidence",
    "bidirectional_gap",
    "bits_per_dim",
    "calibrate",
    "compare",
    "diagnose",
    "elbo",
    "evaluate",
    "exact_posterior",
    "fit",
    "fit_many",
    "head",
    "impute",
    "label_posterior",
    "load",
    "local_test",
    "log_conditional",
    "log_evidence",
    "log_weights",
    "reliability",
    "tarp",
    "to_datatree",
]


def _homes() -> dict[str, str]:
    """The module of each public name, as the imports above say, which only type checkers make."""
    tree = ast.parse(Path(__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    statements = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {name.name: str(node.module) for node in statements for name in node.names}


_HOME = _homes()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        close = get_close_matches(name, _HOME, n=1, cutoff=0.8)
        hint = f": did you mean {close[0]}?" if close else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    found = globals()[name] = getattr(import_module(_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return [*globals(), *_HOME]
