"""Folders of tables: a file of each split, or shards in Parquet, of which one column is held at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_vae.data.cells import (
    PARQUET,
    SUFFIXES,
    Cells,
    checked_names,
    listed,
    read_cells,
    without_parquet,
    words_in,
)
from pyro_vae.data.fields import SPLITS
from pyro_vae.data.lazy_columns import LazyColumn
from pyro_vae.data.reading import reading
from pyro_vae.errors import InputError


def cells_in(path: Path, separator: str | None = None) -> Mapping[str, Cells]:
    """Cells by split: of a folder, those of its files or folders train, valid and test; else all as `all`.

    A folder of other `.parquet` files, in the order of their names, is the table that they make one below the
    other; so is each of the folders train, valid and test.

    Raises:
        InputError: as `read_cells`; where a folder has no training data, or its files have other columns.
    """
    if not path.is_dir():
        return {"all": read_cells(path, separator)}
    found = {split: cells for split in SPLITS if (cells := _of_split(path, split, separator)) is not None}
    if not found and (shards := _shards(path)):
        return {"all": cells_of_shards(shards, path)}
    if "train" not in found:
        raise InputError(
            f"expected train.csv, and valid.csv or test.csv, in the folder {path}, or .parquet files: name a "
            "file"
        )
    names = found["train"].names
    for cells in found.values():
        if sorted(cells.names) != sorted(names):
            raise InputError(
                f"expected in {cells.where} the columns of the training data, {listed(names)}, got "
                f"{listed(cells.names)}: bring the files to one form"
            )
    return {split: cells.chosen(names) for split, cells in found.items()}


def _of_split(path: Path, split: str, separator: str | None) -> Cells | None:
    """The file of a split, or the shards in its folder; None where there are none."""
    files = [path / f"{split}{suffix}" for suffix in SUFFIXES]
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        return read_cells(file, separator)
    shards = _shards(path / split)
    return cells_of_shards(shards, path / split) if shards else None


def _shards(folder: Path) -> list[Path]:
    """In the order of their names; hidden ones, as others leave them behind, are none."""
    files = (path for suffix in PARQUET for path in folder.glob(f"*{suffix}"))
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def cells_of_shards(files: Sequence[Path], folder: Path) -> Cells:
    """The table that Parquet files make one below the other; its columns are read where they are used.

    Raises:
        InputError: where one is damaged, or has other columns than the first; Parquet without pandas.
    """
    shards = _Shards(files)
    total = sum(shards.rows)
    columns = tuple(_column(shards, key, total) for key in shards.keys)
    names = checked_names([str(key).strip() for key in shards.keys], str(folder))
    return Cells(names, columns, range(total), str(folder), unit="row")


def _column(shards: "_Shards", key: Any, total: int) -> LazyColumn:
    return LazyColumn(lambda: shards.words(key), total)


class _Shards:
    """Parquet files of the same columns.

    Args:
        files: One or more, in their order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        opened = [self._opened(file) for file in files]
        self.keys, self.rows = opened[0][0], [rows for _, rows in opened]
        for file, (keys, _) in zip(files, opened, strict=True):
            if sorted(map(str, keys)) != sorted(map(str, self.keys)):
                raise InputError(
                    f"expected in {file} the columns of {files[0].name}, {listed([*map(str, self.keys)])}, "
                    f"got {listed([*map(str, keys)])}: bring all files of the folder to one form"
                )
        #: The column that was used last.
        self._held: tuple[Any, tuple[str, ...]] | None = None

    @staticmethod
    def _opened(file: Path) -> tuple[list[Any], int]:
        """Names of the columns, an index left out, and number of rows, by the end of the file alone."""
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise without_parquet(file) from error
        with reading(file, "write the table anew"):
            opened = parquet.ParquetFile(file)
            names = list(opened.schema_arrow.empty_table().to_pandas().columns)
            return names, opened.metadata.num_rows

    def words(self, key: Any) -> tuple[str, ...]:
        """A column of all files, as it would be in one."""
        if self._held is None or self._held[0] != key:
            self._held = key, self._read(key)
        return self._held[1]

    def _read(self, key: Any) -> tuple[str, ...]:
        import pandas

        parts = []
        for file, rows in zip(self.files, self.rows, strict=True):
            with reading(file, "write the table anew"):
                parts.append(pandas.read_parquet(file, columns=[key])[key])
            if len(parts[-1]) != rows:
                raise InputError(f"expected {rows} rows in {file}, as when it was opened: put it back")
        full = [part for part in parts if len(part)] or parts
        return words_in(pandas.concat(full, ignore_index=True), str(key))
