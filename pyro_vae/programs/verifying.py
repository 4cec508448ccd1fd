"""Whether, and how, a pair of programs can be run for many draws of many data at once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.batch import Batch
from pyro_vae.compiled import own_draws
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import Densities, close, first_difference, parts_of
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.looking import Look, check_shape, look, look_at_all, values_of
from pyro_vae.programs.running import say
from pyro_vae.programs.sites import sites
from pyro_vae.randomness import random_state, set_random_state

if TYPE_CHECKING:
    from pyro_vae.programs.pair import Drawn, Pair


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
        """Hold a run against two of its data, run alone.

        That is the first run of each number of draws and data, and of the first runs of batches the 1st, 2nd,
        4th, 8th, …, since data can lead a program elsewhere than those that were looked at.
        """
        num, size = drawn.model_layout.num, drawn.model_layout.size
        self._batches += first
        due = first and self._batches & (self._batches - 1) == 0
        if self._all or ((num, size) in self._shapes and not due):
            return
        self._shapes.add((num, size))
        guide = drawn.guide if pair.guide_is_held else None
        together = parts_of(pair, guide, drawn.model, drawn.guide_layout, drawn.model_layout, detailed=False)
        values = values_of(pair, drawn.guide, drawn.model, drawn.guide_layout, drawn.model_layout)
        picks = {(num - 1, size - 1), (num // 2, (size // 2 + self._batches) % size)}
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
            found = look(pair, few, num, density, data_plate)
        except InputError as error:
            found = look_at_all(pair, batch, places, num, density, data_plate, error)
        picks = [(b % num, b) for b in range(len(few))]
        _hold(pair, found, picks)
        _find_ways(pair, found)
    observed = [found.model.nodes[name]["fn"] for name in sites(found.model, observed=True)]
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
    state = random_state(look.few.device)
    first = _guide_run(pair, look.few, layout, state)
    for b in range(len(look.few)):
        other = _guide_run(pair, look.few[b : b + 1].repeat(len(look.few)), layout, state)
        for name, found in first.items():
            own, alone = (part.at(b % look.num, b) for part in (found, other[name]))
            if not close(own, alone):
                raise InputError(_coupled(name, float(alone.log_prob), float(own.log_prob))) from error


def _guide_run(pair: "Pair", batch: Batch, layout: Layout, state: list[Tensor]) -> dict[str, Densities]:
    set_random_state(state, batch.device)
    return parts_of(pair, pair.run_guide(batch, layout), None, layout, layout)


def _of_model(parts: Mapping[str, Densities]) -> dict[str, Densities]:
    return {name: part for name, part in parts.items() if not name.endswith("of the guide")}


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
            check_shape(trace, name, layout, bool(pair.summed))
    return parts_of(pair, guide, model, layout, layout)


def _largest(distribution: Any) -> int:
    """Size of the largest tensor in a distribution, and in those that it is made of."""
    parts = vars(distribution).values()
    sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
    return max([0, *sizes, *(_largest(part) for part in parts if isinstance(part, Distribution))])
