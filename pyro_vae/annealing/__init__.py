"""Log p(x) by annealing, for any Pyro model and guide with latents of each datum."""

from pyro_vae.annealing.automatic import AutoEvidence, auto_log_evidence
from pyro_vae.annealing.bidirectional import BidirectionalGap, bidirectional_gap
from pyro_vae.annealing.evidence import AnnealedEvidence, annealed_log_evidence
from pyro_vae.annealing.rate_distortion import InformationBounds, RateDistortion

__all__ = [
    "AnnealedEvidence",
    "AutoEvidence",
    "BidirectionalGap",
    "InformationBounds",
    "RateDistortion",
    "annealed_log_evidence",
    "auto_log_evidence",
    "bidirectional_gap",
]
