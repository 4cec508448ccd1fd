"""Where the numbers of each latent site lie in a vector of unconstrained ones."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.programs.layout import Layout, Place
from pyro_vae.programs.pair import Spread


class SiteNumbers(NamedTuple):
    """Where a site's numbers lie in u, and its shape: (C, *left plates, B, *right plates, *event)."""

    start: int
    stop: int
    #: Sizes of all axes but those of C and B.
    rest: tuple[int, ...]
    #: Where the data lie in an unconstrained value, and its axis from the left.
    place: Place
    axis: int
    #: The site's own, since u has the widest of all sites.
    dtype: torch.dtype

    def unpack(self, u: Tensor) -> Tensor:
        """The unconstrained value in u (C, B, n)."""
        own = u[..., self.start : self.stop].to(self.dtype)
        return own.reshape(*u.shape[:2], *self.rest).movedim(1, self.axis)

    def pack(self, raw: Tensor) -> Tensor:
        """The way back from `unpack`: (C, B, stop − start)."""
        raw = raw.movedim(self.axis, 1)
        return raw.reshape(*raw.shape[:2], -1)


def unspread(value: Tensor, place: Place, layout: Layout) -> Tensor:
    """A value that was spread over enumerated axes, where all are equal, without these."""
    spread = value.ndim - (layout.axes + place.event_dim)
    return value[(0,) * spread] if spread > 0 else value


class UnconstrainedLatents(Messenger):
    """Puts the values T(u) at the latent sites."""

    def __init__(
        self, numbers: Mapping[str, SiteNumbers], u: Tensor, layout: Layout, summed: Collection[str]
    ) -> None:
        super().__init__()
        self.numbers, self.u, self.layout = numbers, u, layout
        self.spread = Spread(layout, summed)
        self.log_dets: dict[str, Tensor] = {}

    def _pyro_sample(self, message: Any) -> None:
        self.spread.note(message)
        numbers = self.numbers.get(message["name"])
        if numbers is None or message["is_observed"]:
            return
        transform = biject_to(message["fn"].support)
        raw = self.layout.fold(numbers.unpack(self.u), numbers.place)
        value = transform(raw)
        place = Place(numbers.place.axis, message["fn"].event_dim, value.ndim)
        message["value"] = self.spread(value, place)
        message["done"] = True
        self.log_dets[message["name"]] = transform.log_abs_det_jacobian(raw, value)
