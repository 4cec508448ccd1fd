"""Pictures of a trained run."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from pyro_vae import plots
from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.cli.samples import sample_table
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.pages import looking
from pyro_vae.storage.runs import Run


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
    figure = looking.samples(opened.vae, opened.facts, num, draws=draws, given=given)
    save_picture(opened.run, "samples", figure, out)


def reconstruct(
    run: Path, *, num: int = 50, out: Path | None = None, seed: int = 0, device: str = "auto"
) -> None:
    """Test data over their reconstructions (validation or training data where there is no test split).

    Of grey levels that the model sees as bits, the levels stand above the bits.

    Args:
        run: Folder of the run.
        num: Number of test data, by a fixed choice.
        out: File of the picture; by default reconstructions.png among the figures of the run.
        seed: Of the draw z ~ q(z|x).
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    looking.check_pictures(opened.facts)
    data = opened.data()
    torch.manual_seed(seed_number(seed))
    figure = looking.reconstructions(opened.vae, data, num)
    save_picture(opened.run, "reconstructions", figure, out)


def traverse(
    run: Path,
    *,
    axes: tuple[int, int] | None = None,
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
        axes: The two latent axes, counted from 0; by default those whose codes vary most over the data.
        num: Pictures along each.
        given: What the model depends on beside x, by name, as --given.label 3.
        out: File of the picture; by default plane.png among the figures of the run.
        seed: Of the draws from a prior that is not normal.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    beside = _all_given(opened, given)
    if opened.vae.code_prior(**opened.vae.given_for_all(2, beside)) is None:
        data: Dataset | None = opened.data()
    else:
        data = opened.data_at_hand() if axes is None else None
    torch.manual_seed(seed_number(seed))
    axes = axes or looking.two_axes(opened.vae, data, beside)
    figure = looking.plane(opened.vae, data, axes, num, beside)
    save_picture(opened.run, "plane", figure, out)


def scatter(
    run: Path,
    *,
    axes: tuple[int, int] | None = None,
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
        axes: The two latent axes, counted from 0; by default those whose codes vary most over the data.
        num: Number of data, by a fixed choice.
        out: File of the picture; by default scatter.png among the figures of the run.
        seed: Of the draws, where the mean of q(z|x) is by draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened = load(run, device=device)
    data = opened.data()
    torch.manual_seed(seed_number(seed))
    save_picture(opened.run, "scatter", looking.scatter(opened.vae, data, axes, num), out)


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
    data = None if draws else opened.data()
    torch.manual_seed(seed_number(seed))
    figure = looking.interpolations(opened.vae, data, num, steps, draws=draws, given=beside)
    save_picture(opened.run, "interpolations", figure, out)


def _all_given(opened: TrainedRun, given: dict[str, int | float] | None) -> dict[str, int | float]:
    """What is given with all pictures: all that the model depends on, and nothing else."""
    looking.check_pictures(opened.facts)
    names = looking.conditions(opened.vae)
    if set(names) != set(given or {}):
        which = ", ".join(f"--given.{name} VALUE" for name in names) or "leave out --given"
        raise InputError(
            f"codes are decoded with what the model depends on, {', '.join(names) or 'nothing'}, got "
            f"{', '.join(given or {}) or 'nothing'}: {which}"
        )
    return given or {}


def save_picture(run: Run, name: str, figure: Figure, out: Path | None = None) -> None:
    """A picture among those of the run, or in a file elsewhere."""
    path = run.figures / f"{name}.png" if out is None else out
    if path.suffix != ".png":
        raise InputError(f"--out expects a .png file, got {path}")
    plots.save(figure, path)
    print(path)
