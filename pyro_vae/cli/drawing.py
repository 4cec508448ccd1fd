"""What is drawn at the end of a training: an error there costs no run."""

import warnings
from collections.abc import Callable

import torch
from matplotlib.figure import Figure

from pyro_vae import plots, reports
from pyro_vae.cli.samples import draw_rows, write_rows
from pyro_vae.columns import words_of
from pyro_vae.data import DataFacts, Dataset
from pyro_vae.data.cells import write_cells
from pyro_vae.errors import InputError, one_line
from pyro_vae.pages import looking
from pyro_vae.randomness import own_randomness
from pyro_vae.storage.files import write
from pyro_vae.storage.runs import Run
from pyro_vae.training import Epoch, History
from pyro_vae.vae import JointProgram

#: Pictures drawn, and data reconstructed; and dots per inch, so that both take a quarter of a second.
_SAMPLES, _RECONSTRUCTED, _SCALE = 64, 20, 2 / 3
#: Rows of a table in samples.csv, as by `pyro-vae sample`, and data worked on at once.
_ROWS, _AT_ONCE = 100, 1000

Figures = dict[str, Figure]


def draw(run: Run, vae: JointProgram, data: Dataset, history: History, seed: int) -> Figures:
    """The pictures of a run, written into its folder; of a table rows and codes as CSV, too."""
    columns = {name: history.column(name) for name in Epoch._fields}
    figures = {"history": plots.history(columns, density=not vae.no_evidence)}
    plots.save(figures["history"], run.folder / "history.png")

    def attempt(what: str, make: Callable[[], Figures]) -> None:
        try:
            with own_randomness(seed, vae.device):
                made = make()
                for name, figure in made.items():
                    plots.save(figure, run.figures / f"{name}.png", scale=_SCALE)
        except InputError:  # a program that cannot
            return
        except Exception as error:
            warnings.warn(f"no {what}: {type(error).__name__}: {one_line(error)}", stacklevel=2)
        else:
            figures.update(made)

    if data.columns:
        attempt("rows drawn from the model", lambda: _rows(run, vae, data))
        attempt("codes", lambda: _codes(run, vae, data))
    else:
        facts = DataFacts.of(data)
        attempt("picture of samples", lambda: {"samples": looking.samples(vae, facts, _SAMPLES)})
        attempt(
            "picture of reconstructions",
            lambda: {"reconstructions": looking.reconstructions(vae, data, _RECONSTRUCTED)},
        )
    return figures


def _rows(run: Run, vae: JointProgram, data: Dataset) -> Figures:
    """samples.csv, and draws beside the training data."""
    draws = draw_rows(vae, _ROWS)
    write_rows(run.folder / "samples.csv", draws[:_ROWS], data.columns)
    marginals, pairs = looking.figures_of_rows(draws, data.columns, data)
    return {"marginals": marginals} | ({"pairs": pairs} if pairs is not None else {})


def _codes(run: Run, vae: JointProgram, data: Dataset) -> Figures:
    """codes.csv: the rows of the held-out data, each with mean and standard deviation of its code."""
    part, found = getattr(data, reports.held_out(data)), []
    for rows in torch.arange(len(part)).split(_AT_ONCE):
        found.append(torch.cat(vae.place(part.take(rows)).offer(vae.codes), -1).cpu())
    codes = torch.cat(found)
    axes = range(codes.shape[1] // 2)
    names = [*(f"mean_{axis}" for axis in axes), *(f"scale_{axis}" for axis in axes)]
    cells = words_of(part.take().x.numpy(), data.columns)
    rows = [[*row, *map(repr, code)] for row, code in zip(cells, codes.tolist(), strict=True)]
    write(run.folder / "codes.csv", write_cells([*(each.name for each in data.columns), *names], rows))
    return {}
