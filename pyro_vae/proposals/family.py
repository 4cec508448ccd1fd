"""What a family of proposals can do."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.programs import Pair

#: The refusal where no latent has a distribution over numbers.
NOTHING = (
    "expected a guide with a continuous latent whose distribution can be fitted to each datum, got none: use "
    "proposal='guide' (--method importance)"
)


class Family(Protocol):
    """A family of proposals with parameters for each datum."""

    pair: Pair

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """The parameters of the best member for each datum, the axis of the data first: (B, …) each."""

    def first(self, batch: Batch) -> list[Tensor]:
        """Those of the member that is nearest to the guide, likewise; no random number is used up."""

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """Log weights of draws from these members, mixed with the guide: (K, B)."""
