"""Data with the parameters of the proposals that were fitted to them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.proposals.family import Family
from pyro_vae.randomness import random_state, set_random_state

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
        self._done: list[list[Tensor]] = []
        self._random: list[Tensor] = random_state(data.device)

    def run(self, keep: Callable[[], None], update: Callable[[int], object]) -> list[Tensor]:
        """The parameters of all data, (N, …) each.

        Args:
            keep: May keep the state at each step.
            update: Takes the number of data of each step.
        """
        for where in self.hard[len(self._done) :]:

            def after(size: int = len(where)) -> None:
                update(size)
                keep()

            self._random = random_state(self.data.device)
            group = self.data[where]
            self.family.pair.check(group)
            self._done.append(self.family.fit(group, after))
        parts = [*self._done, *(self.family.first(self.data[where]) for where in self.easy)]
        order = torch.cat([*self.hard, *self.easy]).argsort()
        return [torch.cat(each)[order] for each in zip(*parts, strict=True)]

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint; a group at work begins anew, with the random numbers that it had."""
        return {"done": self._done, "random": self._random}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        device = self.data.device
        self._done = [[tensor.to(device) for tensor in group] for group in state["done"]]
        set_random_state(state["random"], device)
