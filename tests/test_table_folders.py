"""Folders of Parquet files: the table that they make one below the other, with one column in memory."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyro_vae as pv
from pyro_vae.data.cells import Cells
from pyro_vae.data.encoding import find_columns, rows_of, split_by, without
from pyro_vae.data.kinds import Numerals
from pyro_vae.data.lazy_columns import LazyColumn
from pyro_vae.data.table_folders import cells_in

from .components import refused

WORDS = {
    "height": [f"{150 + 7 * (n % 11) / 3:.2f}" for n in range(40)],
    "visits": [str(n * n % 13) for n in range(40)],
    "city": ["Bonn" if n % 3 else "?" if n % 2 else "Kiel" for n in range(40)],
}


def lazy(words: Any, read: list[str], name: str) -> LazyColumn:
    def words_of_file() -> Any:
        read.append(name)
        return words

    return LazyColumn(words_of_file, len(words))


def test_columns_that_are_not_held_give_the_same_table() -> None:
    """Kinds, classes, splits and x, read column by column."""
    read: list[str] = []
    columns = {
        "held": tuple(WORDS.values()),
        "not": tuple(lazy(words, read, name) for name, words in WORDS.items()),
    }
    found = {}
    for name, each in columns.items():
        cells = Cells(tuple(WORDS), each, range(40), "t", unit="row")
        parts = split_by(without({"all": cells}, ("?",))["all"], 3)
        of_table = find_columns(parts, {"visits": "real"}, Numerals())
        found[name] = of_table, [rows_of(part, of_table, Numerals()) for part in parts.values()]
    assert found["held"][0] == found["not"][0] and len(found["held"][0]) == 3
    assert found["held"][0][2].classes == ("Bonn", "Kiel")
    for one, other in zip(found["held"][1], found["not"][1], strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    order = list(dict.fromkeys(read))
    last = [len(read) - 1 - read[::-1].index(name) for name in order]
    assert order == [*WORDS] and last == sorted(last)  # none is needed again before the next


@pytest.fixture
def pandas() -> Any:
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas")


def frame_of(pandas: Any, num: int = 60) -> Any:
    random = np.random.RandomState(0)
    return pandas.DataFrame(
        {
            "n": pandas.array([None if n % 7 == 3 else n * n % 12 for n in range(num)], "Int64"),
            "holes": [np.nan if n > 50 else float(n % 9) for n in range(num)],
            "yes": [bool(n % 3) for n in range(num)],
            "city": pandas.Categorical([None if n == 4 else "ABC"[n * n % 3] for n in range(num)]),
            "f": random.normal(size=num),
            "word": [("NA", "x", "y")[n % 3] for n in range(num)],
        }
    )


def shards(frame: Any, folder: Path, cuts: tuple[int, ...] = (7, 7, 52)) -> Path:
    """Of several row groups each, one without rows."""
    folder.mkdir(parents=True)
    ends = (0, *cuts, len(frame))
    for number, (start, end) in enumerate(pairwise(ends)):
        part = frame.iloc[start:end]
        if start > 51:
            part = part.assign(n=part["n"].astype("float64"))  # as pandas writes whole numbers with holes
        part.to_parquet(folder / f"part-{number:03}.parquet", row_group_size=5)
    (folder / ".part-000.parquet").write_bytes(b"left behind")
    return folder


def same(one: pv.Table, other: pv.Table) -> None:
    assert one.columns == other.columns and one.sizes == other.sizes and one.protocol == other.protocol
    for name in ("train", "valid", "test"):
        assert getattr(one, name).hash() == getattr(other, name).hash()
        assert getattr(one, name).labels.equal(getattr(other, name).labels)


@pytest.mark.parametrize("by_column", [False, True])
def test_shards_are_the_table_that_they_make(tmp_path: Path, pandas: Any, by_column: bool) -> None:
    frame = frame_of(pandas)
    if by_column:
        frame["split"] = ["valid" if n % 10 == 4 else "test" if n % 10 == 5 else "train" for n in range(60)]
    frame.to_parquet(tmp_path / "t.parquet")
    options: dict[str, Any] = {"seed": 5, "label": "yes", "columns": {"f": "heavy_tailed"}}
    files = pv.Table(shards(frame, tmp_path / "a"), **options)
    memory = pv.Table(tmp_path / "t.parquet", **options)
    same(files, memory)
    kinds = ["count", "count", "yes_no", "category", "heavy_tailed", "category"]
    assert [each.kind for each in memory.columns] == kinds
    assert files.like(memory.columns).test.hash() == memory.test.hash()


def test_splits_are_folders_of_shards(tmp_path: Path, pandas: Any) -> None:
    frame = frame_of(pandas)
    parts = {"train": frame[:40], "valid": frame[40:50], "test": frame[50:]}
    (tmp_path / "files").mkdir()
    for name, part in parts.items():
        shards(part, tmp_path / "a" / name, (3,))
        part.to_parquet(tmp_path / "files" / f"{name}.parquet")
    options: dict[str, Any] = {"label": "yes"}
    same(pv.Table(tmp_path / "a", **options), pv.Table(tmp_path / "files", **options))
    with refused(r"expected train.csv, .* in the folder .*, or .parquet files"):
        (tmp_path / "a" / "train").rename(tmp_path / "a" / "others")
        pv.Table(tmp_path / "a")


def test_one_column_of_the_files_is_read_at_a_time(
    tmp_path: Path, pandas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, read_parquet = [], pandas.read_parquet

    def counted(file: Path, columns: Any = None) -> Any:
        read.append((file.name, *columns))
        return read_parquet(file, columns=columns)

    monkeypatch.setattr(pandas, "read_parquet", counted)
    frame = frame_of(pandas)
    pv.Table(shards(frame, tmp_path / "a"))
    names = [*dict.fromkeys(name for _, name in read)]
    assert names == [*frame] and all(len(each) == 2 for each in read)
    # from four files: to find the columns, and for x of each split
    assert len(read) == 4 * len(frame.columns) * (1 + 3)


def test_files_that_do_not_fit_are_named(tmp_path: Path, pandas: Any) -> None:
    frame = frame_of(pandas)
    folder = shards(frame, tmp_path / "a")
    frame[:5].rename(columns={"f": "g"}).to_parquet(folder / "part-001.parquet")
    with refused(r"expected in .*part-001.parquet the columns of part-000.parquet, 'n', .* got .*'g'"):
        pv.Table(folder)
    (folder / "part-001.parquet").write_bytes(b"PAR1")
    with refused("expected a readable file.*part-001.parquet"):
        pv.Table(folder)
    frame[:5].to_parquet(folder / "part-001.parquet")
    cells = cells_in(folder)["all"]
    frame[:4].to_parquet(folder / "part-001.parquet")
    with refused("expected 5 rows in .*part-001.parquet, as when it was opened"):
        list(cells.columns[0])
