"""The distributions of a guide, with free offsets for each datum."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import AffineTransform, biject_to, constraints

from pyro_vae.programs.data_plate import DataPlate
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.sites import core
from pyro_vae.proposals.moving import Unusable, moved, widened


class FreeGuide(Messenger):
    """Puts each latent site of a guide at its own distribution, moved by offsets that each datum has.

    A site's parameters η_b, unconstrained, become η_b + s δ_b, with δ_b shared by all particles and s the
    distribution's own unit (a location moves in its standard deviations), so that the search does not
    depend on the units of z. Where a distribution cannot be made anew of its parameters (a flow, a mixture),
    its draw u, unconstrained, becomes c_b + s_b δ_b + exp(ε_b)(u − c_b), c_b and s_b being the mean and the
    spread of the guide's draws. A `Delta` stays as it is. With all offsets zero, the guide is as it was.

    Args:
        layout: Of a run of the guide; others may have another number of draws.
        plate: Of the data.
    """

    def __init__(self, layout: Layout, plate: DataPlate) -> None:
        super().__init__()
        self.layout, self.plate = layout, plate
        self.sites: dict[str, _Freed] = {}
        #: Sites that stay as they are: discrete ones, angles, and those with nothing to move.
        self.fixed: set[str] = set()

    @property
    def offsets(self) -> list[Tensor]:
        """All offsets; each has an axis for the data, and none for the particles."""
        return [offset for site in self.sites.values() for offset in site.offsets]

    def tensors(self) -> list[Tensor]:
        """All that tells the data from each other, the axis of the data first: (B, …) each."""
        return [
            tensor.detach().movedim(site.place.axis, 0)
            for site in self.sites.values()
            for tensor in site.tensors
        ]

    def at(self, tensors: Sequence[Tensor], widening: float = 1.0) -> Self:
        """The same for data with these `tensors`, each distribution wider by a factor."""
        other, rest = copy.copy(self), iter(tensors)
        other.sites = {
            name: site.at_data([next(rest).movedim(0, site.place.axis) for _ in site.tensors], widening)
            for name, site in self.sites.items()
        }
        return other

    @property
    def whole(self) -> bool:
        """Whether the offsets reach every member of the family that the guide's distributions span."""
        sites = self.sites.values()
        return not self.fixed and all(
            isinstance(site, _Parameters) and not site.place.conditional for site in sites
        )

    def choose(self, better: Tensor) -> None:
        """Put zero for the data (B,) that are not marked."""
        for site in self.sites.values():
            for offset in site.offsets:
                kept = better.to(offset.device).reshape([-1, *[1] * (offset.ndim - 1 - site.place.axis)])
                offset.data.copy_(torch.where(kept, offset, 0.0))

    def _pyro_sample(self, message: Any) -> None:
        if (
            message["is_observed"]
            or site_is_subsample(message)
            or isinstance(core(message["fn"]), dist.Delta)
        ):
            return
        name, fn = message["name"], message["fn"]
        if _stays(fn):
            self.fixed.add(name)
        if name in self.fixed:
            return
        if name not in self.sites:
            frames = {frame.name: frame.dim for frame in message["cond_indep_stack"] if frame.vectorized}
            axis = next((dim for plate, dim in frames.items() if plate in self.plate.names), -1)
            try:
                freed = _freed(fn, _Place.of(fn, self.layout, axis, first=not self.sites))
            except NotImplementedError:  # of a distribution that has no inverse, or of its support
                self.fixed.add(name)
                return
            self.sites[name] = freed
        message["fn"] = self.sites[name].at(fn)


class _Place(NamedTuple):
    """Where a site lies in the plates."""

    #: Its batch shape, before it is spread over the particles.
    batch: torch.Size
    #: Leading axes of it that are no plates of the guide: of the particles, where the site depends on other
    #: latents and the particles have an axis, and of enumerated sites.
    particles: int
    #: The data's axis in an offset.
    axis: int
    #: B, where the data are repeated, else 0.
    size: int
    #: Whether the site may depend on other latents.
    conditional: bool
    #: The data's axis among the plates, from the right.
    dim: int

    @classmethod
    def of(cls, fn: Any, layout: Layout, dim: int, first: bool) -> "_Place":
        batch = fn.batch_shape
        particles = max(len(batch) - layout.depth, 0)
        conditional = particles > 0 or (layout.repeated and not first)
        size = layout.size if layout.repeated else 0
        return cls(batch, particles, len(batch) - particles + dim, size, conditional, dim)

    def of_size(self, size: int) -> "_Place":
        """The same for another number of data."""
        return self._replace(size=size if self.size else 0)

    def one_particle(self, value: Tensor) -> Tensor:
        """A parameter of the site without the axis of particles."""
        one = value[(0,) * self.particles]
        return one.narrow(self.axis, 0, self.size) if self.size else one

    def over_particles(self, value: Tensor) -> Tensor:
        """Draws (num, *batch, …) with those of all particles along the first axis."""
        value = value.flatten(0, self.particles)
        if not self.size:
            return value
        return value.unflatten(self.axis + 1, (-1, self.size)).movedim(self.axis + 1, 1).flatten(0, 1)

    def spread(self, offset: Tensor, fn: Any) -> Tensor:
        """An offset for each row of a run."""
        if not self.size:
            return offset
        rows = fn.batch_shape[self.dim]
        return offset.repeat(*(rows // self.size if axis == self.axis else 1 for axis in range(offset.ndim)))


class _Freed(Protocol):
    """A site with offsets."""

    offsets: list[Tensor]
    place: _Place

    @property
    def tensors(self) -> list[Tensor]:
        """All that tells the data from each other."""

    def at(self, fn: Any) -> Any:
        """The distribution `fn` of the site, moved."""

    def at_data(self, tensors: list[Tensor], widening: float) -> "_Freed":
        """The same site for data with these `tensors`, wider by a factor."""


class _Parameters:
    """Offsets on the parameters of a site's distribution."""

    def __init__(self, fn: Any, place: _Place) -> None:
        self.offsets: list[Tensor] = []
        self.place, self.widening = place, 1.0
        lead = len(place.batch)

        def start(value: Tensor, unit: Tensor) -> Tensor:
            if value.shape[:lead] != place.batch:
                raise Unusable("a parameter lacks the axes of the plates")
            self.offsets.append(torch.zeros_like(place.one_particle(value)).requires_grad_())
            return value

        made = moved(fn, start)
        value = fn.sample()
        if not torch.allclose(made.log_prob(value), fn.log_prob(value), rtol=1e-3, atol=1e-3):
            raise Unusable("made anew of its parameters, it has another density")

    @property
    def tensors(self) -> list[Tensor]:
        return self.offsets

    def at(self, fn: Any) -> Any:
        offsets = iter(self.offsets)
        made = moved(fn, lambda value, unit: value + unit * self.place.spread(next(offsets), fn))
        return made if self.widening == 1 else widened(made, self.widening)

    def at_data(self, tensors: list[Tensor], widening: float) -> "_Parameters":
        other = copy.copy(self)
        other.offsets, other.widening = tensors, widening
        other.place = self.place.of_size(tensors[0].shape[self.place.axis])
        return other


class _Draws:
    """An affine map of the draws of a site's distribution, in the unconstrained space of its support."""

    def __init__(self, fn: Any, place: _Place) -> None:
        self.place = place
        # over the draws, and the particles
        raw = place.over_particles(biject_to(_support(fn)).inv(fn.sample((100,))))
        self.centre, self.unit = raw.mean(0), raw.std(0)
        self.offsets = [torch.zeros_like(self.centre).requires_grad_() for _ in range(2)]

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.offsets, self.centre, self.unit]

    def at_data(self, tensors: list[Tensor], widening: float) -> "_Draws":
        other, (shift, log_scale, other.centre, other.unit) = copy.copy(self), tensors
        other.offsets = [shift, log_scale + math.log(widening)]
        other.place = self.place.of_size(shift.shape[self.place.axis])
        return other

    def at(self, fn: Any) -> Any:
        if isinstance(fn, dist.MaskedDistribution):
            return self.at(fn.base_dist).mask(fn._mask)
        shift, log_scale, centre, unit = (
            self.place.spread(each, fn) for each in (*self.offsets, self.centre, self.unit)
        )
        scale = log_scale.exp()
        loc = centre + unit * shift - scale * centre
        support = _support(fn)
        to_support = biject_to(support)
        # the caches take a draw back to the very tensor whose density a flow remembers
        move = AffineTransform(loc, scale, event_dim=to_support.domain.event_dim, cache_size=1)
        real = isinstance(_inner(support), type(constraints.real))
        through = [move] if real else [to_support.with_cache().inv, move, to_support.with_cache()]
        return _MovedDraws(fn, through)


class _MovedDraws(dist.TransformedDistribution):
    """Draws of any distribution, moved by a map whose own parameters they have a gradient in."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, reparameterised as far as the distribution is, and always in the parameters of the map."""
        value = self.base_dist(torch.Size(sample_shape))
        for transform in self.transforms:
            value = transform(value)
        return value


def _freed(fn: Any, place: _Place) -> _Freed:
    """The offsets of a site whose distribution is `fn`."""
    with torch.no_grad():
        if fn.has_rsample:
            try:
                return _Parameters(fn, place)
            except Unusable:
                pass
        draws = _Draws(fn, place)
        made = draws.at(fn)
        made.log_prob(made())
        return draws


def _stays(fn: Any) -> bool:
    """Whether there is nothing to move: a discrete site, an angle, or one of a support that is not known."""
    if isinstance(core(fn), torch.distributions.VonMises):
        return True  # an angle is one of all that are a whole turn apart, which a shift does not know
    try:
        return bool(_support(fn).is_discrete)
    except NotImplementedError:
        return True


def _support(fn: Any) -> Any:
    """The support, of a mixture that of its components."""
    mixture = isinstance(fn, torch.distributions.MixtureSameFamily)
    return _support(fn.component_distribution) if mixture else fn.support


def _inner(support: Any) -> Any:
    """What is inside an independent constraint."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support
