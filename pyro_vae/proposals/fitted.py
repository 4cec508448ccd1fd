"""Data with the parameters of the proposals that were fitted to them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.proposals.family import Family
from pyro_vae.randomness import BlockSeeds
from pyro_vae.ranks import workers

#: The name of a parameter beside x; no argument of a program is called so.
_NAME = "_parameter {} of a local proposal"


def with_parameters(batch: Batch, tensors: list[Tensor]) -> Batch:
    """Data beside which the parameters (B, …) of their proposals lie, so that they are cut together."""
    return Batch(batch.x, {**batch.given, **{_NAME.format(n): each for n, each in enumerate(tensors)}})


def apart(batch: Batch) -> tuple[Batch, list[Tensor]]:
    """The way back from `with_parameters`."""
    names = {_NAME.format(number) for number in range(len(batch.given))} & batch.given.keys()
    given = {name: value for name, value in batch.given.items() if name not in names}
    return Batch(batch.x, given), [batch.given[name] for name in batch.given if name in names]


class Fitting:
    """Fits proposals to those data that need one, group by group; it can go on from any finished group.

    Ranks that share the work have a group each in turn.

    Args:
        family: What is fitted.
        data: N data.
        needed: Which of them, (N,); the others have the member that is nearest to the guide.
        draws: Of z for each datum in a step.
    """

    def __init__(self, family: Family, data: Batch, needed: Tensor, draws: int) -> None:
        self.family, self.data = family, data
        size = max(family.pair.rows // draws, 1)
        places = [each.nonzero()[:, 0] for each in (needed, ~needed)]
        if family.pair.whole:  # which takes these very data only
            everything = torch.arange(len(data), device=data.device)
            places = [everything, everything[:0]] if bool(needed.any()) else [everything[:0], everything]
            size = len(data)
        #: Places of data that are worked on together: of those that need a fit, and of the others.
        self.hard, self.easy = (list(where.split(size)) if len(where) else [] for where in places)
        #: The parameters of each finished group; none of one that is another rank's.
        self._done: list[list[Tensor]] = []
        self._seeds: BlockSeeds | None = None

    def run(self, keep: Callable[[], None], update: Callable[[int], object]) -> list[Tensor]:
        """The parameters of all data, (N, …) each.

        Args:
            keep: May keep the state at each step.
            update: Takes the number of data of each step.
        """
        self._seeds = self._seeds or BlockSeeds()
        found = workers().each(partial(self._own, self._seeds, keep, update))
        groups = [*self.hard, *self.easy]
        self._seeds.begin(len(groups))
        parts = [found[number % len(found)][number] for number in range(len(groups))]
        order = torch.cat(groups).argsort()
        device = self.data.device
        return [torch.cat(each).to(device)[order] for each in zip(*parts, strict=True)]

    def _own(
        self, seeds: BlockSeeds, keep: Callable[[], None], update: Callable[[int], object]
    ) -> list[list[Tensor]]:
        """The parameters of the groups of this rank, on the CPU; none of the others."""
        ranks = workers()
        for number, where in [*enumerate([*self.hard, *self.easy])][len(self._done) :]:

            def after(size: int = len(where)) -> None:
                update(size)
                keep()

            done: list[Tensor] = []
            if ranks.has(number):
                seeds.begin(number)
                group = self.data[where]
                done = self._fitted(group, after) if number < len(self.hard) else self.family.first(group)
            self._done.append([each.cpu() for each in done])
        return self._done

    def _fitted(self, group: Batch, after: Callable[[], object]) -> list[Tensor]:
        self.family.pair.check(group)
        return self.family.fit(group, after)

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint; a group at work begins anew, with the random numbers that it had."""
        return {"done": self._done, "seed": None if self._seeds is None else self._seeds.first}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._done = [[*group] for group in state["done"]]
        self._seeds = None if state["seed"] is None else BlockSeeds(state["seed"])
