"""The ELBO of the validation data, the same draws in every epoch."""

import math
from typing import Any

from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.data import Split
from pyro_vae.errors import InputError
from pyro_vae.importance.bound import elbo_of
from pyro_vae.programs import Pair
from pyro_vae.randomness import own_randomness
from pyro_vae.training.trained import Trained

#: ELBO, reconstruction and KL.
Means = tuple[float, float, float]


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
            data = self.batch()
            if self.pair is None:
                self.pair = Pair(self.programs.model, self.programs.guide, data)
            terms = elbo_of(self.pair, data)
        return float(terms.elbo.mean()), float(terms.reconstruction.mean()), float(terms.kl.mean())

    def batch(self) -> Batch:
        """The data; the noise of their form is drawn."""
        return self.programs.place(self.split.take())

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
