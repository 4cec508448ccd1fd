"""A pilot that chooses how often each datum is drawn; its own draws do not count."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.batch import Batch
from pyro_vae.importance.sampling import Sampling
from pyro_vae.importance.summary import standard_error
from pyro_vae.importance.weights import Weights

#: Draws per datum of the first round; by which factor those of a round grow, and are exceeded in the end.
FIRST, FACTOR = 250, 4
#: Draws that count, at the least: as many as a k̂ needs to say something.
LEAST = 1000
#: By how much the variance may be larger than it was in the pilot.
_SAFETY = 1.3


class Pilot:
    """The numbers of draws after which each datum should have a Monte Carlo error of `until`, at most.

    K draws with an error of s tell that K · (s/until)² are needed. A datum that needs more than four times
    the draws that it had in a round comes into the next one, of four times as many.

    Args:
        weights: How they are computed.
        data: B data.
        until: The error, in nats.
        most: Draws per datum at the most.
        rows: Draws handled at once.
    """

    def __init__(self, weights: Weights, data: Batch, until: float, most: int, *, rows: int) -> None:
        self.weights, self.data, self.until, self.most, self.rows = weights, data, until, most, rows
        #: K of each datum, (B,); the most where a round has not told it yet.
        self.draws = torch.full((len(data),), most, device=data.device)
        self.active = torch.arange(len(data), device=data.device)
        self.size = FIRST
        self.sampling = self._sampling()

    def _sampling(self) -> Sampling:
        return Sampling(self.weights, self.data[self.active], self.size, rows=self.rows)

    def run(self, keep: Callable[[], None], bar: "tqdm[Any]") -> Tensor:
        """K of each datum, (B,)."""
        while len(self.active) and FACTOR * self.size <= self.most:
            found = self.sampling.run(keep, bar)
            names = ("log_sum", "log_sum_squares", "drawn")
            error = standard_error(*(found[name][0] for name in names))
            needed = _SAFETY * self.size * (error / self.until).square()
            known = (needed <= FACTOR * self.size).to(self.active.device)  # not a number is not known
            self.draws[self.active[known]] = _rounded(needed, self.most).to(self.draws.device)[known]
            self.active, self.size = self.active[~known], FACTOR * self.size
            if len(self.active):
                self.sampling = self._sampling()
        return self.draws

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        now = {"draws": self.draws, "active": self.active, "size": self.size}
        return {**now, "sampling": self.sampling.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.draws, self.active = (state[name].to(self.data.device) for name in ("draws", "active"))
        self.size = state["size"]
        self.sampling = self._sampling()
        self.sampling.load(state["sampling"])


def _rounded(needed: Tensor, most: int) -> Tensor:
    """The next of 1000, 2000, 4000, … draws, so that there are few different numbers."""
    doublings = (needed / LEAST).log2().ceil().clamp(min=0)
    return (LEAST * 2**doublings).clamp(max=most).long()
