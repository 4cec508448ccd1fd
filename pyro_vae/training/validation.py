"""The ELBO of the validation data, the same draws in every epoch."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.data import Split
from pyro_vae.errors import InputError
from pyro_vae.importance.bound import elbo_of
from pyro_vae.importance.results import ELBOEstimate
from pyro_vae.programs import Pair
from pyro_vae.randomness import own_randomness
from pyro_vae.training.trained import Trained

#: ELBO, reconstruction and KL.
Means = tuple[float, float, float]

_VALUES = 2**24  # read at once


class Validation:
    """Measures programs on validation data.

    Args:
        programs: In training.
        split: The data, on the device of the programs; there may be none.
        seed: Of the draws.
    """

    def __init__(self, programs: Trained, split: Split, seed: int) -> None:
        self.programs, self.split, self.seed = programs, split, seed
        #: The programs as they are measured, looked into at the first time.
        self.pair: Pair | None = None

    def measure(self) -> Means:
        """ELBO, reconstruction and KL, means in nats per datum; NaN where there are no data."""
        if not len(self.split):
            return math.nan, math.nan, math.nan
        self.programs.eval()
        with own_randomness(self.seed, self.programs.device):
            found = [(terms.elbo, terms.reconstruction, terms.kl) for terms in self._terms()]
        elbo, reconstruction, kl = (float(torch.cat(parts).mean()) for parts in zip(*found, strict=True))
        return elbo, reconstruction, kl

    def _terms(self) -> Iterator[ELBOEstimate]:
        """Of all data, a part at a time where they are in files."""
        size = self._read_at_once() if self.split.is_streamed else len(self.split)
        for start in range(0, len(self.split), size):
            data = self.batch(slice(start, start + size))
            yield elbo_of(self._pair(data), data)

    def _read_at_once(self) -> int:
        """As many data as are measured at once anyway, or some times that: the draws are those of all."""
        numbers = self.split.data_shape.numel()
        pair = self.pair or self._pair(self.batch(slice(0, max(1, _VALUES // numbers))))
        at_once = max(pair.rows, pair.whole, 1)
        return max(1, _VALUES // (numbers * at_once)) * at_once

    def _pair(self, data: Batch) -> Pair:
        if self.pair is None:
            self.pair = Pair(self.programs.model, self.programs.guide, data)
        return self.pair

    def batch(self, index: slice = slice(None)) -> Batch:
        """The data; the noise of their form is drawn."""
        return self.programs.place(self.split.take(index))

    def means(self, x: Tensor, **given: Any) -> tuple[Tensor, ...]:
        """The same numbers of these data as tensors, by programs that were measured before."""
        assert self.pair is not None
        terms = elbo_of(self.pair, Batch(x, given), validate=False)
        return terms.elbo.mean(), terms.reconstruction.mean(), terms.kl.mean()

    def check(self) -> None:
        """Refuse programs whose ELBO cannot be told, before a parameter is changed."""
        try:
            self.measure()
        except InputError as error:
            raise InputError(
                f"there is no validation ELBO of these programs: {error}; to train without it, give no valid "
                "split"
            ) from error
