"""`pyro-vae sample` of a table: rows in a user's words, and their pictures."""

from pathlib import Path

from pyro_vae import plots
from pyro_vae.cli.loading import TrainedRun
from pyro_vae.columns import words_of
from pyro_vae.data.cells import write_cells
from pyro_vae.errors import InputError, count
from pyro_vae.pages import looking
from pyro_vae.storage.files import write

#: Rows drawn for a picture.
_DRAWN = 2000


def sample_table(opened: TrainedRun, num: int, out: Path | None) -> None:
    """Draws from p(x) as a CSV, and pictures of them against the training data where these are there."""
    columns, names = opened.facts.columns, opened.vae.conditions
    if names:
        raise InputError(f"rows are drawn from p(x), got a model that depends on {', '.join(names)}")
    if out is not None and out.suffix != ".csv":
        raise InputError(f"--out expects a .csv file for the rows of a table, got {out}")
    draws = opened.vae.sample(max(count("num", num), _DRAWN)).cpu()
    rows = words_of(draws[:num].numpy(), columns)
    path = out or opened.run.folder / "samples.csv"
    write(path, write_cells([column.name for column in columns], rows))
    print(path)
    if out is None:
        marginals, pairs = looking.figures_of_rows(draws, columns, opened.data_at_hand())
        for name, figure in {"marginals": marginals, "pairs": pairs}.items():
            if figure is not None:
                picture = opened.run.figures / f"{name}.png"
                plots.save(figure, picture)
                print(picture)
