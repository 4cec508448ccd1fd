"""`pyro-vae sample` of a table: rows in a user's words, and their pictures."""

from pathlib import Path

from torch import Tensor

from pyro_vae import plots
from pyro_vae.cli.loading import TrainedRun
from pyro_vae.columns import Columns, words_of
from pyro_vae.data.cells import write_cells
from pyro_vae.errors import InputError, count
from pyro_vae.pages import looking
from pyro_vae.storage.files import write
from pyro_vae.vae import JointProgram

#: Rows drawn for a picture.
_DRAWN = 2000


def sample_table(opened: TrainedRun, num: int, out: Path | None) -> None:
    """Draws from p(x) as a CSV, and pictures of them against the training data where these are there."""
    columns = opened.facts.columns
    if out is not None and out.suffix != ".csv":
        raise InputError(f"--out expects a .csv file for the rows of a table, got {out}")
    draws = draw_rows(opened.vae, count("num", num))
    path = out or opened.run.folder / "samples.csv"
    write_rows(path, draws[:num], columns)
    print(path)
    if out is None:
        marginals, pairs = looking.figures_of_rows(draws, columns, opened.data_at_hand())
        for name, figure in {"marginals": marginals, "pairs": pairs}.items():
            if figure is not None:
                picture = opened.run.figures / f"{name}.png"
                plots.save(figure, picture)
                print(picture)


def draw_rows(vae: JointProgram, num: int) -> Tensor:
    """So many draws from p(x) or more, as many as a picture needs: (M, D).

    Raises:
        InputError: where the model depends on something beside z.
    """
    if vae.conditions:
        raise InputError(f"rows are drawn from p(x), got a model that depends on {', '.join(vae.conditions)}")
    return vae.sample(max(num, _DRAWN)).cpu()


def write_rows(path: Path, rows: Tensor, columns: Columns) -> None:
    """Rows as a CSV, in the words of their columns."""
    write(path, write_cells([column.name for column in columns], words_of(rows.numpy(), columns)))
