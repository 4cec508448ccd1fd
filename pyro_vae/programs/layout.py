"""Where K draws of B data lie in one run of a program."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError

#: The plate of particles around a program; a name that no user's plate has.
PARTICLES = "_particles of pyro_vae"


class Place(NamedTuple):
    """Where the data lie in a value of a latent site."""

    #: The axis of the data among the plates, from the right.
    axis: int
    #: Axes of one event, right of all plates.
    event_dim: int
    #: Axes of a value in a run without a plate of particles.
    ndim: int

    @property
    def data(self) -> int:
        """The axis of the data in a value, from the right."""
        return self.axis - self.event_dim


@dataclass(frozen=True)
class Layout:
    """K draws of B data in one run: beside each other in a plate of particles, or as K · B data.

    In a plate of particles, left of all others, every tensor gains an axis. A program that counts axes from
    the left, or that reshapes, means something else then; with the data repeated every site has the shape
    that it was written for. Particle k of datum b lies at k · B + b.

    Values pass from one to the other by the shape that they have in a plate of particles:
    (enumerated…, K, *left plates, B, *right plates, *event).
    """

    #: K.
    num: int
    #: B.
    size: int
    #: Plate axes of the programs.
    depth: int
    #: Whether the data are repeated.
    repeated: bool

    @property
    def axes(self) -> int:
        """Plate axes of a run."""
        return self.depth + (not self.repeated)

    def around(self) -> AbstractContextManager[Any]:
        """What a program runs in."""
        return nullcontext() if self.repeated else pyro.plate(PARTICLES, self.num, dim=-self.depth - 1)

    def data(self, batch: Batch) -> Batch:
        """What a program is called with."""
        return batch.repeat(self.num) if self.repeated else batch

    def unfold(self, value: Tensor, place: Place) -> Tensor:
        """A value of a run in the shape that it has in a plate of particles."""
        if not self.repeated:
            return value
        data = place.data
        missing = self.depth + place.event_dim - value.ndim
        value = value.reshape(*[1] * missing, *value.shape).unflatten(data, (self.num, self.size))
        return value.movedim(data - 1, self.particles(place))

    def fold(self, value: Tensor, place: Place) -> Tensor:
        """The way back from `unfold`."""
        if not self.repeated:
            return value
        data = place.data
        enumerated = value.ndim > self.depth + 1 + place.event_dim
        value = value.movedim(self.particles(place), data - 1).flatten(data - 1, data)
        return value if enumerated else value.reshape(value.shape[value.ndim - place.ndim :])

    def pick(self, value: Tensor, place: Place, k: int, where: slice) -> Tensor:
        """One draw of some data from a value that `unfold` gave."""
        start, stop, _ = where.indices(value.shape[place.data])
        return value.narrow(self.particles(place), k, 1).narrow(place.data, start, stop - start)

    def leading(self, value: Tensor, place: Place) -> Tensor:
        """A value of a run with draws and data as its first axes: (K, B, …)."""
        unfolded = self.unfold(value, place)
        axes = (unfolded.ndim + self.particles(place), unfolded.ndim + place.data)
        return unfolded.movedim(axes, (0, 1))

    def particles(self, place: Place) -> int:
        """The axis of the particles in a value that `unfold` gave, from the right."""
        return -self.depth - 1 - place.event_dim

    def per_datum(self, log_prob: Tensor, axis: int) -> Tensor:
        """A log density of a run, (…plates), summed over all other plates: (K, B)."""
        kept = {log_prob.ndim + axis}
        if not self.repeated:
            kept.add(log_prob.ndim - self.depth - 1)
        others = [number for number in range(log_prob.ndim) if number not in kept]
        total = log_prob.sum(others) if others else log_prob
        expected = (self.num * self.size,) if self.repeated else (self.num, self.size)
        if total.shape != expected:
            raise InputError(
                f"expected a log density for each of {self.num} draws of {self.size} data, got one of shape "
                f"{tuple(log_prob.shape)}"
            )
        return total.reshape(self.num, self.size)
