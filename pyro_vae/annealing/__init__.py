"""Log p(x) by annealing, for any Pyro model and guide with latents of each datum."""

from pyro_vae.annealing.automatic import AutoEvidence, auto_log_evidence
from pyro_vae.annealing.bidirectional import BidirectionalGap, bidirectional_gap
from pyro_vae.annealing.evidence import AnnealedEvidence, annealed_log_evidence
from pyro_vae.annealing.options import usual_temperatures
from pyro_vae.annealing.rate_distortion import InformationBounds, RateDistortion
from pyro_vae.annealing.rounds import GapSearch, Round

__all__ = [
    "AnnealedEvidence",
    "AutoEvidence",
    "BidirectionalGap",
    "GapSearch",
    "InformationBounds",
    "RateDistortion",
    "Round",
    "annealed_log_evidence",
    "auto_log_evidence",
    "bidirectional_gap",
    "usual_temperatures",
]
