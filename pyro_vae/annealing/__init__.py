"""Log p(x) by annealing, for any Pyro model and guide with latents of each datum."""

from pyro_vae.annealing.bidirectional import BidirectionalGap, bidirectional_gap
from pyro_vae.annealing.evidence import AnnealedEvidence, annealed_log_evidence

__all__ = ["AnnealedEvidence", "BidirectionalGap", "annealed_log_evidence", "bidirectional_gap"]
