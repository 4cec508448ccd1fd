"""Proposals for importance sampling that are fitted to each datum, and drawn from beside the guide."""

from pyro_vae.proposals.options import LocalProposal

__all__ = ["LocalProposal"]
