"""Pictures of a trained run."""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import plots, reports
from pyro_vae.cli.loading import load
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.progress import progress_bar
from pyro_vae.storage.runs import Run
from pyro_vae.vae import check_latent_axes

_VALUES_AT_ONCE = 2**19


def sample(
    run: Path,
    *,
    num: int = 100,
    draws: bool = False,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """A grid of pictures drawn from the prior and decoded.

    Args:
        run: Folder of the run.
        num: Number of pictures.
        draws: Show draws from p(x|z) instead of its means.
        out: File of the picture; by default samples.png among the figures of the run.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    torch.manual_seed(seed_number(seed))
    pictures = opened.vae.sample(num, mean=not draws)
    title = f"{'x ~ p(x|z)' if draws else 'means of p(x|z)'}, z ~ p(z)"
    save_picture(opened.run, "samples", plots.images(pictures, title=title), out)


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
    data, vae = opened.data(), opened.vae
    x = vae.place(getattr(data, reports.held_out(data)).subset(num).batch())
    torch.manual_seed(seed_number(seed))
    save_picture(opened.run, "reconstructions", plots.reconstructions(x, vae.reconstruct(x)), out)


def traverse(
    run: Path,
    *,
    axes: tuple[int, int] = (0, 1),
    num: int = 20,
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
        out: File of the picture; by default plane.png among the figures of the run.
        seed: Of the draws from a prior that is not normal.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    vae, codes = opened.vae, None
    torch.manual_seed(seed_number(seed))
    if vae.code_prior() is None:
        codes = vae.encode(vae.place(opened.data().train.subset(10_000).batch()))
    z, across, down = vae.latent_plane(axes, num=num, codes=codes)
    pictures = _in_parts(vae.decode, z, opened.facts.data_shape.numel())
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
    codes = _in_parts(lambda x: vae.encode(vae.place(x)), part.batch(), data.data_shape.numel())
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
        out: File of the picture; by default interpolations.png among the figures of the run.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    count("num", num)
    count("steps", steps)
    opened = load(run, device=device)
    vae, pz = opened.vae, opened.vae.code_prior()
    torch.manual_seed(seed_number(seed))
    if draws:
        if pz is None:
            raise InputError(f"{type(vae).__name__} has no p(z) to draw from: leave out --draws")
        ends = pz.sample((2 * num,))
    else:
        data = opened.data()
        ends = vae.encode(vae.place(getattr(data, reports.held_out(data)).subset(2 * num).batch()))
        if len(ends) < 2 * num:
            raise InputError(f"expected {2 * num} data for {num} rows, got {len(ends)}: lower --num")
    weights = torch.linspace(0, 1, steps, dtype=ends.dtype, device=ends.device)[:, None]
    z = torch.lerp(ends[0::2, None], ends[1::2, None], weights).flatten(0, 1)
    figure = plots.images(vae.decode(z), columns=steps, title="means of p(x|z) on lines between two codes")
    save_picture(opened.run, "interpolations", figure, out)


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
