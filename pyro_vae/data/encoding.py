"""From the cells of a table to x, by its columns, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.columns import WORDS, Column, Columns, Kind, found_column
from pyro_vae.data.cells import Cells
from pyro_vae.data.fields import SPLITS
from pyro_vae.data.kinds import (
    Numerals,
    classes_of,
    encoded,
    find_kind,
    is_identifier,
    kind_named,
    origin_of,
)
from pyro_vae.data.lazy_columns import LazyColumn
from pyro_vae.errors import InputError, warn


def without(parts: Mapping[str, Cells], words: Sequence[str]) -> dict[str, Cells]:
    """Cells of which those that mean missing are empty."""
    missing = {*words}

    def emptied(cells: Cells) -> Cells:
        columns = tuple(
            column.without(missing)
            if isinstance(column, LazyColumn)
            else ["" if word in missing else word for word in column]
            for column in cells.columns
        )
        return replace(cells, columns=columns)

    return {name: emptied(cells) for name, cells in parts.items()}


def split_by(cells: Cells, seed: int) -> dict[str, Cells]:
    """Train, valid and test, by the column `split` where there is one, else 80/10/10 by the seed.

    Raises:
        InputError: where the column has other words, or there are fewer than 10 rows to split.
    """
    if "split" in cells.names:
        words = cells.columns[cells.names.index("split")]
        other = [row for row, word in enumerate(words) if word not in SPLITS]
        if other:
            raise InputError(
                f"expected train, valid or test in the column 'split', got {words[other[0]]!r} in "
                f"{cells.place(other[0])}: rename the column where it means something else"
            )
        rest = cells.chosen([name for name in cells.names if name != "split"])
        places = {split: [row for row, word in enumerate(words) if word == split] for split in SPLITS}
        return {split: rest.rows(places[split]) for split in SPLITS}
    tenth = len(cells) // 10
    if tenth == 0:
        raise InputError(
            f"expected at least 10 rows to split 80/10/10, got {len(cells)} in {cells.where}: give more, or "
            "a column split of the words train, valid and test"
        )
    order = np.random.RandomState(seed).permutation(len(cells)).tolist()
    ends = [len(cells) - 2 * tenth, len(cells) - tenth]
    parts = (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])
    return {split: cells.rows(part) for split, part in zip(SPLITS, parts, strict=True)}


def find_columns(parts: Mapping[str, Cells], kinds: Mapping[str, str], numerals: Numerals) -> Columns:
    """The columns of a table: kinds as named or found, classes of all splits, numbers of the training data.

    Raises:
        InputError: where `kinds` names no column, or a column is of no kind.
    """
    names = [name for name in parts["train"].names if name != "split"]
    unknown = [name for name in kinds if name not in names]
    if unknown:
        raise InputError(
            f"columns expects names of columns, got {unknown[0]!r}: choose among {', '.join(names)}"
        )
    found = []
    for name in names:
        if kind_named(name, kinds.get(name, "real")) != "leave_out":
            found.append(_find(name, kinds.get(name), parts, numerals))
    if not found:
        raise InputError("expected a column that is not left out, got none: leave out fewer")
    return tuple(found)


def _find(name: str, kind: str | None, parts: Mapping[str, Cells], numerals: Numerals) -> Column:
    """One column."""
    of_column = {split: cells.columns[cells.names.index(name)] for split, cells in parts.items()}
    words = [word for column in of_column.values() for word in column if word]
    some_missing = len(words) < sum(map(len, of_column.values()))
    found = find_kind(name, words, numerals, some_missing=some_missing) if words and not kind else "real"
    chosen = cast(Kind, kind) if kind else found
    if words and not kind and is_identifier(name, words, numerals):
        warn(
            f"the column {name!r} has another whole number in each row and is taken as {chosen}: leave it "
            f"out if it only names rows, by columns={{{name!r}: 'leave_out'}} or --data.columns.{name} "
            f"leave_out, or say that it is one, by {chosen!r}"
        )
    classes = classes_of(name, chosen, words, numerals)
    column = Column(name, chosen, classes)
    values = encoded(column, of_column["train"], parts["train"].place, numerals)
    origin = origin_of(column, values)
    return found_column(name, chosen, values - origin, classes, origin)


def rows_of(cells: Cells, columns: Columns, numerals: Numerals) -> NDArray[np.float32]:
    """Cells as x (N, D).

    Raises:
        InputError: where a word is none of its column, or a row has no entry.
    """
    chosen = cells.chosen([column.name for column in columns])
    rows = np.empty((len(cells), len(columns)), np.float32)
    for place, (column, words) in enumerate(zip(columns, chosen.columns, strict=True)):
        rows[:, place] = encoded(column, words, cells.place, numerals) - column.origin
    empty = np.flatnonzero(np.isnan(rows).all(1))
    if len(empty):
        raise InputError(
            f"expected an entry in each row, got {len(empty)} without any, the first in "
            f"{cells.place(int(empty[0]))}: leave them out"
        )
    return rows


def labels_of(
    values: Mapping[str, NDArray[np.float32]], columns: Columns, label: str | None
) -> dict[str, Any]:
    """The labels of each split, as `Dataset` takes them.

    Raises:
        InputError: where the label is no column of classes, or is missing in a row.
    """
    if label is None:
        return {}
    place = next((i for i, each in enumerate(columns) if each.name == label and each.kind in WORDS), None)
    if place is None:
        names = [each.name for each in columns if each.kind in WORDS]
        raise InputError(
            f"label expects a column of classes, got {label!r}: choose among {', '.join(names) or 'none'}"
        )
    codes = {split: rows[:, place] for split, rows in values.items()}
    if any(np.isnan(each).any() for each in codes.values()):
        raise InputError(f"label expects a column without missing entries, got {label!r}: choose another")
    return {f"{split}_labels": each.astype(np.int64) for split, each in codes.items()}


def to_columns(x: Tensor, columns: Columns) -> dict[str, list[float | int | str | None]]:
    """Rows of x (N, D) in a user's words, by column; None where missing."""
    found: dict[str, list[float | int | str | None]] = {}
    for column, entries in zip(columns, torch.as_tensor(x).detach().cpu().T.tolist(), strict=True):
        words = [column.word(entry) for entry in entries]
        found[column.name] = [_value(column, word) for word in words]
    return found


def _value(column: Column, word: str) -> float | int | str | None:
    if not word:
        return None
    if column.kind in WORDS:
        return word
    return int(float(word)) if column.kind == "count" else float(word)
