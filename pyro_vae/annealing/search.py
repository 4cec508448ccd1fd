"""Rounds of annealing until the gap that was asked for."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.planning import chains_barrier, next_round, temperatures_for
from pyro_vae.annealing.rounds import GapSearch, Round
from pyro_vae.annealing.runner import Runner, Weights, gradients, simulated
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.batch import Batch
from pyro_vae.errors import InputError, count
from pyro_vae.precision import moved
from pyro_vae.programs import Latents, say, simulate
from pyro_vae.randomness import own_draws
from pyro_vae.storage.resumable import Resumable

#: Temperatures of the first pilot.
FIRST = 16
#: Data of the pilots, and simulated data by default, at the most.
DATA = 100


class Wanted(NamedTuple):
    """What was asked for."""

    gap: float
    #: Temperatures at the most.
    most: int
    #: Data drawn from the model in each look at the gap; 0 for none.
    num_simulated: int

    @property
    def settings(self) -> dict[str, float]:
        """What a checkpoint must agree with, beside the options."""
        return {"until_gap": self.gap, "num_simulated": self.num_simulated}

    @classmethod
    def of(cls, gap: float, options: AnnealingOptions, num_simulated: int | None, num_data: int) -> "Wanted":
        """What these options ask for, refused where they mean nothing."""
        if isinstance(gap, bool) or not isinstance(gap, int | float) or not 0 < gap < math.inf:
            raise InputError(f"until_gap expects a positive number of nats, got {gap}: 0.05 is usual")
        if options.num_temperatures < 2 * FIRST:
            raise InputError(
                f"until_gap expects num_temperatures, the most, of {2 * FIRST} at least, got "
                f"{options.num_temperatures}"
            )
        if options.num_chains == 1:
            raise InputError("until_gap expects 2 chains at least, got 1: their spread says what is needed")
        if options.schedule == "linear":
            raise InputError("until_gap places the temperatures itself, got schedule 'linear': leave it out")
        if num_simulated is None:
            num_simulated = min(num_data, DATA)
        if num_simulated != 0:
            try:
                num_simulated = count("num_simulated", num_simulated)
            except InputError:
                raise InputError(
                    f"num_simulated expects a positive whole number, or 0 for none, got {num_simulated}"
                ) from None
        return cls(float(gap), options.num_temperatures, num_simulated)


def check_simulated(latents: Latents, like: Batch) -> None:
    """Refuse a model that no data can be drawn from."""
    try:
        with own_draws(like.device):
            simulate(latents, like, min(len(like), 2))
    except InputError as error:
        raise InputError(
            f"{error}; num_simulated=0 (--simulated 0) goes by the change on these data alone"
        ) from error


class _Part(NamedTuple):
    """What a run keeps, as a part of what the search keeps."""

    state: dict[str, Any] | None
    whole: Callable[[Callable[[], Mapping[str, Any]]], None]

    def keep(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """With all runs that are finished."""
        self.whole(state)


class _Seen(NamedTuple):
    """What a round saw of the data of the pilots."""

    num_temperatures: int
    #: log p̂(x), (M,).
    estimate: Tensor
    #: What stands for Λ², (M,).
    squared: Tensor


class Search:
    """Pilots, simulated data and chains that count, one after the other, each from where it was interrupted.

    Everything is decided before the chains that count are drawn, but whether these are the last ones.

    Args:
        latents: Of the model.
        data: N data.
        options: How to anneal, by the adaptive schedule.
        wanted: What was asked for.
        drawn: The latents of a model that can be drawn from, and data like those to draw.
        progress: Show progress bars.
        kept: Where the state is kept, entered.
    """

    def __init__(
        self,
        latents: Latents,
        data: Batch,
        options: AnnealingOptions,
        wanted: Wanted,
        *,
        drawn: tuple[Latents, Batch] | None,
        progress: bool | None,
        kept: Resumable,
    ) -> None:
        self.latents, self.data, self.options, self.wanted = latents, data, options, wanted
        self.drawn, self.progress, self.kept = drawn, progress, kept
        self.rounds: list[Round] = []
        #: Places of the data of the pilots, evenly spread.
        number = len(data) if latents.pair.whole else min(len(data), DATA)
        self.some = torch.linspace(0, len(data) - 1, number, device=data.device).round().long()
        state = kept.state or {"done": {}, "now": None}
        #: What each finished run gave, by its name.
        self._done: dict[str, list[tuple[Tensor, ...]]] = state["done"]
        self._now: dict[str, Any] | None = state["now"]

    def run(self) -> tuple[Weights, GapSearch]:
        """The weights that count, and how they were come to."""
        last = self._pilot(FIRST)
        while True:
            size, enough = next_round(last.num_temperatures, self._needed(last), self.wanted.most)
            if not enough:
                last = self._pilot(size, last)
                continue
            gap = self._gap(size)
            if gap.gap > self.wanted.gap and size < self.wanted.most:
                last = self._pilot(size, last, gap)
                continue
            weights, last = self._counted(size, last, gap)
            needed = self._needed(last)
            search = GapSearch(self.wanted.gap, tuple(self.rounds), gap.num_simulated, needed)
            # where all weights of a datum are 0 there is no change to go by
            if search.reached or size >= self.wanted.most or not math.isfinite(search.change):
                return weights, search

    def _pilot(self, size: int, last: _Seen | None = None, gap: "_Gap | None" = None) -> _Seen:
        """A round that does not count, on some of the data."""
        (weights,) = self._weights(f"pilot of {size} temperatures", size, self.data[self.some])
        seen = self._seen(weights, size)
        self._note(seen, weights, last, gap or _NO_GAP, counts=False)
        return seen

    def _counted(self, size: int, last: _Seen, gap: "_Gap") -> tuple[Weights, _Seen]:
        """Fresh chains over all data."""
        (weights,) = self._weights(f"{size} temperatures", size, self.data)
        parts = (each[..., self.some] for each in weights)
        seen = self._seen(Weights(*parts), size)
        self._note(seen, weights, last, gap, counts=True)
        return weights, seen

    def _seen(self, weights: Weights, size: int) -> _Seen:
        squared = chains_barrier(weights.log_weights, weights.barrier, size)
        return _Seen(size, estimate_of(weights.log_weights).estimate, squared)

    def _note(self, seen: _Seen, weights: Weights, last: _Seen | None, gap: "_Gap", *, counts: bool) -> None:
        mean = float(estimate_of(weights.log_weights).estimate.mean())
        change = math.nan if last is None else float((seen.estimate - last.estimate).mean())
        number = weights.log_weights.shape[1]
        cost = self.options.num_chains * number * self._gradients(seen.num_temperatures)
        self.rounds.append(
            Round(
                seen.num_temperatures, counts, mean, number, change, gap.gap, gap.error, cost + gap.gradients
            )
        )

    def _needed(self, seen: _Seen) -> int:
        return temperatures_for(
            self.wanted.gap,
            seen.squared,
            num_chains=self.options.num_chains,
            num_data=len(self.some),
            num_simulated=self.wanted.num_simulated,
        )

    def _gap(self, size: int) -> "_Gap":
        """The bounds on simulated data, and on as many again where it is not clear if they are near.

        That a second look is taken only at what seems too large makes the gap a little small on average.
        """
        if self.drawn is None:
            return _NO_GAP
        found = torch.zeros(0, dtype=torch.float64)
        number = self.wanted.num_simulated
        for look in ("simulated data", "more of them"):
            forward, reverse = self._weights(f"{look}, {size} temperatures", size, number)
            lower, upper = (estimate_of(w) for w in (forward.log_weights, -reverse.log_weights))
            found = torch.cat([found, (-upper.estimate - lower.estimate).cpu()])
            error = float(found.std() / math.sqrt(len(found))) if len(found) > 1 else math.nan
            gap = float(found.mean())
            if gap <= self.wanted.gap or not gap - error <= self.wanted.gap:
                break
        cost = self.options.num_chains * len(found) * self._gradients(size, ways=2)
        return _Gap(gap, error, len(found), cost)

    def _gradients(self, size: int, ways: int = 1) -> int:
        return gradients(size, self.options.leapfrog_steps, ways)

    def _options(self, size: int) -> AnnealingOptions:
        return self.options._replace(num_temperatures=size)

    def _weights(self, name: str, size: int, data: Batch | int) -> Iterator[Weights]:
        """Those of forward runs on data; or of both ways, on so many simulated data."""
        if name not in self._done:
            part, self._now = _Part(self._now, self._keep), None
            latents, ends = self.latents, None
            if isinstance(data, int):
                assert self.drawn is not None
                latents, like = self.drawn
                data, ends = simulated(latents, like, data, part)
            work = Runner(
                latents,
                self._options(size),
                data,
                ends,
                progress=self.progress,
                resumable=part,
                label=name,
            )
            self._done[name] = [tuple(each) for each in work.run()]
        device = self.data.device
        return (Weights(*[moved(each, device) for each in found]) for found in self._done[name])

    def _keep(self, state: Callable[[], Mapping[str, Any]]) -> None:
        self.kept.keep(lambda: {"done": self._done, "now": dict(state())})


class _Gap(NamedTuple):
    """The mean of upper less lower bound, in nats, on so many data, and what it took."""

    gap: float
    error: float
    num_simulated: int
    gradients: int


_NO_GAP = _Gap(math.nan, math.nan, 0, 0)


def warn_of_gap(search: GapSearch, options: AnnealingOptions) -> None:
    """Say in one line where the gap was not reached, what was, and what is left to do."""
    if search.reached:
        return
    size = search.rounds[-1].num_temperatures
    number = max(search.needed, 2 * size)
    more = number / size * search.gradients
    remedy = (
        f"by the spread of the chains it takes about {number} temperatures, and {more:.2g} gradients instead "
        f"of {search.gradients:.2g}: give num_temperatures={number} (--temperatures {number}), or more chains"
    )
    if search.gap > search.wanted and search.needed <= size:
        other = 'start="prior" (--start prior)' if options.start == "guide" else "more leapfrog_steps"
        remedy = (
            f"chains never came to parts of p(z|x), since by their spread {search.needed} temperatures are "
            f"enough: try {other}, or num_temperatures={number} for {more:.2g} gradients instead of "
            f"{search.gradients:.2g}"
        )
    say(
        f"until_gap={search.wanted:g} was not reached with {size} temperatures, the most: {search.found}; "
        f"{remedy}"
    )
