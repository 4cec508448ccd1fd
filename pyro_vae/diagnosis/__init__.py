"""Where the nats go: every nat between ELBO and log p(x), and which part of the model to swap."""

from pyro_vae.diagnosis.diagnose import diagnose
from pyro_vae.diagnosis.estimates import Estimate
from pyro_vae.diagnosis.local import LocalOptimum, optimise_locally
from pyro_vae.diagnosis.prior import PriorGap, prior_gap
from pyro_vae.diagnosis.rate import Information, mutual_information
from pyro_vae.diagnosis.results import Diagnosis, Evidence
from pyro_vae.diagnosis.units import Units, latent_units

__all__ = [
    "Diagnosis",
    "Estimate",
    "Evidence",
    "Information",
    "LocalOptimum",
    "PriorGap",
    "Units",
    "diagnose",
    "latent_units",
    "mutual_information",
    "optimise_locally",
    "prior_gap",
]
