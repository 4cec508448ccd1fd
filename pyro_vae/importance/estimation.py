"""An estimate of log p(x), from the fit of a proposal to the draws that count."""

import math
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.batch import Batch, Program
from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError
from pyro_vae.importance.pilot import FIRST, Pilot
from pyro_vae.importance.results import LogEvidence
from pyro_vae.importance.sampling import Sampling
from pyro_vae.importance.summary import log_evidence_of
from pyro_vae.importance.weights import Weights, of_family, of_guide
from pyro_vae.precision import moved
from pyro_vae.programs import Pair
from pyro_vae.proposals import LocalProposal
from pyro_vae.proposals.choosing import family_of
from pyro_vae.proposals.family import Family
from pyro_vae.proposals.fitted import Fitting, with_parameters
from pyro_vae.randomness import own_randomness
from pyro_vae.storage.hashing import fingerprint
from pyro_vae.storage.resumable import Resumable

#: What importance sampling draws from: the guide, or a proposal fitted to each datum.
Proposal = Literal["guide", "local"] | LocalProposal


def local_of(proposal: Proposal) -> LocalProposal | None:
    """How a proposal is fitted; None for the guide as it is."""
    if isinstance(proposal, LocalProposal):
        return proposal
    if proposal not in ("guide", "local"):
        raise InputError(f"proposal expects 'guide', 'local' or a LocalProposal, got {proposal!r}")
    return LocalProposal() if proposal == "local" else None


class Proposed(NamedTuple):
    """Model and guide, and what is drawn from."""

    pair: Pair
    weights: Weights
    local: LocalProposal | None = None
    family: Family | None = None

    @classmethod
    def of(
        cls,
        model: Program,
        guide: Program,
        data: Batch,
        local: LocalProposal | None,
        *,
        compile: Compile,
        data_plate: str | None,
    ) -> Self:
        """Both programs, looked into."""
        if local is None:
            pair = Pair(model, guide, data, density=True, data_plate=data_plate)
            return cls(pair, Weights(pair, of_guide(pair), compile))
        family = family_of(model, guide, data, local, compile=compile, data_plate=data_plate)
        return cls(family.pair, Weights(family.pair, of_family(family), compile), local, family)

    @property
    def name(self) -> str:
        """What is drawn from, in words."""
        return "guide" if self.family is None else "local proposal"


class Estimation:
    """The fit, a pilot and the draws that count, one after the other, each from where it was interrupted.

    What the fit and the pilot have found is frozen before the first draw that counts, so that the estimate of
    p(x) is unbiased.

    Args:
        proposed: What is drawn from.
        data: N data.
        most: Draws per datum; with `until` at the most.
        rows: Draws handled at once.
        until: Monte Carlo standard error that each datum should have, in nats.
    """

    def __init__(
        self, proposed: Proposed, data: Batch, most: int, *, rows: int, until: float | None = None
    ) -> None:
        if proposed.pair.whole and until is not None:
            raise InputError(
                "until_standard_error expects a guide that can be run on a part of the data, got one for "
                "these very data: leave it out"
            )
        self.proposed, self.data, self.most = proposed, data, most
        self.rows, self.until = rows, until
        #: What is finished, for a checkpoint.
        self.done: dict[str, Any] = {}

    def run(self, kept: Resumable, bar: "tqdm[Any]") -> LogEvidence:
        """All of it."""
        data = self.fitted(kept, bar)
        return self.drawn(data, self._numbers(data, kept, bar), kept, bar)

    def fitted(self, kept: Resumable, bar: "tqdm[Any]") -> Batch:
        """The data, with the parameters of their proposals beside them where these are fitted."""
        self.done = dict((kept.state or {}).get("done", {}))
        local, family = self.proposed.local, self.proposed.family
        if local is None or family is None:
            return self.data
        if "needed" not in self.done:
            self.done["needed"] = self._needed(local, kept, bar)
        if "fit" not in self.done:
            work = Fitting(family, self.data, self.done["needed"].to(self.data.device), local.draws)
            self._load(work, "fit", kept)
            bar.total = bar.n + local.steps * local.draws * sum(map(len, work.hard))
            keep = partial(self._keep, kept, "fit", work)
            self.done["fit"] = work.run(keep, lambda size: bar.update(size * local.draws))
        return with_parameters(self.data, [moved(each, self.data.device) for each in self.done["fit"]])

    def _needed(self, local: LocalProposal, kept: Resumable, bar: "tqdm[Any]") -> Tensor:
        """Whether the guide is no good proposal for a datum, (N,), by a pilot."""
        if local.above == -math.inf:
            return torch.ones(len(self.data), dtype=torch.bool, device=self.data.device)
        of_q = Weights(self.proposed.pair, of_guide(self.proposed.pair), self.proposed.weights.compile)
        work = Sampling(of_q, self.data, FIRST, rows=self.rows)
        self._load(work, "look", kept)
        found = work.run(partial(self._keep, kept, "look", work), bar)
        return ~(found["pareto_k"][0] <= local.above)  # not a number is not known to be good

    def _numbers(self, data: Batch, kept: Resumable, bar: "tqdm[Any]") -> int | Tensor:
        """How often each datum is drawn."""
        if self.until is None:
            return self.most
        if "numbers" not in self.done:
            work = Pilot(self.proposed.weights, data, self.until, self.most, rows=self.rows)
            self._load(work, "pilot", kept)
            self.done["numbers"] = work.run(partial(self._keep, kept, "pilot", work), bar)
        numbers: Tensor = self.done["numbers"].to(data.device)
        return numbers

    def drawn(
        self, data: Batch, numbers: int | Tensor, kept: Resumable, bar: "tqdm[Any]", stage: str = "draws"
    ) -> LogEvidence:
        """Fresh draws, of each datum so many."""
        work = Sampling(self.proposed.weights, data, numbers, rows=self.rows)
        if stage not in self.done:
            self._load(work, stage, kept)
            self.done[stage] = dict(work.run(partial(self._keep, kept, stage, work), bar))
        found = {name: moved(each, data.device) for name, each in self.done[stage].items()}
        return log_evidence_of(found, work.levels, self.proposed.name)

    def _load(self, work: "Fitting | Pilot | Sampling", stage: str, kept: Resumable) -> None:
        """Go on where the file was written in this stage."""
        state = kept.state or {}
        if state.get("stage") == stage:
            work.load(state["now"])

    def _keep(self, kept: Resumable, stage: str, work: "Fitting | Pilot | Sampling") -> None:
        kept.keep(lambda: {"done": self.done, "stage": stage, "now": work.state()})


def identity_of(pair: Pair, data: Batch) -> dict[str, Any]:
    """What tells one pair of programs and its data from another."""
    with own_randomness(0, data.device):
        probe = pair.log_weights(pair.ends(data), 4, validate=False)
    where = {"device": data.device.type, "seeds": "of batches"}  # so that another version's file is refused
    return {"data": fingerprint(data), **where, "programs": probe.cpu()}
