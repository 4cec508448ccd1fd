"""Cells of a table as they are written: read from CSV and Parquet, or made of arrays."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.lazy_columns import LazyColumn
from pyro_vae.data.reading import existing, reading
from pyro_vae.errors import InputError, shortened

#: Words for an entry that is missing, beside an empty cell.
MISSING_WORDS = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?", "<NA>", "NaT")

_SEPARATORS = (",", ";", "\t", "|")
_TEXT = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")

#: Kinds of files that are tables.
SUFFIXES = (*_TEXT, *PARQUET)


@dataclass(frozen=True, eq=False)
class Cells:
    """A table of words.

    Attributes:
        names: Of the D columns.
        columns: D lists of N words each, without spaces around them.
        lines: The line of each row in its file; of columns in memory, its number from 0.
        where: What the table is called in messages.
        unit: What a row is called there.
    """

    names: tuple[str, ...]
    columns: tuple[Sequence[str], ...]
    lines: Sequence[int]
    where: str
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.unit} {self.lines[row]} of {self.where}"

    def chosen(self, names: Sequence[str]) -> "Cells":
        """Columns of these names, in their order.

        Raises:
            InputError: where there is none of a name.
        """
        lacking = [name for name in names if name not in self.names]
        if lacking:
            raise InputError(
                f"expected the column {lacking[0]!r} in {self.where}, got {listed(self.names)}: name the "
                "columns as in training"
            )
        columns = tuple(self.columns[self.names.index(name)] for name in names)
        return replace(self, names=tuple(names), columns=columns)

    def rows(self, index: Sequence[int]) -> "Cells":
        """Some of the rows."""
        columns = tuple(
            column.rows(index) if isinstance(column, LazyColumn) else [column[i] for i in index]
            for column in self.columns
        )
        return replace(self, columns=columns, lines=[self.lines[i] for i in index])


def read_cells(path: Path, separator: str | None = None) -> Cells:
    """The cells of a CSV or a Parquet file.

    Args:
        path: `.csv`, `.tsv` or `.txt`, in UTF-8, with a header; or `.parquet`, by pandas.
        separator: Between cells; None finds a comma, a semicolon, a tab or a bar in the header.

    Raises:
        InputError: The file is missing, no text or damaged; a name is missing or there twice; a line has
            another number of cells than the header; Parquet without pandas.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"expected a table as {', '.join(SUFFIXES)}, got {path}: write it as CSV")
    existing(path, "check the path")
    if path.suffix.lower() in PARQUET:
        return _read_parquet(path)
    with reading(path, "write the table as CSV in UTF-8"):
        text = path.read_bytes().decode("utf-8-sig")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"expected a table with a header in {path}, got an empty file: write one")
    return _cells_of_text(text, separator or _separator_of(text), path)


def _cells_of_text(text: str, separator: str, path: Path) -> Cells:
    if len(separator) != 1:
        raise InputError(f"separator expects one character, got {separator!r}")
    rows, lines = [], []
    with reading(path, "close all quotes, and double those inside a cell"):
        reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    header = checked_names(rows[0], str(path))
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise InputError(
                f"expected {len(header)} cells in each line of {path}, got {len(row)} in line {line}: quote "
                f"cells that hold {separator!r}, or give the separator (--data.separator)"
            )
    columns = tuple(zip(*rows[1:], strict=True)) or ((),) * len(header)
    return Cells(header, columns, lines[1:], str(path))


def _separator_of(text: str) -> str:
    """The separator that is most often in the first line that is not empty, outside quotes."""
    first = next(line for line in text.split("\n") if line.strip())
    bare = "".join(first.split('"')[::2])
    return max(_SEPARATORS, key=bare.count)


def checked_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Names of columns, refused where one is missing, there twice, or all are numbers."""
    if "" in names:
        raise InputError(
            f"expected a name for each column of {where}, got none for column {list(names).index('') + 1}: "
            "name it, or leave the column out (of pandas, to_csv(index=False))"
        )
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise InputError(f"expected each name once in {where}, got {twice[0]!r} twice: rename one")
    if names and all(_is_number(name) for name in names):
        raise InputError(
            f"expected names of columns in the first line of {where}, got the numbers {listed(names)}: put "
            "a line of names before them"
        )
    return tuple(names)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def without_parquet(path: Path) -> InputError:
    """The error where what reads a Parquet file, an extra, is not installed."""
    return InputError(
        f"expected pandas and pyarrow, to read {path}, got neither: pip install 'pyro_vae[tables]', or write "
        "the table as CSV"
    )


def _read_parquet(path: Path) -> Cells:
    try:
        import pandas
    except ImportError as error:
        raise without_parquet(path) from error
    with reading(path, "pip install 'pyro_vae[tables]', or write the table as CSV"):
        frame = pandas.read_parquet(path)
    return cells_of(frame, str(path))


def cells_of(table: Any, where: str = "the columns") -> Cells:
    """Cells of columns in memory: a mapping from names to arrays (N,), or a pandas DataFrame.

    None, NaN and pandas' NA are missing. Floats that are whole, some of them missing, are whole numbers,
    since pandas has no others.

    Raises:
        InputError: where it is neither, a name is there twice, or arrays are not of one length.

    >>> cells_of({"age": [3, None], "name": ["a", "b"]}).columns
    (('3', ''), ('a', 'b'))
    """
    if not hasattr(table, "keys") or not hasattr(table, "__getitem__"):
        raise InputError(
            f"expected a mapping from names to arrays, or a DataFrame, got a {type(table).__name__}: use dict"
        )
    keys = list(table.keys())
    names = checked_names([str(name).strip() for name in keys], where)
    columns = tuple(words_in(table[key], name) for key, name in zip(keys, names, strict=True))
    sizes = {name: len(words) for name, words in zip(names, columns, strict=True)}
    if len(set(sizes.values())) != 1:
        raise InputError(f"expected columns of one length, got {shortened(sizes)}: take all from one source")
    return Cells(names, columns, range(len(columns[0])), where, unit="row")


def words_in(array: Any, name: str) -> tuple[str, ...]:
    """The words of a column in memory, "" where one is missing."""
    if isinstance(array, Tensor):
        array = array.detach().cpu().numpy()
    values = np.asarray(array)
    if values.ndim != 1:
        raise InputError(f"expected one number or word in each row of {name!r}, got shape {values.shape}")
    if values.dtype.kind == "f":
        seen = values[np.isfinite(values)]
        whole = len(seen) < len(values) and bool((seen == seen.round()).all() and (abs(seen) < 2**53).all())
        write = (lambda item: str(int(item))) if whole else str
        return tuple(
            "" if item != item else write(item) if np.isfinite(item) else str(item) for item in values
        )
    return tuple("" if _is_missing(item) else str(item).strip() for item in values)


def _is_missing(item: object) -> bool:
    return item is None or str(item) in ("<NA>", "NaT", "nan")


def write_cells(names: Sequence[str], rows: Sequence[Sequence[str]], separator: str = ",") -> bytes:
    r"""A CSV of a header and rows, as bytes in UTF-8.

    >>> write_cells(["a", "b"], [["1", "x,y"]])
    b'a,b\n1,"x,y"\n'
    """
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows([names, *rows])
    return text.getvalue().encode()


def listed(names: Sequence[str]) -> str:
    """Names in a message."""
    return ", ".join(map(repr, names[:8])) + (f", … ({len(names)})" if len(names) > 8 else "")
