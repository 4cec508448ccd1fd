"""Log densities of many draws at once, held against those of each draw of each datum alone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.programs.enumeration import Summation
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.sites import elements, sites

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Pair

#: Steps of rounding by which two ways to one log density may differ, relative to the sum of its parts.
_STEPS = 100
#: A relative change of latents and data, in steps of rounding, that stands for all rounding before a density.
_NUDGE = 4


class Densities(NamedTuple):
    """Log densities of one part of a run, (K, B), and what their rounding is relative to."""

    log_prob: Tensor
    #: Sum of the absolute values of what `log_prob` is the sum of, (K, B).
    size: Tensor
    #: That it was computed in.
    dtype: torch.dtype

    def at(self, k: int, b: int) -> "Densities":
        """Those of one draw of one datum, (1, 1)."""
        return self._replace(log_prob=self.log_prob[k, b].view(1, 1), size=self.size[k, b].view(1, 1))

    def row(self, k: int) -> "Densities":
        """Those of one draw of all data, (1, B)."""
        return self._replace(log_prob=self.log_prob[k : k + 1], size=self.size[k : k + 1])


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
        return {
            name: Densities(part.double(), part.double().abs(), part.dtype) for name, part in found.items()
        }
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
    return Densities(log_prob.double(), torch.maximum(size.double(), log_prob.double().abs()), log_prob.dtype)


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


def first_difference(
    pair: "Pair",
    batch: Batch,
    values: Mapping[str, Tensor],
    together: Mapping[str, Densities],
    picks: list[tuple[int, int]],
) -> Difference | None:
    """The first part that has another log density where a draw of a datum is run alone.

    Args:
        pair: The programs.
        batch: Data.
        values: Of all latent sites, for draws of these data.
        together: The parts at these values.
        picks: Which draw of which datum is run alone.
    """
    layout = Layout(1, 1, pair.depth, repeated=True)
    for k, b in picks:
        own = {name: layout.pick(value, pair.places[name], k, b) for name, value in values.items()}
        one = batch[b : b + 1]
        alone = _alone(pair, one, own)
        for name, found in together.items():
            new = found.at(k, b)
            if name not in alone:  # a site of longer sequences, which must then be masked
                alone[name] = Densities(torch.zeros(1, 1), torch.zeros(1, 1), found.dtype)
            if not (close(alone[name], new) or close(alone[name], new, _noise(pair, one, own, alone, name))):
                return Difference(name, float(alone[name].log_prob), float(new.log_prob))
    return None


def _alone(pair: "Pair", one: Batch, values: Mapping[str, Tensor]) -> dict[str, Densities]:
    """The parts of one draw of one datum; as one of two equal data where a program refuses one."""
    try:
        return _at(pair, one, values)
    except InputError as error:
        twins = {
            name: value.repeat_interleave(2, value.ndim + pair.places[name].data)
            for name, value in values.items()
        }
        try:
            found = _at(pair, one.repeat(2), twins)
        except InputError:
            raise InputError(f"expected programs that can be run on one datum alone, but {error}") from error
        return {name: each.at(0, 0) for name, each in found.items()}


def _at(pair: "Pair", batch: Batch, values: Mapping[str, Tensor]) -> dict[str, Densities]:
    """The parts of one draw of each datum."""
    layout = Layout(1, len(batch), pair.depth, repeated=True)
    guide = pair.run_guide(batch, layout, values) if pair.guide_is_held else None
    at = values if guide is None or not pair.summed else guide
    return parts_of(pair, guide, pair.run_model(batch, layout, at), layout, layout)


def close(one: Densities, other: Densities, noise: float = 0.0) -> bool:
    """Whether two log densities are equal up to the rounding of their type, and to `noise`."""
    steps = min(_STEPS * torch.finfo(one.dtype).eps, 0.02)
    tolerance = steps * (1 + torch.maximum(one.size, other.size)) + noise
    equal = one.log_prob == other.log_prob
    both_nan = one.log_prob.isnan() & other.log_prob.isnan()
    return bool((equal | both_nan | ((one.log_prob - other.log_prob).abs() <= tolerance)).all())


def _noise(
    pair: "Pair", one: Batch, values: Mapping[str, Tensor], alone: Mapping[str, Densities], name: str
) -> float:
    """How far the rounding of data and latents can move a log density that is sensitive to them."""

    def nudged(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor * (1 + _NUDGE * torch.finfo(alone[name].dtype).eps)

    batch = one.with_tensors([nudged(tensor) for tensor in one.tensors])
    try:
        if not close(alone[name], _alone(pair, one, values)[name]):
            return 0.0  # it changes from run to run
        moved = _alone(pair, batch, {site: nudged(value) for site, value in values.items()})[name]
    except InputError:
        return 0.0
    change = float((moved.log_prob - alone[name].log_prob).abs().max())
    return _STEPS * change if change == change else 0.0
