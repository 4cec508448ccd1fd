"""Pictures of a trained run."""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import plots, reports
from pyro_vae.cli.loading import load
from pyro_vae.errors import seed_number
from pyro_vae.progress import progress_bar
from pyro_vae.storage.runs import Run
from pyro_vae.vae import check_axes

_VALUES_AT_ONCE = 2**19


def sample(run: Path, *, num: int = 100, draws: bool = False, seed: int = 0, device: str = "auto") -> None:
    """A grid of pictures drawn from the prior and decoded.

    Args:
        run: Folder of the run.
        num: Number of pictures.
        draws: Show draws from p(x|z) instead of its means.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, _, vae = load(run, device)
    torch.manual_seed(seed_number(seed))
    pictures = vae.sample(num, mean=not draws)
    title = f"{'x ~ p(x|z)' if draws else 'means of p(x|z)'}, z ~ p(z)"
    save(opened, "samples", plots.images(pictures, title=title))


def reconstruct(run: Path, *, num: int = 50, seed: int = 0, device: str = "auto") -> None:
    """Test data over their reconstructions (validation or training data where there is no test split).

    Args:
        run: Folder of the run.
        num: Number of test data, by a fixed choice.
        seed: Of the draw z ~ q(z|x).
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, data, vae = load(run, device)
    x = vae.place(getattr(data, reports.held_out(data)).subset(num).batch())
    torch.manual_seed(seed_number(seed))
    save(opened, "reconstructions", plots.reconstructions(x, vae.reconstruct(x)))


def traverse(
    run: Path, *, axes: tuple[int, int] = (0, 1), num: int = 20, seed: int = 0, device: str = "auto"
) -> None:
    """The plane of two latent axes, decoded.

    The grid lies at equal steps of probability under the prior: at its inverse CDF where the prior is
    normal or Laplace, else at the quantiles of 10,000 draws; for an Autoencoder, which has no prior, at the
    quantiles of the codes of training data. The other axes stay at the mean.

    Args:
        run: Folder of the run.
        axes: The two latent axes, counted from 0.
        num: Pictures along each.
        seed: Of the draws from a prior that is not normal.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, data, vae = load(run, device)
    torch.manual_seed(seed_number(seed))
    codes = None if vae.code_prior() is not None else vae.encode(vae.place(data.train.subset(10_000).batch()))
    z, across, down = vae.latent_plane(axes, num=num, codes=codes)
    pictures = _in_parts(vae.decode, z, data.data_shape.numel())
    save(opened, "plane", plots.plane(pictures, across.tolist(), down.tolist(), _names(axes)))


def scatter(
    run: Path, *, axes: tuple[int, int] = (0, 1), num: int = 5000, seed: int = 0, device: str = "auto"
) -> None:
    """The codes of test data over two latent axes, coloured by class.

    A code is the mean of q(z|x). Data without labels have one colour; without a test split, it is
    validation or training data.

    Args:
        run: Folder of the run.
        axes: The two latent axes, counted from 0.
        num: Number of data, by a fixed choice.
        seed: Of the draws, where the mean of q(z|x) is by draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, data, vae = load(run, device)
    part = getattr(data, reports.held_out(data)).subset(num)
    torch.manual_seed(seed_number(seed))
    codes = _in_parts(lambda x: vae.encode(vae.place(x)), part.batch(), data.data_shape.numel())
    check_axes(axes, codes.shape[1])
    title = f"codes of {len(part)} {reports.held_out(data)} data"
    save(opened, "scatter", plots.scatter(codes[:, list(axes)], part.labels, names=_names(axes), title=title))


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


def save(run: Run, name: str, figure: Figure) -> None:
    """A picture among those of the run."""
    path = run.figures / f"{name}.png"
    plots.save(figure, path)
    print(path)
