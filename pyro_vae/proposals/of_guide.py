"""Proposals of the guide's own family, fitted to each datum."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.precision import wide
from pyro_vae.programs import Pair, say
from pyro_vae.proposals.family import NOTHING
from pyro_vae.proposals.fitting import search, start
from pyro_vae.proposals.mixture import Mixing, knows_densities
from pyro_vae.proposals.options import LocalProposal
from pyro_vae.randomness import own_draws

#: Draws by which it is judged whether a fit is better than its start.
JUDGED = 20


class OfGuide:
    """The guide's own distributions, with offsets on their parameters for each datum.

    Args:
        pair: Model and guide.
        batch: Data, of which a few are run.
        options: How to fit.
    """

    def __init__(self, pair: Pair, batch: Batch, options: LocalProposal) -> None:
        self.pair, self.options = pair, options
        ends = pair.ends(batch)
        self.template = start(pair, ends)
        if not self.template.offsets:
            raise InputError(NOTHING)
        local = pair.with_guide_in(self.template)
        with own_draws(batch.device), torch.no_grad():
            #: Whether the guide's density at draws from elsewhere is known.
            self.mixes = (pair.guide_is_held or bool(pair.whole)) and all(
                knows_densities(each, ends) for each in (pair, local)
            )
        if not self.mixes and options.defence:
            say(
                "the guide's density is known at its own draws only, so that the proposal fitted to each "
                "datum is not mixed with the guide: a region that only the guide visits may be missed"
            )

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """As `Family` says; a datum whose fit is no better keeps the guide's own parameters."""
        options, free = self.options, start(self.pair, batch)
        local = self.pair.with_guide_in(free)
        search(local, batch, free.offsets, options.steps, options.draws, options.learning_rate, after)
        with torch.no_grad():
            before, now = (_elbo(each, batch) for each in (self.pair, local))
            free.choose(now > before)
        return free.tensors()

    def first(self, batch: Batch) -> list[Tensor]:
        """As `Family` says."""
        return start(self.pair, batch).tensors()

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """As `Family` says."""
        local = self.pair.with_guide_in(self.template.at(tensors, self.options.widening))
        if self.mixes and self.options.defence:
            return Mixing(self.pair, local, self.options.defence).log_weights(batch, num, validate=validate)
        return local.log_weights(batch, num, validate=validate)


def _elbo(pair: Pair, batch: Batch) -> Tensor:
    """The ELBO of each datum by a few draws, (B,)."""
    log_px, log_pz, log_qz = pair.elbo_terms(batch, JUDGED, validate=False)
    return wide(log_px + log_pz - log_qz).mean(0)
