"""The ELBO and log p(x) by importance sampling, for any Pyro model and guide with latents of each datum.

All is computed on the pair of programs by trace and replay, so it needs nothing of this package's
components. Units are nats per datum.
"""

from pyro_vae.importance.bound import elbo, log_weights
from pyro_vae.importance.evidence import log_evidence
from pyro_vae.importance.results import BoundCurve, ELBOEstimate, LogEvidence

__all__ = ["BoundCurve", "ELBOEstimate", "LogEvidence", "elbo", "log_evidence", "log_weights"]
