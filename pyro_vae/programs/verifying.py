"""Whether, and how, a pair of programs can be run for many draws of many data at once."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.batch import Batch
from pyro_vae.compiled import own_draws
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import Densities, close, first_difference, parts_of
from pyro_vae.programs.data_plate import USUAL, DataPlate, undeclared
from pyro_vae.programs.enumeration import is_sequential, marked
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.running import refusals, say
from pyro_vae.programs.sites import (
    check_axes,
    check_delta,
    check_density,
    check_latents,
    check_precision,
    check_subsampling,
    plates,
    sites,
)

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Drawn, Pair


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


class Verified:
    """What is known of a pair of programs.

    Args:
        all_shapes: Take runs of every number of draws and data as known.
    """

    def __init__(self, all_shapes: bool = False) -> None:
        #: Numbers in the largest tensor of p(x|z), for one datum.
        self.numbers = 1
        self._all = all_shapes
        self._shapes: set[tuple[int, int]] = set()

    @torch.no_grad()
    def check_shape(self, pair: "Pair", batch: Batch, drawn: "Drawn") -> None:
        """Hold the first run of each number of draws and data against two of its data, run alone."""
        num, size = drawn.model_layout.num, drawn.model_layout.size
        if self._all or (num, size) in self._shapes:
            return
        self._shapes.add((num, size))
        guide = drawn.guide if pair.guide_is_held else None
        together = parts_of(pair, guide, drawn.model, drawn.guide_layout, drawn.model_layout, detailed=False)
        values = _values(pair, drawn.guide, drawn.model, drawn.guide_layout, drawn.model_layout)
        picks = {(num - 1, size - 1), (num // 2, size // 2)}
        problem = first_difference(pair, batch, values, together, sorted(picks))
        if problem is not None:
            raise InputError(_coupled(*problem))


@torch.no_grad()
def verify(pair: "Pair", batch: Batch, density: bool, data_plate: str | None) -> None:
    """Find out how a pair of programs can be run, and refuse one that cannot.

    Args:
        pair: Its plate, depth, ways and sums are set.
        batch: Data.
        density: Refuse what has no density.
        data_plate: The plate's name, where the user gives it.
    """
    _check_made(pair.guide)
    places = _different(batch.x)
    few = batch[places]
    num = 3 if len(few) < 3 else 2
    with own_draws(few.device):
        try:
            look = _look(pair, few, num, density, data_plate)
        except InputError as error:
            look = _look_at_all(pair, batch, places, num, density, data_plate, error)
        picks = [(b % num, b) for b in range(len(few))]
        _hold(pair, look, picks)
        _find_ways(pair, look)
    observed = [look.model.nodes[name]["fn"] for name in sites(look.model, observed=True)]
    rows = num * len(few)
    pair.verified.numbers = max([few.x[0].numel(), 1, *(_largest(fn) // rows for fn in observed)])


def _check_made(guide: object) -> None:
    """Refuse an autoguide that has not been run, since a first run on a few data would make it for these."""
    if isinstance(guide, AutoGuide) and guide.prototype_trace is None:
        raise InputError(
            f"expected a trained guide, got {type(guide).__name__} that has not been run yet: train it, or "
            "call it once on the data"
        )


def _different(x: Tensor) -> Tensor:
    """Places of up to three data: the first, one that differs from it, and the last."""
    others = (x != x[:1]).reshape(len(x), -1).any(1).nonzero().flatten()
    return torch.tensor(sorted({0, *others[:1].tolist(), len(x) - 1}), device=x.device)


def _hold(pair: "Pair", look: Look, picks: list[tuple[int, int]]) -> None:
    """Refuse programs whose densities are others where a datum is run alone, or change from run to run."""
    try:
        problem = first_difference(pair, look.few, look.values, look.parts, picks)
    except InputError as error:
        if not (pair.guide_is_held and _only_draws(pair, look)):
            raise
        _check_neighbours(pair, look, error)
        pair.guide_is_held = False
        problem = first_difference(pair, look.few, look.values, _of_model(look.parts), picks)
    changes = _changes(pair, look)
    if changes:
        raise InputError(changes)
    if problem is not None:
        raise InputError(_coupled(*problem))


def _only_draws(pair: "Pair", look: Look) -> bool:
    """Whether a guide runs on one datum, but has no density at given values, as a flow without an inverse."""
    if pair.summed:
        return False
    try:
        pair.run_guide(look.few[:1], Layout(1, 1, pair.depth, repeated=True))
    except InputError:
        return False
    return True


def _check_neighbours(pair: "Pair", look: Look, error: InputError) -> None:
    """Refuse a guide whose draws of a datum, by the same random numbers, change with the data beside it."""
    layout = Layout(look.num, len(look.few), pair.depth, repeated=True)
    state = torch.get_rng_state()
    first = _guide_run(pair, look.few, layout, state)
    for b in range(len(look.few)):
        other = _guide_run(pair, look.few[b : b + 1].repeat(len(look.few)), layout, state)
        for name, found in first.items():
            own, alone = (part.at(b % look.num, b) for part in (found, other[name]))
            if not close(own, alone):
                raise InputError(_coupled(name, float(alone.log_prob), float(own.log_prob))) from error


def _guide_run(pair: "Pair", batch: Batch, layout: Layout, state: Tensor) -> dict[str, Densities]:
    torch.set_rng_state(state)
    return parts_of(pair, pair.run_guide(batch, layout), None, layout, layout)


def _of_model(parts: Mapping[str, Densities]) -> dict[str, Densities]:
    return {name: part for name, part in parts.items() if not name.endswith("of the guide")}


def _look(pair: "Pair", few: Batch, num: int, density: bool, data_plate: str | None) -> Look:
    """Guide and model on repeated data, where every site has the shape that it was written for."""
    layout = Layout(num, len(few), 0, repeated=True)
    guide, model = _draw(pair, few, layout)
    _check_programs(guide, model, density)
    guide, model = _plated(pair, few, num, guide, model, data_plate)
    pair.depth = _depth(guide, model)
    layout = Layout(num, len(few), pair.depth, repeated=True)
    guide, model = _summed(pair, few, layout, guide, model)
    _check_shapes(pair, layout, guide, model)
    values = _values(pair, guide, model, layout, layout)
    return Look(few, num, values, parts_of(pair, guide, model, layout, layout), model)


def _check_programs(guide: Trace, model: Trace, density: bool) -> None:
    """Refuse programs that do not fit each other, or have no density."""
    for trace in (guide, model):
        check_subsampling(trace)
    if density:
        check_density(model)
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
            _check_shape(trace, name, layout, bool(pair.summed))
            check_precision(trace, name)


def _look_at_all(
    pair: "Pair",
    batch: Batch,
    places: Tensor,
    num: int,
    density: bool,
    data_plate: str | None,
    error: InputError,
) -> Look:
    """As `_look`, for a guide that is made for all these data, with parameters for each of them.

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
    each = [_values(pair, *traces, one, one) for traces in zip(drawn, models, strict=True)]
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
            close(part.row(k), parts[name]) for k, parts in enumerate(alone) for name, part in found.items()
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


def _values(
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


def _check_shape(trace: Trace, name: str, layout: Layout, enumerated: bool) -> None:
    """Refuse a log density with axes of no plate."""
    if not enumerated:
        with refusals():
            check_site_shape(trace.nodes[name], layout.axes)
    check_axes(trace, name, layout.axes if enumerated else None)


def _changes(pair: "Pair", look: Look) -> str:
    """The refusal of programs whose densities change from run to run; empty where they do not."""
    layout = Layout(look.num, len(look.few), pair.depth, repeated=True)
    guide = pair.run_guide(look.few, layout, look.values) if pair.guide_is_held else None
    at = look.values if guide is None or not pair.summed else guide
    again = parts_of(pair, guide, pair.run_model(look.few, layout, at), layout, layout)
    for name, part in again.items():
        if not close(look.parts[name], part):
            return (
                f"expected one density at given latents, got another one at each run at {name}: put the "
                "modules in evaluation mode by .eval(), and draw by pyro.sample only"
            )
    return ""


def _coupled(part: str, alone: float, together: float) -> str:
    return (
        f"expected a log density of each datum that depends on no other, got {together:.6g} beside other "
        f"data and {alone:.6g} alone at {part}: put modules in evaluation mode by .eval(), and take no mean, "
        "sum or number over the data"
    )


def _find_ways(pair: "Pair", look: Look) -> None:
    """Run a program in a plate of particles where that gives the same densities; say where it does not."""
    reasons = {}
    if pair.summed:  # enumerated axes lie left of all plates, so both programs are run in one way
        reasons["model and guide"] = _reason(pair, look, None)
        pair.repeats = dict.fromkeys(pair.repeats, bool(reasons["model and guide"]))
    else:
        reasons["model"] = _reason(pair, look, "model")
        if pair.guide_is_held:
            reasons["guide"] = _reason(pair, look, "guide")
        pair.repeats = {what: bool(reasons.get(what, not pair.whole)) for what in pair.repeats}
    for what, reason in reasons.items():
        if reason:
            say(
                f"{what}: run on repeated data, which is right and slower, since with an axis of draws at "
                f"the left {reason}; to spare it, count axes from the right, as z[..., 0] and dim=-1"
            )


def _reason(pair: "Pair", look: Look, what: str | None) -> str:
    """Why a program cannot be run in a plate of particles; empty where it can. None is for both."""
    layout = Layout(look.num, len(look.few), pair.depth, repeated=False)
    try:
        found = _in_particles(pair, look, layout, what)
    except InputError as error:
        return f"it is refused ({error})"
    for name, part in found.items():
        if name not in look.parts:
            return f"it has {name}, which it has not else"
        if not close(look.parts[name], part):
            return f"{name} has another log density"
    return ""


def _in_particles(pair: "Pair", look: Look, layout: Layout, what: str | None) -> dict[str, Densities]:
    guide = None if what == "model" else pair.run_guide(look.few, layout, look.values)
    at = look.values if guide is None or not pair.summed else guide
    model = None if what == "guide" else pair.run_model(look.few, layout, at)
    for trace in (guide, model):
        for name in sites(trace) if trace is not None else ():
            _check_shape(trace, name, layout, bool(pair.summed))
    return parts_of(pair, guide, model, layout, layout)


def _largest(distribution: Any) -> int:
    """Size of the largest tensor in a distribution, and in those that it is made of."""
    parts = vars(distribution).values()
    sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
    return max([0, *sizes, *(_largest(part) for part in parts if isinstance(part, Distribution))])
