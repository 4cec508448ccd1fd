"""Pictures of a trained model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import comparison, plots
from pyro_vae.batch import Batch
from pyro_vae.columns import Column, Columns
from pyro_vae.data import DataFacts, Dataset, Split
from pyro_vae.errors import InputError, count
from pyro_vae.progress import progress_bar
from pyro_vae.reports import held_out
from pyro_vae.vae import JointProgram, check_latent_axes

#: What a model depends on beside the code, by name: one value for all pictures.
Beside = Mapping[str, int | float]

#: Pictures in a row of one class.
_PER_CLASS = 10
#: Rows drawn for a picture of a table.
_DRAWN = 2000
#: Values computed at once, and those that a decoder is taken to need for a picture.
_VALUES_AT_ONCE, _OF_A_PICTURE = 2**19, 2**12


def conditions(vae: JointProgram) -> tuple[str, ...]:
    """What a picture of a model depends on beside its code."""
    return (*vae.conditions, *vae.optional)


def check_pictures(facts: DataFacts) -> None:
    """Refuse a table, whose rows are no pictures.

    Raises:
        InputError: with what there is instead.
    """
    if facts.columns:
        raise InputError(
            "expected a run on pictures, got one on a table: see pyro-vae sample, which draws rows"
        )


def samples(
    vae: JointProgram, facts: DataFacts, num: int, *, draws: bool = False, given: Beside | None = None
) -> Figure:
    """Pictures drawn from the prior and decoded; a row for each class of a label, unless one is given."""
    what = "x ~ p(x|z)" if draws else "means of p(x|z)"
    if not conditions(vae):
        if given:
            vae.check_given(given)
        return plots.images(vae.sample(num, mean=not draws), title=f"{what}, z ~ p(z)")
    beside, words = _classes(vae, facts, num, given)
    number = len(next(iter(beside.values())))
    pictures = vae.sample(number, mean=not draws, given=beside)  # type: ignore[call-arg]
    return plots.images(pictures, columns=_PER_CLASS, title=f"{what}, z ~ p(z), given {words}")


def _classes(
    vae: JointProgram, facts: DataFacts, num: int, given: Beside | None
) -> tuple[dict[str, Tensor], str]:
    """What is given with each picture, and it in words: a row for each class."""
    names = conditions(vae)
    if given:
        vae.check_given(given)
        beside = {name: torch.full((count("num", num),), given[name]) for name in names}
        return beside, ", ".join(f"{name} {given[name]:g}" for name in names)
    classes = facts.field_kinds[names[0]].classes
    if len(names) > 1 or classes is None:
        raise InputError(
            f"the model depends on {', '.join(names)}, which is not one label: say which, as --given."
            f"{names[0]} VALUE for each"
        )
    return {names[0]: torch.arange(classes).repeat_interleave(_PER_CLASS)}, f"each {names[0]}"


def reconstructions(vae: JointProgram, data: Dataset, num: int) -> Figure:
    """Held-out data over their reconstructions; where they are bits of grey levels, these above them."""
    name = held_out(data)
    batch = vae.place(getattr(data, name).subset(num).take())
    grey = None
    if data.levels == 2 and not data.raw.bits:
        levels = Split(data.raw.by_split[name], maximum=data.raw.maximum, missing=data.missing)
        grey = vae.place(levels.subset(num).batch())
    back = batch.offer(vae.reconstruct)
    if grey is None:
        return plots.reconstructions(batch.x, back)
    return plots.reconstructions(grey, back, seen=batch.x)


def active_axes(vae: JointProgram, data: Dataset | None, given: Beside | None = None) -> list[int]:
    """All latent axes, the most active first: by Var_x(E_q[z_d|x]) (Burda, Grosse & Salakhutdinov 2016).

    Over 1000 held-out data at the most, or where the data are not at hand over as many drawn from the model;
    a model that has no codes of its draws has its axes in their own order.
    """
    if data is not None:
        codes = codes_of(vae, getattr(data, held_out(data)).subset(_CODES))
    else:
        beside = vae.given_for_all(_CODES, given or {})
        try:
            options: Any = {"given": beside} if beside else {}
            x = vae.sample(_CODES, **options)
            codes = Batch(x, beside).offer(vae.encode)
        except InputError:
            return [0, 1]
    return codes.var(0).argsort(descending=True, stable=True).tolist()


#: Data over which the activity of an axis is a variance.
_CODES = 1000


def two_axes(vae: JointProgram, data: Dataset | None, given: Beside | None = None) -> tuple[int, int]:
    """The two most active axes, the most active first.

    Raises:
        InputError: where there is one.
    """
    axes = active_axes(vae, data, given)
    if len(axes) < 2:
        raise InputError("a latent plane needs two latent axes, the model has one")
    return axes[0], axes[1]


def codes_of(vae: JointProgram, part: Split) -> Tensor:
    """The means of q(z|x) of data: (N, L)."""
    size = part.data_shape.numel()
    return in_parts(lambda rows: vae.place(part.take(rows)).offer(vae.encode), torch.arange(len(part)), size)


def plane_of_codes(
    vae: JointProgram, data: Dataset | None, axes: tuple[int, int], num: int, given: Beside
) -> tuple[Tensor, Tensor, Tensor]:
    """As `JointProgram.latent_plane`, of a model that depends on something or has no prior, too."""
    codes = None
    if given:
        codes = draws_of_codes(vae, 10_000, given)
    elif vae.code_prior() is None:
        if data is None:
            raise InputError(f"{type(vae).__name__} has no p(z), and its training data are not at hand")
        codes = vae.encode(vae.place(data.train.subset(10_000).batch()))
    return vae.latent_plane(axes, num=num, codes=codes)


def plane(vae: JointProgram, data: Dataset | None, axes: tuple[int, int], num: int, given: Beside) -> Figure:
    """The plane of two latent axes, decoded."""
    z, across, down = plane_of_codes(vae, data, axes, num, given)
    pictures = decoded(vae, z, given)
    return plots.plane(pictures, across.tolist(), down.tolist(), _names(axes))


def scatter(vae: JointProgram, data: Dataset, axes: tuple[int, int] | None, num: int) -> Figure:
    """The codes of held-out data over two latent axes, coloured by class."""
    name = held_out(data)
    part = getattr(data, name).subset(num)
    codes = codes_of(vae, part)
    if axes is None:
        axes = two_axes(vae, data)
    check_latent_axes(axes, codes.shape[1])
    title = f"codes of {len(part)} {name} data"
    return plots.scatter(codes[:, list(axes)], part.labels, names=_names(axes), title=title)


def traversals(
    vae: JointProgram, data: Dataset | None, *, num: int = 8, steps: int = 9, given: Beside
) -> Figure:
    """A row for each of the most active axes, along which it goes from one tail of the prior to the other.

    The other axes stay at the mean; the steps are those of `latent_plane`.
    """
    axes = active_axes(vae, data, given)
    rows = {}
    for axis in axes[:num]:
        other = next((each for each in axes if each != axis), None)
        if other is None:
            raise InputError("a traversal of one axis is the whole of a model of one: see the samples")
        z, across, _ = plane_of_codes(vae, data, (axis, other), steps, given)
        line = z[:steps].clone()
        line[:, other] = z.mean(0)[other]
        ends = f"z[{axis}], {float(across[0]):.1f} to {float(across[-1]):.1f}"
        rows[ends] = decoded(vae, line, given)
    return plots.strips(rows)


def interpolations(
    vae: JointProgram, data: Dataset | None, num: int, steps: int, *, draws: bool = False, given: Beside
) -> Figure:
    """Rows of pictures on lines between two codes, of held-out data or with `draws` of p(z)."""
    if draws or data is None:
        ends = draws_of_codes(vae, 2 * num, given)
    else:
        part = getattr(data, held_out(data)).subset(2 * num)
        ends = vae.place(part.take()).offer(vae.encode)
        if len(ends) < 2 * num:
            raise InputError(f"expected {2 * num} data for {num} rows, got {len(ends)}: lower --num")
    weights = torch.linspace(0, 1, steps, dtype=ends.dtype, device=ends.device)[:, None]
    z = torch.lerp(ends[0::2, None], ends[1::2, None], weights).flatten(0, 1)
    title = "means of p(x|z) on lines between two codes"
    return plots.images(decoded(vae, z, given), columns=steps, title=title)


def against_data(vae: JointProgram, facts: DataFacts, data: Dataset | None) -> tuple[Figure, Figure | None]:
    """Draws from p(x) against training data: each column by itself, and pairs of columns."""
    names = conditions(vae)
    if names:
        raise InputError(f"rows are drawn from p(x), got a model that depends on {', '.join(names)}")
    return figures_of_rows(vae.sample(_DRAWN), columns_of(facts), data)


def figures_of_rows(draws: Tensor, columns: Columns, data: Dataset | None) -> tuple[Figure, Figure | None]:
    """Marginals and pairs of columns of draws and, where they are at hand, of training data."""
    there = None if data is None else data.train.batch()
    pairs = plots.pairs(draws, columns, there) if len(columns) > 1 else None
    return plots.marginals(draws, columns, there), pairs


def columns_of(facts: DataFacts) -> Columns:
    """The columns of a table; of a vector its numbers, x[0] and so on."""
    if facts.columns:
        return facts.columns
    if facts.levels == 2:
        kind: Any = {"kind": "yes_no", "classes": ("0", "1")}
    else:
        kind = {"kind": "count" if facts.form.name == "Counts" else "real"}
    return tuple(Column(f"x[{number}]", **kind) for number in range(facts.data_shape.numel()))


def differences(found: comparison.Comparison) -> Figure:
    """Differences between runs in log p(x), with their intervals."""
    runs = found.runs
    base = next(run.log_evidence for run in runs if run.verdict == "reference")
    return plots.differences(
        [f"{run.name}\n{comparison.options_in_words(run.options)}" for run in runs],
        [run.difference for run in runs],
        [run.interval for run in runs],
        [run.verdict for run in runs],
        members=[[value - base for value in run.of_members] for run in runs],
        reference=found.reference,
        units=found.units,
    )


def draws_of_codes(vae: Any, num: int, given: Beside) -> Tensor:
    """Draws from p(z), given something: (num, L)."""
    pz = vae.code_prior(**vae.given_for_all(num, given))
    if pz is None:
        raise InputError(f"{type(vae).__name__} has no p(z) to draw from: leave out --draws")
    drawn: Tensor = pz.sample() if pz.batch_shape else pz.sample((num,))
    return drawn


def decoded(vae: Any, z: Tensor, given: Beside) -> Tensor:
    """The means of p(x|z), given something, a few at a time."""
    return in_parts(lambda rows: vae.decode(rows, **vae.given_for_all(len(rows), given)), z, _OF_A_PICTURE)


def in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """The function of all rows, a few at a time, with a bar; `size` values come of each, or make it."""
    parts = rows.split(max(1, min(1000, _VALUES_AT_ONCE // size)))
    with progress_bar(total=len(rows), desc="pictures", unit="codes") as bar:
        done = []
        for part in parts:
            done.append(function(part))
            bar.update(len(part))
    return torch.cat(done)


def _names(axes: tuple[int, int]) -> tuple[str, str]:
    return f"$z_{{{axes[0]}}}$", f"$z_{{{axes[1]}}}$"
