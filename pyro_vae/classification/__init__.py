"""The label of a datum: p(y|x) of a model, and how far probabilities of classes can be believed."""

from pyro_vae.classification.posterior import LabelPosterior, label_posterior
from pyro_vae.classification.reliability import Reliability, reliability

__all__ = ["LabelPosterior", "Reliability", "label_posterior", "reliability"]
