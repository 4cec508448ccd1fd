"""Whether q(z|x) is the posterior of its model, for any Pyro model and guide with a plate "data"."""

from pyro_vae.diagnosis.agreement import Agreement, agreement
from pyro_vae.diagnosis.calibration import Calibration, Coverage, calibrate
from pyro_vae.diagnosis.exact import ExactPosterior, exact_posterior

__all__ = [
    "Agreement",
    "Calibration",
    "Coverage",
    "ExactPosterior",
    "agreement",
    "calibrate",
    "exact_posterior",
]
