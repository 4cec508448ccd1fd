"""Log p(x) by annealing, for any Pyro model and guide with a plate "data" and continuous latents."""

from pyro_vae.annealing.bidirectional import BidirectionalGap, bidirectional_gap
from pyro_vae.annealing.evidence import AnnealedEvidence, annealed_log_evidence

__all__ = ["AnnealedEvidence", "BidirectionalGap", "annealed_log_evidence", "bidirectional_gap"]
