"""Whether, and how, a pair of programs can be run for many draws of many data at once."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from torch import Tensor
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import Densities, Pick, close, first_difference, noise, parts_of
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.looking import Look, check_shape, look, look_at_all, values_of
from pyro_vae.programs.running import say
from pyro_vae.programs.sites import sites
from pyro_vae.programs.sizes import Sizes
from pyro_vae.randomness import own_draws, random_state, set_random_state

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Drawn, Pair


SiteValues = Mapping[str, Tensor]


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
        self._batches = 0

    @torch.no_grad()
    def check_run(self, pair: "Pair", batch: Batch, drawn: "Drawn", *, first: bool) -> None:
        """Hold a run against two of its data, run alone, and one of its draws against that of two parts.

        Data are run alone in the first run of each number of draws and data. The first run of the 1st, 2nd,
        4th, 8th batch and of every eighth after it is held against the same data in two parts, since some
        data can lead a program elsewhere than those that were looked at; each would take a tenth longer.
        """
        if self._all or get_proxy_mode() is not None:
            return
        num, size = drawn.model_layout.num, drawn.model_layout.size
        picks: list[Pick] = []
        if (num, size) not in self._shapes:
            self._shapes.add((num, size))
            picks += [(num - 1, slice(0, 1)), (num // 2, slice(size - 1, size))]
        self._batches += first
        if first and size > 1 and (self._batches % 8 == 0 or self._batches in (1, 2, 4)):
            half = size // 2
            picks += [(0, slice(0, half)), (0, slice(half, size))]
        if picks:
            guide = drawn.guide if pair.guide_is_held else None
            parts = parts_of(pair, guide, drawn.model, drawn.guide_layout, drawn.model_layout, detailed=False)
            values = values_of(pair, drawn.guide, drawn.model, drawn.guide_layout, drawn.model_layout)
            _refuse_difference(pair, batch, values, parts, picks)

    @torch.no_grad()
    def check_model(
        self, pair: "Pair", batch: Batch, trace: Trace, layout: Layout, values: Callable[[], SiteValues]
    ) -> None:
        """Hold the first run of the model at given latents, of each number of draws and data, likewise."""
        key = (-layout.num, layout.size)
        if self._all or key in self._shapes or get_proxy_mode() is not None:
            return
        self._shapes.add(key)
        held, pair.guide_is_held = pair.guide_is_held, False
        try:
            with own_draws(batch.device):
                parts = parts_of(pair, None, trace, layout, layout, detailed=False)
                picks = [
                    (layout.num - 1, slice(0, 1)),
                    (layout.num // 2, slice(layout.size - 1, layout.size)),
                ]
                _refuse_difference(pair, batch, values(), parts, picks)
        finally:
            pair.guide_is_held = held


def _refuse_difference(
    pair: "Pair", batch: Batch, values: SiteValues, parts: Mapping[str, Densities], picks: list[Pick]
) -> None:
    problem = first_difference(pair, batch, values, parts, picks)
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
    _check_guide(pair.guide)
    places = _different(batch)
    few = batch[places]
    num = 3 if len(few) < 3 else 2
    num += num * len(few) == len(batch)  # else a guide of these very data would pass for one of any
    with own_draws(few.device):
        sizes = Sizes()
        try:
            with sizes:
                found = look(pair, few, num, density, data_plate)
        except InputError as error:
            _refuse_batch_norm(error)
            found = look_at_all(pair, batch, places, num, density, data_plate, error)
        picks = [(b % num, slice(b, b + 1)) for b in range(len(few))]
        _hold(pair, found, picks)
        _find_ways(pair, found)
    observed = [found.model.nodes[name]["fn"] for name in sites(found.model, observed=True)]
    rows = num * len(few)
    within = sizes.largest(num, len(few))
    pair.verified.numbers = max([few.x[0].numel(), 1, within, *(_largest(fn) // rows for fn in observed)])


def _refuse_batch_norm(error: InputError) -> None:
    """Refuse what takes statistics over the data of a batch, which one datum has not."""
    if "more than 1 value per channel when training" in str(error):
        raise InputError(f"{error}: it takes statistics over the batch; switch it off by .eval()") from error


def _check_guide(guide: object) -> None:
    """Refuse an autoguide that has not been run, or that is no program."""
    if isinstance(guide, GuideMessenger):
        raise InputError(
            f"expected a guide that is a program of its own, got {type(guide).__name__}, which runs the "
            "model: use AutoNormal or the like"
        )
    if isinstance(guide, AutoGuide) and guide.prototype_trace is None:
        # a first run on a few data would make it for these
        raise InputError(
            f"expected a trained guide, got {type(guide).__name__} that has not been run yet: train it, or "
            "call it once on the data"
        )


def _different(batch: Batch) -> Tensor:
    """Places of up to three data: the first, one that differs from it in x or in what is given, the last."""
    differs = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
    for tensor in batch.per_datum:
        differs |= (tensor != tensor[:1]).reshape(len(batch), -1).any(1).to(differs.device)
    others = differs.nonzero().flatten()[:1].tolist()
    return torch.tensor(sorted({0, *others, len(batch) - 1}), device=batch.device)


def _hold(pair: "Pair", look: Look, picks: list[Pick]) -> None:
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
    state = random_state(look.few.device)
    parts, values = _guide_run(pair, look.few, layout, state)
    for b in range(len(look.few)):
        where = slice(b, b + 1)
        others, other_values = _guide_run(pair, look.few[where].repeat(len(look.few)), layout, state)
        for name, found in parts.items():
            own, alone = (part.at(b % look.num, where) for part in (found, others[name]))
            if not close(own, alone):
                raise InputError(_coupled(name, float(alone.log_prob), float(own.log_prob))) from error
        for name, value in values.items():
            place = pair.places[name]
            one, other = (layout.pick(v, place, b % look.num, where) for v in (value, other_values[name]))
            if not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise InputError(
                    f"expected draws of each datum that depend on no other, got others at the site {name!r} "
                    "of the guide with the data beside it: put modules in evaluation mode by .eval()"
                ) from error


def _guide_run(
    pair: "Pair", batch: Batch, layout: Layout, state: list[Tensor]
) -> tuple[dict[str, Densities], dict[str, Tensor]]:
    set_random_state(state, batch.device)
    trace = pair.run_guide(batch, layout)
    return parts_of(pair, trace, None, layout, layout), pair.values(trace, layout)


def _of_model(parts: Mapping[str, Densities]) -> dict[str, Densities]:
    return {name: part for name, part in parts.items() if not name.endswith("of the guide")}


def _changes(pair: "Pair", look: Look) -> str:
    """The refusal of programs whose densities change from run to run; empty where they do not."""
    for name, part in _repeated(pair, look.num, look.few, look.values).items():
        if name not in look.parts or not close(look.parts[name], part):
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
    few, num, values = look.few, look.num, look.values
    layout = Layout(num, len(few), pair.depth, repeated=False)
    try:
        found = _in_particles(pair, look, layout, what)
    except InputError as error:
        return f"it is refused ({error})"
    expected = [name for name in look.parts if what is None or name.endswith(f"of the {what}")]
    if set(found) != set(expected):
        return "it has other sites"
    for name, part in found.items():
        old = look.parts[name]
        if not (
            close(old, part) or close(old, part, noise(partial(_repeated, pair, num), few, values, old, name))
        ):
            return f"{name} has another log density"
    return ""


def _repeated(pair: "Pair", num: int, batch: Batch, values: Mapping[str, Tensor]) -> dict[str, Densities]:
    """The parts of a run on repeated data."""
    layout = Layout(num, len(batch), pair.depth, repeated=True)
    guide = pair.run_guide(batch, layout, values) if pair.guide_is_held else None
    at = values if guide is None or not pair.summed else guide
    return parts_of(pair, guide, pair.run_model(batch, layout, at), layout, layout)


def _in_particles(pair: "Pair", look: Look, layout: Layout, what: str | None) -> dict[str, Densities]:
    guide = None if what == "model" else pair.run_guide(look.few, layout, look.values)
    at = look.values if guide is None or not pair.summed else guide
    model = None if what == "guide" else pair.run_model(look.few, layout, at)
    for trace in (guide, model):
        for name in sites(trace) if trace is not None else ():
            check_shape(trace, name, layout, bool(pair.summed))
    return parts_of(pair, guide, model, layout, layout)


def _largest(distribution: Any) -> int:
    """Size of the largest tensor in a distribution, and in those that it is made of."""
    parts = vars(distribution).values()
    sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
    return max([0, *sizes, *(_largest(part) for part in parts if isinstance(part, Distribution))])
