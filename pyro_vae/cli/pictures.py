"""Pictures of a trained run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import plots, reports
from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.cli.samples import check_pictures, sample_table
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.progress import progress_bar
from pyro_vae.storage.runs import Run
from pyro_vae.vae import check_latent_axes

_VALUES_AT_ONCE = 2**19


#: Pictures in a row of one class.
_PER_CLASS = 10


def sample(
    run: Path,
    *,
    num: int = 100,
    draws: bool = False,
    given: dict[str, int | float] | None = None,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """A grid of pictures drawn from the prior and decoded; of a table rows, in its own words.

    Of a model that depends on a label, a row for each class, unless one is given. Of a table, samples.csv in
    the folder of the run has draws from p(x), and marginals.png and pairs.png show them against the data.

    Args:
        run: Folder of the run.
        num: Number of pictures, or of rows.
        draws: Show draws from p(x|z) instead of its means.
        given: What the model depends on beside x, by name, as --given.label 3; by default each class.
        out: File of the picture; by default samples.png among the figures of the run. Of a table a .csv for
            the rows alone.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    torch.manual_seed(seed_number(seed))
    if opened.facts.columns:
        return sample_table(opened, num, out)
    what = "x ~ p(x|z)" if draws else "means of p(x|z)"
    names = _conditions(opened)
    if not names:
        if given:
            opened.vae.check_given(given)
        pictures = opened.vae.sample(num, mean=not draws)
        figure = plots.images(pictures, title=f"{what}, z ~ p(z)")
    else:
        beside, columns, words = _classes(opened, num, given)
        num = len(next(iter(beside.values())))
        pictures = opened.vae.sample(num, mean=not draws, given=beside)  # type: ignore[call-arg]
        figure = plots.images(pictures, columns=columns, title=f"{what}, z ~ p(z), given {words}")
    save_picture(opened.run, "samples", figure, out)


def _classes(
    opened: TrainedRun, num: int, given: dict[str, int | float] | None
) -> tuple[dict[str, Tensor], int, str]:
    """What is given with each picture, pictures in a row, and both in words: a row for each class."""
    names = _conditions(opened)
    if given:
        opened.vae.check_given(given)
        beside = {name: torch.full((count("num", num),), given[name]) for name in names}
        return beside, _PER_CLASS, ", ".join(f"{name} {given[name]:g}" for name in names)
    classes = opened.facts.field_kinds[names[0]].classes
    if len(names) > 1 or classes is None:
        raise InputError(
            f"the model depends on {', '.join(names)}, which is not one label: say which, as --given."
            f"{names[0]} VALUE for each"
        )
    return {names[0]: torch.arange(classes).repeat_interleave(_PER_CLASS)}, _PER_CLASS, f"each {names[0]}"


def reconstruct(
    run: Path, *, num: int = 50, out: Path | None = None, seed: int = 0, device: str = "auto"
) -> None:
    """Test data over their reconstructions (validation or training data where there is no test split).

    Args:
        run: Folder of the run.
        num: Number of test data, by a fixed choice.
        out: File of the picture; by default reconstructions.png among the figures of the run.
        seed: Of the draw z ~ q(z|x).
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    check_pictures(opened)
    data, vae = opened.data(), opened.vae
    batch = vae.place(getattr(data, reports.held_out(data)).subset(num).take())
    torch.manual_seed(seed_number(seed))
    figure = plots.reconstructions(batch.x, batch.offer(vae.reconstruct))
    save_picture(opened.run, "reconstructions", figure, out)


def traverse(
    run: Path,
    *,
    axes: tuple[int, int] = (0, 1),
    num: int = 20,
    given: dict[str, int | float] | None = None,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """The plane of two latent axes, decoded.

    The grid lies at equal steps of probability under the prior: at its inverse CDF where the prior is
    normal or Laplace, else at the quantiles of 10,000 draws; for an Autoencoder, which has no prior, at the
    quantiles of the codes of training data. The other axes stay at the mean.

    Args:
        run: Folder of the run.
        axes: The two latent axes, counted from 0.
        num: Pictures along each.
        given: What the model depends on beside x, by name, as --given.label 3.
        out: File of the picture; by default plane.png among the figures of the run.
        seed: Of the draws from a prior that is not normal.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    vae, codes = opened.vae, None
    beside = _all_given(opened, given)
    torch.manual_seed(seed_number(seed))
    if beside:
        codes = _draws_of_codes(vae, 10_000, beside)
    elif vae.code_prior() is None:
        codes = vae.encode(vae.place(opened.data().train.subset(10_000).batch()))
    z, across, down = vae.latent_plane(axes, num=num, codes=codes)
    pictures = _in_parts(lambda rows: _decoded(vae, rows, beside), z, opened.facts.data_shape.numel())
    figure = plots.plane(pictures, across.tolist(), down.tolist(), _names(axes))
    save_picture(opened.run, "plane", figure, out)


def scatter(
    run: Path,
    *,
    axes: tuple[int, int] = (0, 1),
    num: int = 5000,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """The codes of test data over two latent axes, coloured by class.

    A code is the mean of q(z|x). Data without labels have one colour; without a test split, it is
    validation or training data.

    Args:
        run: Folder of the run.
        axes: The two latent axes, counted from 0.
        num: Number of data, by a fixed choice.
        out: File of the picture; by default scatter.png among the figures of the run.
        seed: Of the draws, where the mean of q(z|x) is by draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    data, vae = opened.data(), opened.vae
    part = getattr(data, reports.held_out(data)).subset(num)
    torch.manual_seed(seed_number(seed))
    size = data.data_shape.numel()
    codes = _in_parts(
        lambda rows: vae.place(part.take(rows)).offer(vae.encode), torch.arange(len(part)), size
    )
    check_latent_axes(axes, codes.shape[1])
    title = f"codes of {len(part)} {reports.held_out(data)} data"
    figure = plots.scatter(codes[:, list(axes)], part.labels, names=_names(axes), title=title)
    save_picture(opened.run, "scatter", figure, out)


def interpolate(
    run: Path,
    *,
    num: int = 8,
    steps: int = 10,
    draws: bool = False,
    given: dict[str, int | float] | None = None,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Rows of pictures, decoded from equal steps on the line between two codes.

    The codes are the means of q(z|x) of pairs of test data (validation or training data where there is no
    test split), or draws from p(z), which need no data.

    Args:
        run: Folder of the run.
        num: Number of rows.
        steps: Pictures in each, both ends included.
        draws: Between two draws from p(z), and not between data.
        given: What the model depends on beside x when it decodes, by name, as --given.label 3.
        out: File of the picture; by default interpolations.png among the figures of the run.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    count("num", num)
    count("steps", steps)
    opened = load(run, device=device)
    beside = _all_given(opened, given)
    vae = opened.vae
    torch.manual_seed(seed_number(seed))
    if draws:
        ends = _draws_of_codes(vae, 2 * num, beside)
    else:
        data = opened.data()
        ends = vae.place(getattr(data, reports.held_out(data)).subset(2 * num).take()).offer(vae.encode)
        if len(ends) < 2 * num:
            raise InputError(f"expected {2 * num} data for {num} rows, got {len(ends)}: lower --num")
    weights = torch.linspace(0, 1, steps, dtype=ends.dtype, device=ends.device)[:, None]
    z = torch.lerp(ends[0::2, None], ends[1::2, None], weights).flatten(0, 1)
    figure = plots.images(
        _decoded(vae, z, beside), columns=steps, title="means of p(x|z) on lines between two codes"
    )
    save_picture(opened.run, "interpolations", figure, out)


def _conditions(opened: TrainedRun) -> tuple[str, ...]:
    """What a picture of the model depends on beside its code."""
    return (*opened.vae.conditions, *opened.vae.optional)


def _all_given(opened: TrainedRun, given: dict[str, int | float] | None) -> dict[str, int | float]:
    """What is given with all pictures: all that the model depends on, and nothing else."""
    check_pictures(opened)
    names = _conditions(opened)
    if set(names) != set(given or {}):
        which = ", ".join(f"--given.{name} VALUE" for name in names) or "leave out --given"
        raise InputError(
            f"codes are decoded with what the model depends on, {', '.join(names) or 'nothing'}, got "
            f"{', '.join(given or {}) or 'nothing'}: {which}"
        )
    return given or {}


def _draws_of_codes(vae: Any, num: int, given: dict[str, int | float]) -> Tensor:
    """Draws from p(z), given something: (num, L)."""
    pz = vae.code_prior(**vae.given_for_all(num, given))
    if pz is None:
        raise InputError(f"{type(vae).__name__} has no p(z) to draw from: leave out --draws")
    drawn: Tensor = pz.sample() if pz.batch_shape else pz.sample((num,))
    return drawn


def _decoded(vae: Any, z: Tensor, given: dict[str, int | float]) -> Tensor:
    """The means of p(x|z), given something."""
    decoded: Tensor = vae.decode(z, **vae.given_for_all(len(z), given))
    return decoded


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """The function of all rows, a few at a time, with a bar; `size` values come of each, or make it."""
    parts = rows.split(max(1, min(1000, _VALUES_AT_ONCE // size)))
    with progress_bar(total=len(rows), unit="picture") as bar:
        done = []
        for part in parts:
            done.append(function(part))
            bar.update(len(part))
    return torch.cat(done)


def _names(axes: tuple[int, int]) -> tuple[str, str]:
    return f"$z_{{{axes[0]}}}$", f"$z_{{{axes[1]}}}$"


def save_picture(run: Run, name: str, figure: Figure, out: Path | None = None) -> None:
    """A picture among those of the run, or in a file elsewhere."""
    path = run.figures / f"{name}.png" if out is None else out
    if path.suffix != ".png":
        raise InputError(f"--out expects a .png file, got {path}")
    plots.save(figure, path)
    print(path)
