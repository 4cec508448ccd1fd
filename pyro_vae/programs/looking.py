"""A first look at a pair of programs: one run of guide and model in which every site has its own shape."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.poutine import Trace
from pyro.util import check_site_shape
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import Densities, close, parts_of
from pyro_vae.programs.data_plate import USUAL, DataPlate, undeclared
from pyro_vae.programs.enumeration import is_sequential, marked
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.running import refusals
from pyro_vae.programs.sites import (
    check_delta,
    check_density,
    check_density_axes,
    check_latents,
    check_observed,
    check_precision,
    check_subsampling,
    plates,
    sites,
)

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Pair


class Look(NamedTuple):
    """A run that is held against others."""

    #: Data, and draws of each.
    few: Batch
    num: int
    #: Of all latent sites.
    values: dict[str, Tensor]
    #: The parts of a run at these values, where every site has the shape that it was written for.
    parts: dict[str, Densities]
    model: Trace


def look(pair: "Pair", few: Batch, num: int, density: bool, data_plate: str | None) -> Look:
    """Guide and model on repeated data, where every site has the shape that it was written for."""
    layout = Layout(num, len(few), 0, repeated=True)
    guide, model = _draw(pair, few, layout)
    _check_programs(guide, model, density)
    guide, model = _plated(pair, few, num, guide, model, data_plate)
    pair.depth = _depth(guide, model)
    layout = Layout(num, len(few), pair.depth, repeated=True)
    guide, model = _summed(pair, few, layout, guide, model)
    _check_shapes(pair, layout, guide, model)
    values = values_of(pair, guide, model, layout, layout)
    return Look(few, num, values, parts_of(pair, guide, model, layout, layout), model)


def _check_programs(guide: Trace, model: Trace, density: bool) -> None:
    """Refuse programs that do not fit each other, or have no density."""
    for trace in (guide, model):
        check_subsampling(trace)
    if density:
        check_density(model)
    check_observed(model, guide)
    check_latents(model, guide, marked(guide, model))
    if density:
        check_delta(model, guide)


def _depth(guide: Trace, model: Trace) -> int:
    """Plate axes of the programs."""
    axes = (plates(trace, name).values() for trace in (guide, model) for name in sites(trace))
    return max((-axis for each in axes for axis in each), default=0)


def _summed(pair: "Pair", few: Batch, layout: Layout, guide: Trace, model: Trace) -> tuple[Trace, Trace]:
    """The programs run anew where something is summed out; else as they were."""
    pair.summed = frozenset(marked(guide, model))
    if not pair.summed:
        return guide, model
    try:
        return _draw(pair, few, layout)
    except InputError:
        if not all(is_sequential(guide, name) for name in pair.summed):
            raise
        # enumerated one value after the other, by a program that takes no more: its draws count as others
        pair.summed = frozenset()
        return guide, model


def _check_shapes(pair: "Pair", layout: Layout, *traces: Trace) -> None:
    for trace in traces:
        for name in sites(trace):
            check_shape(trace, name, layout, bool(pair.summed))
            check_precision(trace, name)


def look_at_all(
    pair: "Pair",
    batch: Batch,
    places: Tensor,
    num: int,
    density: bool,
    data_plate: str | None,
    error: InputError,
) -> Look:
    """As `look`, for a guide that is made for all these data, with parameters for each of them.

    Each draw of a datum counts by its own density, so the guide may be run on all of them only; the model is
    looked at as ever.

    Args:
        pair: Its plate, depth and sums are set.
        batch: All data.
        places: Those that are looked at.
        num: Draws of each.
        density: As in `verify`.
        data_plate: Likewise.
        error: Raised where the guide cannot be run on all data, either.
    """
    pair.undeclared, pair.summed = {}, frozenset()
    one = Layout(1, len(batch), 0, repeated=True)
    drawn, models = [], []
    with suppress(InputError):
        drawn = [pair.run_guide(batch, one, validate=True) for _ in range(num)]
        models = [pair.run_model(batch, one, guide, validate=True) for guide in drawn]
    if not models:
        raise error
    guide, model = drawn[0], models[0]
    _check_programs(guide, model, density)
    pair.depth = _depth(guide, model)
    pair.plate = DataPlate.of_size((guide, model), len(batch), data_plate)
    if marked(guide, model):
        raise InputError(f"expected a guide that can be run on a part of the data, {_WHOLE}")
    one = Layout(1, len(batch), pair.depth, repeated=True)
    _check_shapes(pair, one, guide, model)
    each = [values_of(pair, *traces, one, one) for traces in zip(drawn, models, strict=True)]
    values = {name: torch.cat([v[name] for v in each], one.particles(pair.places[name])) for name in each[0]}
    _hold_guide_of_all(pair, batch, values, [parts_of(pair, guide, None, one, one) for guide in drawn])
    few = batch[places]
    few_values = {name: v.index_select(v.ndim + pair.places[name].data, places) for name, v in values.items()}
    layout = Layout(num, len(few), pair.depth, repeated=True)
    model = pair.run_model(few, layout, few_values)
    pair.whole, pair.guide_is_held = len(batch), False
    return Look(few, num, few_values, parts_of(pair, None, model, layout, layout), model)


#: What a guide of all data lacks.
_WHOLE = "got one for these very data, as an autoguide with parameters for each datum"


def _hold_guide_of_all(
    pair: "Pair", batch: Batch, values: Mapping[str, Tensor], alone: list[dict[str, Densities]]
) -> None:
    """Refuse a guide whose draws beside each other have other densities than one after the other."""
    layout = Layout(len(alone), len(batch), pair.depth, repeated=False)
    try:
        found = parts_of(pair, pair.run_guide(batch, layout, values), None, layout, layout)
        same = all(
            close(part.at(k), parts[name]) for k, parts in enumerate(alone) for name, part in found.items()
        )
    except InputError as error:
        raise InputError(
            f"expected a guide that can be run on a part of the data, {_WHOLE}: {error}"
        ) from error
    if not same:
        raise InputError(
            f"expected a guide that can be run on a part of the data, {_WHOLE}, which means something else "
            "with an axis of draws at the left: count axes from the right"
        )


def values_of(
    pair: "Pair", guide: Trace, model: Trace, guide_layout: Layout, model_layout: Layout
) -> dict[str, Tensor]:
    """The values of all latent sites that are not summed out, those of the guide first."""
    return pair.values(model, model_layout) | pair.values(guide, guide_layout)


def _draw(pair: "Pair", batch: Batch, layout: Layout) -> tuple[Trace, Trace]:
    guide = pair.run_guide(batch, layout, validate=True)
    return guide, pair.run_model(batch, layout, guide, validate=True)


def _plated(
    pair: "Pair", few: Batch, num: int, guide: Trace, model: Trace, data_plate: str | None
) -> tuple[Trace, Trace]:
    """Find the plate of the data: by its usual name, or by its size in a second run; the programs in it."""
    total, both = num * len(few), (guide, model)
    if data_plate is None and all(_usual(trace, name, total) for trace in both for name in sites(trace)):
        pair.plate = DataPlate([USUAL])
        return both
    one = Layout(1, 1, 0, repeated=True)
    alone = _draw(pair, few[:1], one)
    pair.undeclared = undeclared(both, total, alone)
    if pair.undeclared:
        both = _draw(pair, few, Layout(num, len(few), 0, repeated=True))
        alone = _draw(pair, few[:1], one)
    pair.plate = DataPlate.found(both, total, alone, 1, data_plate)
    return both


def _usual(trace: Trace, name: str, total: int) -> bool:
    axis, log_prob = plates(trace, name).get(USUAL, 0), trace.nodes[name]["log_prob"]
    return axis < 0 and log_prob.ndim >= -axis and log_prob.shape[axis] == total


def check_shape(trace: Trace, name: str, layout: Layout, enumerated: bool) -> None:
    """Refuse a log density with axes of no plate."""
    if not enumerated:
        with refusals():
            check_site_shape(trace.nodes[name], layout.axes)
    check_density_axes(trace, name, layout.axes if enumerated else None)
