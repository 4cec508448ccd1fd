"""Files of new rows, read and written by the columns of the table of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_vae.columns import Columns
from pyro_vae.data.cells import MISSING_WORDS, SUFFIXES, read_cells, write_cells
from pyro_vae.data.encoding import rows_of, without
from pyro_vae.data.kinds import Numerals


def is_table(path: Path) -> bool:
    """Whether a file is one of a table, by its name."""
    return path.suffix.lower() in SUFFIXES


def rows_in(
    path: Path,
    columns: Columns,
    *,
    decimal: str = ".",
    thousands: str = "",
    missing_words: Sequence[str] = MISSING_WORDS,
) -> NDArray[np.float32]:
    """The rows of a file as x (N, D), by the columns of another table.

    Args:
        path: A `.csv`, `.tsv`, `.txt` or `.parquet` that has these columns, and others or not.
        columns: Of the training.
        decimal: The decimal sign.
        thousands: The sign between thousands.
        missing_words: What means missing, beside an empty cell.

    Raises:
        InputError: as `Table`; where a column is not there, or a word is none of its kind and classes.
    """
    cells = without({"all": read_cells(path)}, missing_words)["all"]
    return rows_of(cells, columns, Numerals(decimal, thousands))


def filled_cells(
    path: Path, columns: Columns, filled: NDArray[Any], missing_words: Sequence[str] = MISSING_WORDS
) -> bytes:
    """The table of a file as CSV, with words in the place of missing entries; all else as it was.

    Args:
        path: Of the file.
        columns: Of the training.
        filled: (N, D), x with numbers in the place of what was missing.
        missing_words: What means missing, beside an empty cell.
    """
    cells = without({"all": read_cells(path)}, missing_words)["all"]
    words = {name: list(column) for name, column in zip(cells.names, cells.columns, strict=True)}
    for place, column in enumerate(columns):
        of_column = words[column.name]
        for row in [row for row, word in enumerate(of_column) if not word]:
            of_column[row] = column.word(float(filled[row, place]))
    return write_cells(cells.names, list(zip(*words.values(), strict=True)))
