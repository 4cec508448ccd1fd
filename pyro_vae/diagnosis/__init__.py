"""Where the nats go, which part of the model to swap, and whether q(z|x) is the posterior of its model."""

from pyro_vae.diagnosis.agreement import Agreement, agreement
from pyro_vae.diagnosis.calibration import Calibration, Coverage, calibrate
from pyro_vae.diagnosis.coverage import RandomCoverage, calibrate_and_cover, tarp
from pyro_vae.diagnosis.diagnose import diagnose
from pyro_vae.diagnosis.exact import ExactPosterior, exact_posterior
from pyro_vae.diagnosis.local import LocalOptimum, optimise_locally
from pyro_vae.diagnosis.local_test import LocalTest, local_test
from pyro_vae.diagnosis.means import Mean
from pyro_vae.diagnosis.prior import PriorGap, prior_gap
from pyro_vae.diagnosis.rate import Information, mutual_information
from pyro_vae.diagnosis.results import Diagnosis, Evidence
from pyro_vae.diagnosis.units import Units, latent_units

__all__ = [
    "Agreement",
    "Calibration",
    "Coverage",
    "Diagnosis",
    "Evidence",
    "ExactPosterior",
    "Information",
    "LocalOptimum",
    "LocalTest",
    "Mean",
    "PriorGap",
    "RandomCoverage",
    "Units",
    "agreement",
    "calibrate",
    "calibrate_and_cover",
    "diagnose",
    "exact_posterior",
    "latent_units",
    "local_test",
    "mutual_information",
    "optimise_locally",
    "prior_gap",
    "tarp",
]
