"""Log densities of many draws at once, held against those of each draw of each datum alone."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.precision import wide
from pyro_vae.programs.enumeration import Summation
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.sites import elements, sites

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Pair

#: Steps of rounding by which two ways to one log density may differ, relative to the sum of its parts.
_STEPS = 32
#: A relative change of latents and data, in steps of rounding, that stands for all rounding before a density.
_NUDGE = 4
#: Times what that moves a density by which two ways to it may differ.
_NOISE = 16


class Densities(NamedTuple):
    """Log densities of one part of a run, (K, B), and what their rounding is relative to."""

    log_prob: Tensor
    #: Sum of the absolute values of what `log_prob` is the sum of, (K, B).
    size: Tensor
    #: That it was computed in.
    dtype: torch.dtype

    def at(self, k: int, where: slice = slice(None)) -> "Densities":
        """Those of one draw of some data, (1, ·)."""
        log_prob, size = (part[k : k + 1, where] for part in (self.log_prob, self.size))
        return self._replace(log_prob=log_prob, size=size)


def parts_of(
    pair: "Pair",
    guide: Trace | None,
    model: Trace | None,
    guide_layout: Layout,
    model_layout: Layout,
    *,
    detailed: bool = True,
) -> dict[str, Densities]:
    """The parts of a run that must be what they are alone: its sites, or what is left after sums.

    With `detailed` they say what their rounding is relative to, which costs as much as the densities.
    """
    if pair.summed:
        found = _sums(Summation(guide, model, model_layout, pair.plate))
        return {name: Densities(wide(part), wide(part).abs(), part.dtype) for name, part in found.items()}
    both = (("guide", guide, guide_layout), ("model", model, model_layout))
    return {
        f"the site {name!r} of the {what}": _densities(pair, trace, layout, name, detailed)
        for what, trace, layout in both
        if trace is not None
        for name in sites(trace)
    }


def _densities(pair: "Pair", trace: Trace, layout: Layout, name: str, detailed: bool) -> Densities:
    """The log density of a site, and the sum of the sizes of its parts where it is a sum of many."""
    site, axis = trace.nodes[name], pair.plate.axis(trace, name)
    log_prob = pair.total(trace, layout, [name])
    parts = elements(site) if detailed else None
    size = log_prob.abs() if parts is None else layout.per_datum(parts, axis)
    return Densities(wide(log_prob), torch.maximum(wide(size), wide(log_prob).abs()), log_prob.dtype)


def _sums(summation: Summation) -> dict[str, Tensor]:
    """What is left of programs after sums; of the model alone where there is no guide."""
    if summation.guide is None:
        return {"the joint density": summation.log_joint(), "the prior": summation.log_prior()}
    terms = summation.elbo_terms()._asdict()
    return {"the weight": summation.log_weight(), **{f"the {name}": part for name, part in terms.items()}}


class Difference(NamedTuple):
    """A log density alone and beside others."""

    part: str
    alone: float
    together: float


#: Which draw of which data is run by itself.
Pick = tuple[int, slice]


def first_difference(
    pair: "Pair",
    batch: Batch,
    values: Mapping[str, Tensor],
    together: Mapping[str, Densities],
    picks: Iterable[Pick],
) -> Difference | None:
    """The first part that has another log density where one draw of some of the data is run by itself.

    A site that one of the two runs has not, as of sequences longer than others, must have no density there.

    Args:
        pair: The programs.
        batch: Data.
        values: Of all latent sites, for draws of these data.
        together: The parts at these values.
        picks: What is run by itself.
    """
    layout = Layout(1, len(batch), pair.depth, repeated=True)
    for k, where in picks:
        own = {name: layout.pick(value, pair.places[name], k, where) for name, value in values.items()}
        some = batch[where]
        alone = _alone(pair, some, own)
        for name in dict.fromkeys([*together, *alone]):
            one = alone.get(name) or _nothing(len(some), together[name])
            new = together[name].at(k, where) if name in together else _nothing(len(some), one)
            if not (close(one, new) or close(one, new, noise(partial(_alone, pair), some, own, one, name))):
                worst = int((one.log_prob - new.log_prob).abs().nan_to_num(torch.inf).argmax())
                return Difference(name, float(one.log_prob[0, worst]), float(new.log_prob[0, worst]))
    return None


def _nothing(size: int, like: Densities) -> Densities:
    zero = torch.zeros(1, size, dtype=torch.float64, device=like.log_prob.device)
    return Densities(zero, zero, like.dtype)


def _alone(pair: "Pair", some: Batch, values: Mapping[str, Tensor]) -> dict[str, Densities]:
    """The parts of one draw of some data; a datum that a program refuses alone comes twice."""
    try:
        return _at(pair, some, values)
    except InputError as error:
        twins = {name: value.repeat_interleave(2, pair.places[name].data) for name, value in values.items()}
        try:
            found = _at(pair, some.repeat(2), twins) if len(some) == 1 else {}
        except InputError:
            found = {}
        if not found:
            raise InputError(f"expected programs that can be run on one datum alone, but {error}") from error
        return {name: each.at(0, slice(0, 1)) for name, each in found.items()}


def _at(pair: "Pair", batch: Batch, values: Mapping[str, Tensor]) -> dict[str, Densities]:
    """The parts of one draw of each datum."""
    layout = Layout(1, len(batch), pair.depth, repeated=True)
    guide = pair.run_guide(batch, layout, values) if pair.guide_is_held else None
    at = values if guide is None or not pair.summed else guide
    return parts_of(pair, guide, pair.run_model(batch, layout, at), layout, layout)


def close(one: Densities, other: Densities, noise: float = 0.0) -> bool:
    """Whether two log densities are equal up to the rounding of their type, and to `noise`."""
    steps = min(_STEPS * torch.finfo(one.dtype).eps, 0.02)
    size = torch.maximum(one.size, other.size)
    size = torch.where(size.isfinite(), size, torch.maximum(one.log_prob.abs(), other.log_prob.abs()))
    same = (one.log_prob == other.log_prob) | (one.log_prob.isnan() & other.log_prob.isnan())
    finite = one.log_prob.isfinite() & other.log_prob.isfinite()
    near = (one.log_prob - other.log_prob).abs() <= steps * (1 + size) + noise
    return bool((same | (finite & near)).all())


def noise(
    run: Callable[[Batch, Mapping[str, Tensor]], Mapping[str, Densities]],
    batch: Batch,
    values: Mapping[str, Tensor],
    old: Densities,
    name: str,
) -> float:
    """How far the rounding of data and latents can move a log density that is sensitive to them.

    Args:
        run: Gives the parts of a run.
        batch: Its data.
        values: Its latents.
        old: What it has given for the part.
        name: Of the part.
    """

    def nudged(tensor: Tensor) -> Tensor:
        return tensor * (1 + _NUDGE * torch.finfo(old.dtype).eps) if tensor.is_floating_point() else tensor

    try:
        again = run(batch, values).get(name)
        moved = run(
            batch.with_tensors([nudged(tensor) for tensor in batch.tensors]),
            {site: nudged(value) for site, value in values.items()},
        ).get(name)
    except InputError:
        return 0.0
    if again is None or moved is None or not close(old, again):
        return 0.0  # it changes from run to run
    change = float((moved.log_prob - old.log_prob).abs().max())
    return _NOISE * change if math.isfinite(change) else 0.0
