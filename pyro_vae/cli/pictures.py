"""Pictures of a trained run."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_vae import plots, reports
from pyro_vae.cli.loading import load
from pyro_vae.errors import seed_number
from pyro_vae.storage.runs import Run
from pyro_vae.vae import check_latent_axes


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
    save_picture(opened, "samples", plots.images(pictures, title=title))


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
    save_picture(opened, "reconstructions", plots.reconstructions(x, vae.reconstruct(x)))


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
    save_picture(opened, "plane", plots.plane(vae.decode(z), across.tolist(), down.tolist(), _names(axes)))


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
    codes = torch.cat([vae.encode(vae.place(x)) for x in part.batch().split(1000)])
    check_latent_axes(axes, codes.shape[1])
    title = f"codes of {len(part)} {reports.held_out(data)} data"
    save_picture(
        opened, "scatter", plots.scatter(codes[:, list(axes)], part.labels, names=_names(axes), title=title)
    )


def _names(axes: tuple[int, int]) -> tuple[str, str]:
    return f"$z_{{{axes[0]}}}$", f"$z_{{{axes[1]}}}$"


def save_picture(run: Run, name: str, figure: Figure) -> None:
    """A picture among those of the run."""
    path = run.figures / f"{name}.png"
    plots.save(figure, path)
    print(path)
