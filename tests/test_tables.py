"""Tables from files as people have them: the right table, or one line that says what is wrong."""

import csv
import importlib.util
import io
import json
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.columns import words_of
from pyro_vae.data import DataFacts
from tests.commands import arrays_in

from .commands import SMALL, Run
from .components import refused

QUICK = ("--epochs", "2", "--batch_size", "40", *SMALL)

#: By row: a real number, a count, a truth value, a category, a positive number.
HEADER = "height,visits,smokes,city,income"


def some_rows(num: int = 120, holes: float = 0.1) -> list[list[str]]:
    """Cells of a mixed table, in which all columns depend on one number."""
    random = np.random.RandomState(0)
    z = random.normal(size=num)
    columns = [
        [f"{170 + 8 * a + 3 * e:.1f}" for a, e in zip(z, random.normal(size=num), strict=True)],
        [str(n) for n in random.poisson(np.exp(1 + z))],
        ["yes" if u < 1 / (1 + np.exp(-2 * a)) else "no" for a, u in zip(z, random.rand(num), strict=True)],
        [("Bonn", "Kiel", "Ulm, old")[min(2, int(abs(a) * 2))] for a in z],
        [f"{np.exp(8 + a):.2f}" for a in z],
    ]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for row in rows:
        for place in range(5):
            if random.rand() < holes:
                row[place] = ""
    return [row for row in rows if any(row)]


def written(path: Path, header: str = HEADER, rows: Iterable[Iterable[str]] = (), **style: Any) -> Path:
    """A CSV."""
    text = io.StringIO()
    csv.writer(text, **{"lineterminator": "\n", **style}).writerows([header.split(","), *rows])
    path.write_text(text.getvalue())
    return path


def cells_in(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("tables") / "people.csv", rows=some_rows())


def kinds(table: pv.Table) -> dict[str, str]:
    return {column.name: column.kind for column in table.columns}


def table_of(tmp_path: Path, text: str | bytes, **options: Any) -> pv.Table:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return pv.Table(path, **options)


def column_of(words: Iterable[object], **options: Any) -> pv.Table:
    """A table of one column `a`, in training, validation and test data alike."""
    words = list(words)
    return pv.Table.from_columns({"a": words}, {"a": words}, {"a": words}, **options)


def test_kinds_are_found_and_printed(file: Path) -> None:
    table = pv.Table(file)
    assert list(kinds(table).values()) == ["real", "count", "yes_no", "category", "positive"]
    assert (table.sizes, table.data_shape, table.levels) == (pv.data.Sizes(96, 12, 12), (5,), None)
    lines = str(table.schema).splitlines()
    assert lines[2] == "smokes  yes_no    no or yes: no, yes"
    assert lines[3] == "city    category  categories: Bonn, Kiel, Ulm, old"
    assert table.protocol.startswith("a table of 5 columns, 2 continuous (measure ")
    assert table.protocol.endswith(" of 600 entries missing, split by seed 0")
    other = pv.Table(file, columns={"height": "heavy_tailed"})  # another density, by the same measure
    assert other.protocol == table.protocol
    assert pv.Table(file, columns={"visits": "real"}).protocol != table.protocol
    x = table.train.batch()
    height = x[:, 0][~x[:, 0].isnan()].double()
    assert table.columns[0].location == pytest.approx(float(height.mean()), rel=1e-6)
    assert table.columns[0].scale == pytest.approx(float(height.std(correction=0)), rel=1e-5)


def test_from_a_file_to_codes_and_back_to_the_file(file: Path, tmp_path: Path) -> None:
    table = pv.Table(file)
    order = np.random.RandomState(0).permutation(sum(table.sizes)).argsort()
    table.save(table.all.batch()[torch.from_numpy(order)], tmp_path / "again.csv")
    before, after = (cells_in(path) for path in (file, tmp_path / "again.csv"))
    assert before[0] == after[0]
    assert [[_same(cell) for cell in row] for row in before] == [
        [_same(cell) for cell in row] for row in after
    ]
    columns = table.to_columns(table.test.batch())
    again = pv.Table.from_columns(columns, columns, columns).like(table.columns)
    assert np.array_equal(again.test.values.numpy(), table.test.values.numpy(), equal_nan=True)


def _same(cell: str) -> object:
    try:
        return float(cell)
    except ValueError:
        return cell


FEW = [[str(i / 7), word] for i, word in enumerate(["u", "v"] * 10)]


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace(",", " , ").encode(),
        lambda text: text.replace("\n", "\n\n,\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("u", '"u"').encode(),
    ],
    ids=["CRLF", "CR", "BOM", "semicolons", "tabs", "spaces", "empty lines", "no last newline", "quotes"],
)
def test_one_table_in_many_dresses(write: Any, tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.csv", "a,b", FEW)
    table = table_of(tmp_path, write(plain.read_text()))
    expected = pv.Table(plain)
    assert torch.equal(table.all.batch(), expected.all.batch())
    assert table.columns == expected.columns


def test_quotes_hold_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    cells = ["x,y", 'say "so"', "two\nlines", "ü"] * 5
    path = written(tmp_path / "t.csv", "a", [[cell] for cell in cells])
    table = pv.Table(path, columns={"a": "category"})
    assert table.columns[0].classes == tuple(sorted(set(cells)))


@pytest.mark.parametrize(
    ("words", "kind", "values"),
    [
        (["yes", "no", "Yes", ""], "yes_no", [1, 0, 1, None]),
        (["TRUE", "FALSE", "NA", "true"], "yes_no", [1, 0, None, 1]),
        (["0", "1", "1", "?"], "yes_no", [0, 1, 1, None]),
        ([0.0, 1.0, np.nan, 1.0], "yes_no", [0, 1, None, 1]),
        ([True, False, None, True], "yes_no", [1, 0, None, 1]),
        (["y", "n", "y", "n"], "yes_no", [1, 0, 1, 0]),
        (["t", "t", "t", "t"], "category", [0, 0, 0, 0]),
        (["yes", "no", "maybe", "NaN"], "category", [2, 1, 0, None]),
        (["3", "0", "12", "n/a"], "count", [3, 0, 12, None]),
        ([3.0, 0.0, 12.0, np.nan], "count", [3, 0, 12, None]),
        (["3.0", "0.0", "12.0", ""], "count", [3, 0, 12, None]),
        (["3.0", "0.0", "12.0", "5.0"], "real", [3, 0, 12, 5]),
        (["7", "7", "7", "7"], "count", [7, 7, 7, 7]),
        (["5", "6", "6", "5"], "category", [0, 1, 1, 0]),
        (["-3", "0", "12", "NULL"], "real", [-3, 0, 12, None]),
        (["1e3", "+.5", "2.", "-1E-2"], "real", [1000, 0.5, 2, -0.01]),
        (["20000000", "0", "5", "7"], "real", [2e7, 0, 5, 7]),
        (["10", "9", "A", "9"], "category", [0, 1, 2, 1]),
        (["b", "a", "b", "c"], "category", [1, 0, 1, 2]),
    ],
)
def test_words_become_numbers(words: list[object], kind: str, values: list[float | None]) -> None:
    table = pv.Table.from_columns({"a": words, "b": [0.5, 0.1, 0.7, 0.2]}, {"a": words, "b": [1.5] * 4})
    assert kinds(table)["a"] == kind
    found = [None if np.isnan(x) else x for x in table.train.batch()[:, 0].tolist()]
    assert found == pytest.approx(values)


def test_skewed_positive_numbers_are_seen_by_their_logarithms() -> None:
    numbers = np.exp(np.random.RandomState(0).normal(3, 1, 50))
    assert kinds(column_of(numbers)) == {"a": "positive"}
    assert kinds(column_of(numbers, columns={"a": "heavy_tailed"})) == {"a": "heavy_tailed"}
    assert kinds(column_of(-numbers)) == {"a": "real"}


@pytest.mark.parametrize(
    ("name", "numbers", "warned"),
    [
        ("row", range(1, 61), True),
        ("row", reversed(range(60)), True),
        ("patientID", range(3, 600, 7), False),  # only where a word ends there
        ("patient_id", range(3, 600, 7), True),
        ("income", range(3, 600, 7), False),
        ("id", [1, *range(1, 60)], False),
        ("id", range(15), False),
        ("user id", [-5.5, *range(60)], False),
    ],
)
def test_numbers_that_name_rows_are_pointed_out(
    name: str, numbers: Iterable[float], warned: bool, tmp_path: Path
) -> None:
    rows = [(str(number), f"{0.37 * place:.2f}") for place, number in enumerate(numbers)]
    path = written(tmp_path / "rows.csv", f"{name},x", rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pv.Table(path)
    assert len(caught) == warned
    if warned:
        assert f"by columns={{{name!r}: 'leave_out'}}" in str(caught[0].message)
        for named in ("leave_out", "count"):  # after which there is nothing to say
            pv.Table(path, columns={name: named})


def test_an_identifier_beyond_all_numbers_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.csv", "id,x", [(f"{n}", f"{n}.5") for n in range(30)] + [("1e400", "1.5")]
    )
    with refused(r"expected numbers up to 3e38 in the column 'id', line 32 of .*, got 1e400"):
        pv.Table(path)


def test_kinds_are_changed_by_name() -> None:
    table = pv.Table.from_columns(
        {"zip": range(10_000, 10_100), "sex": ["m", "f"] * 50, "id": range(100)},
        columns={"zip": "real", "sex": "yes_no", "id": "leave_out"},
    )
    assert kinds(table) == {"zip": "real", "sex": "yes_no"}
    assert table.columns[1].classes == ("f", "m")
    with refused("columns expects names of columns, got 'sxe': choose among sex, id"):
        pv.Table.from_columns({"sex": ["m", "f"] * 50, "id": range(100)}, columns={"sxe": "count"})
    with refused("columns expects real, heavy_tailed, .* or leave_out for 'a', got 'reel'"):
        column_of(range(30), columns={"a": "reel"})
    with refused("expected two words in the column 'a' of yes_no, got 3: make it a category"):
        column_of("xyz" * 10, columns={"a": "yes_no"})
    with refused("expected a column that is not left out, got none"):
        column_of(range(30), columns={"a": "leave_out"})


BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "expected a table with a header in .*table.csv, got an empty file"),
    "header alone": ("a,b\n", "expected at least 10 rows to split 80/10/10, got 0 in .*table.csv: give more"),
    "few rows": ("a\n1.5\n2.5\n", "expected at least 10 rows to split 80/10/10, got 2"),
    "no header": (
        "1,2\n3,4\n",
        "expected names of columns in the first line of .*, got the numbers '1', '2': put",
    ),
    "name twice": ("a,b,a\n1,2,3\n", "expected each name once in .*table.csv, got 'a' twice: rename one"),
    "no name": (",b\n1,2\n", "expected a name for each column of .*, got none for column 1: name it"),
    "too many cells": (
        "a,b\n1,2\n3,4,5\n",
        "expected 2 cells in each line of .*, got 3 in line 3: quote cells",
    ),
    "too few cells": ("a,b\n1,2\n\n3\n", "expected 2 cells in each line of .*table.csv, got 1 in line 4"),
    "open quote": (
        'a,b\n"1,2\n',
        r"expected a readable file, got .* \(Error: unexpected end of data\): close all",
    ),
    "Latin-1": (
        "a\nü\n".encode("latin-1"),
        "expected a readable file, got .*UnicodeDecodeError.*: write .* UTF-8",
    ),
    "binary": (b"PK\x03\x04\xff\xfe", "expected a readable file, got .*UnicodeDecodeError"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_table_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    with refused(words) as caught:
        table_of(tmp_path, text)
    assert "\n" not in str(caught.value)


COLUMNS: dict[str, tuple[list[str], str]] = {
    "constant": (
        ["1.5"] * 30,
        "expected numbers that vary in the column 'a' .*, got 1.5 only, which has no dens",
    ),
    "all missing": (
        ["", "NA"] * 15,
        "expected an entry in the column 'a' of the training data, got none: leave",
    ),
    "dates": ([f"2024-01-{i:02}" for i in range(1, 31)], "got dates as '2024-01-..': write them as numbers"),
    "German dates": ([f"{i}.1.2024" for i in range(1, 31)], "got dates as '.*.1.2024'"),
    "names": (
        [f"name {i}" for i in range(60)],
        "got 60 different words in 60 rows, as of names: leave it out",
    ),
    "thousands": (
        ["1,234"] + ["5.5"] * 29,
        "got '1,234': say what its comma means, as by thousands=',' or dec",
    ),
    "decimal commas": ([f"{i},5" for i in range(30)], "got '.*,5': say what its comma means"),
    "a word among numbers": (
        [f"{i}.5" for i in range(30)] + ["unknown"],
        "expected numbers in the column 'a', got 'unknown', too: name it among the missing_words",
    ),
    "infinity": ([f"{i}.5" for i in range(30)] + ["inf"], "got 'inf', too"),
    "beyond float32": (
        ["1e39", "1.5"] * 15,
        "expected numbers up to 3e38 in the column 'a', row .*, got 1e39",
    ),
    "huge integers": (
        [str(2**60 + i) for i in range(30)],
        r"expected whole numbers up to 2\*\*53 .*, as of a name",
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_without_a_law_is_refused_in_one_line(name: str) -> None:
    words, text = COLUMNS[name]
    with refused(text) as caught:
        pv.Table.from_columns({"a": words, "b": range(len(words))})
    assert "\n" not in str(caught.value)


def test_thousands_and_decimal_commas_are_read_where_they_are_named(tmp_path: Path) -> None:
    rows = [[f"{i}.234,5", "x"] for i in range(1, 31)]
    path = written(tmp_path / "t.csv", "a,b", rows, delimiter=";")
    path.write_text(path.read_text().replace("a,b", "a;b"))
    table = pv.Table(path, decimal=",", thousands=".")
    assert sorted(table.all.batch()[:, 0].tolist()) == [1000 * i + 234.5 for i in range(1, 31)]
    quoted = written(tmp_path / "q.csv", "a,b", [[f"{i},000", "x"] for i in range(1, 31)])
    assert kinds(pv.Table(quoted, thousands=",")) == {"a": "count", "b": "category"}
    with refused("expected two signs, got ',' as decimal and between thousands"):
        pv.Table(path, decimal=",", thousands=",")
    with refused("expected '.' or ',' as the decimal sign"):
        pv.Table(path, decimal="·")
    with refused("separator expects one character, got '::'"):
        pv.Table(path, separator="::")


def test_a_row_without_any_entry_is_refused_with_its_line(tmp_path: Path) -> None:
    with refused(
        "expected an entry in each row, got 1 without any, the first in line 4 of .*: leave them out"
    ):
        table_of(tmp_path, "a,b\n1.5,x\n2.5,y\nNA,?\n" + "3.5,x\n" * 20)
    table = table_of(tmp_path, "a,b\n1.5,x\n2.5,y\n-999,x\n" + "3.5,x\n" * 20, missing_words=("-999",))
    assert table.all.batch().isnan().sum() == 1


def test_splits_are_by_a_column_or_by_files_or_by_the_seed(tmp_path: Path) -> None:
    rows = [[str(i / 3), ("train", "train", "valid", "test")[i % 4]] for i in range(20)]
    table = pv.Table(written(tmp_path / "t.csv", "a,split", rows))
    assert (tuple(table.sizes), kinds(table)) == ((10, 5, 5), {"a": "real"})
    assert table.protocol.startswith("a table of 1 columns, 1 continuous (measure ")
    folder = tmp_path / "folder"
    folder.mkdir()
    for split, number in (("train", 12), ("test", 3)):
        written(folder / f"{split}.csv", "a,b", [[str(i / 3), "u" * (1 + i % 2)] for i in range(number)])
    assert tuple(pv.Table(folder).sizes) == (12, 0, 3)
    with refused("expected train.csv, and valid.csv or test.csv, in the folder"):
        pv.Table(tmp_path / "folder" / "..")
    written(folder / "test.csv", "a,c", [["1.5", "u"]])
    with refused("expected in .*test.csv the columns of the training data, 'a', 'b', got 'a', 'c': bring"):
        pv.Table(folder)
    with refused("expected train, valid or test in the column 'split', got 'holdout' in line 3 of"):
        pv.Table(written(tmp_path / "t.csv", "a,split", [["1.5", "train"], ["2.5", "holdout"]]))
    one, other = (pv.Table.from_columns({"a": np.arange(50) / 7}, seed=seed) for seed in (0, 1))
    assert one.test.hash() != other.test.hash()
    with refused("expected a seed from 0"):
        pv.Table.from_columns({"a": np.arange(50) / 7}, seed=-1)


def test_what_is_no_file_of_a_table_is_refused(tmp_path: Path) -> None:
    with refused("expected the file .*absent.csv, found none: check the path"):
        pv.Table(tmp_path / "absent.csv")
    with refused("expected a table as .csv, .tsv, .txt, .parquet, .pq, got .*t.xlsx: write it as CSV"):
        pv.Table(tmp_path / "t.xlsx")
    with refused("expected a mapping from names to arrays, or a DataFrame, got a list"):
        pv.Table.from_columns([[1, 2]])
    with refused("expected columns of one length, got {'a': 2, 'b': 3}"):
        pv.Table.from_columns({"a": [1, 2], "b": [1, 2, 3]})
    with refused(r"expected one number or word in each row of 'a', got shape \(2, 2\)"):
        pv.Table.from_columns({"a": np.zeros((2, 2))})


def test_parquet_needs_pandas(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    text = "expected pandas and pyarrow, .* got neither: pip install 'pyro_vae.tables.'"
    with refused(text if importlib.util.find_spec("pandas") is None else "expected a readable file"):
        pv.Table(path)


def test_a_frame_and_a_parquet_file_give_the_same_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "n": pandas.array([1, None, 9, 4] * 10, "Int64"),
            "b": [True, False, True, None] * 10,
            "c": pandas.Categorical(["x", "y", None, "x"] * 10),
            "f": np.arange(40) / 7,
        }
    )
    table = pv.Table.from_columns(frame)
    assert kinds(table) == {"n": "count", "b": "yes_no", "c": "category", "f": "real"}
    frame.to_parquet(tmp_path / "t.parquet")
    assert pv.Table(tmp_path / "t.parquet").test.hash() == table.test.hash()
    frame["c"] = pandas.date_range("2024-01-01", periods=40)
    with refused("got dates as '2024-"):
        pv.Table.from_columns(frame)


def test_times_in_seconds_keep_their_digits() -> None:
    times = 1.6e9 + np.arange(100) * 0.25
    table = column_of(times)
    column = table.columns[0]
    assert abs(column.origin - times.mean()) < 20
    assert [float(word) for word in table.to_columns(table.train.batch())["a"]] == times.tolist()  # type: ignore[arg-type]
    assert "less 1600000012 in x" in str(table.schema)
    small = column_of(times - 1.6e9, columns={"a": "real"})
    assert small.columns[0].origin == 0
    log_p = []
    for each in (table, small):
        torch.manual_seed(0)
        vae = pv.assemble(each, latent_dim=1, network=pv.MLP((4,)))
        log_p.append(vae.likelihood(torch.zeros(100, 1)).log_prob(each.train.batch()))
    torch.testing.assert_close(log_p[0], log_p[1], rtol=1e-4, atol=1e-4)
    with refused("expected positive numbers that float32 tells apart in the column 'a', got a spread of 7.2"):
        column_of(times, columns={"a": "positive"})


def test_new_data_are_read_by_the_columns_of_the_training(file: Path, tmp_path: Path) -> None:
    table = pv.Table(file)
    new = written(
        tmp_path / "new.csv",
        "city,height,extra,visits,smokes,income",
        [["Kiel", "", "!", "4", "YES", "3"]] * 10,
    )
    x = pv.Table(new, columns={"extra": "leave_out", "height": "leave_out"})
    assert kinds(x)["city"] == "category"
    found = pv.Table(new, columns={"height": "leave_out"}).like(table.columns).train.batch()[0]
    assert found[1:].tolist() == [4, 1, 1, 3] and bool(found[0].isnan())
    for word, place, text in (
        (
            "Rome",
            0,
            "expected one of Bonn, Kiel, Ulm, old in the column 'city', line 2 of .*, got 'Rome', which is",
        ),
        (
            "-1",
            3,
            "expected a count from 0 to 16777215 in the column 'visits', line 2 of .*, got -1: correct it",
        ),
        ("maybe", 4, "expected one of no, yes in the column 'smokes', line 2 of .*, got 'maybe'"),
        ("0", 5, "expected a positive number in the column 'income', line 2 of .*, got 0"),
        ("tall", 1, "expected a number in the column 'height', line 2 of .*, got 'tall': name it among"),
        ("1,5", 1, "got '1,5': say what its comma means"),
    ):
        row = ["Kiel", "170", "!", "4", "no", "3"]
        row[place] = word
        with refused(text):
            pv.data.rows_in(
                written(tmp_path / "bad.csv", "city,height,extra,visits,smokes,income", [row]), table.columns
            )
    with refused("expected the column 'height' in .*less.csv, got 'city': name the columns as in training"):
        pv.data.rows_in(written(tmp_path / "less.csv", "city", [["Kiel"]]), table.columns)


def test_facts_hold_the_columns(file: Path) -> None:
    table = pv.Table(file)
    facts = DataFacts.of(table)
    again = DataFacts.from_plain(json.loads(json.dumps(facts.plain())))
    assert again.columns == table.columns
    torch.manual_seed(0)
    one = pv.assemble(table, latent_dim=2, network=pv.MLP((4,)))
    other = pv.assemble(again, latent_dim=2, network=pv.MLP((4,)))
    other.load_state_dict(one.state_dict())
    x = table.test.batch()
    z = torch.zeros(len(x), 2)
    assert torch.equal(one.likelihood(z).log_prob(x), other.likelihood(z).log_prob(x))
    for spoil in ({"kind": "tall"}, {"scale": 0.0}, {"classes": ["a"]}, {"name": 3}, {"location": "1"}):
        plain = json.loads(json.dumps(facts.plain()))
        plain["columns"][0] |= spoil
        with refused("expected facts about data, got something else"):
            DataFacts.from_plain(plain)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sees_mask": True, "network": pv.GatedMLP((8,))},
        {"prior": partial(pv.VampPrior, components=20)},
        {"prior": pv.FlowPrior, "posterior": pv.FlowPosterior},
        {"program": pv.HierarchicalVAE, "latent_dim": (3, 2)},
    ],
    ids=["plain", "mask", "VampPrior", "flows", "layers"],
)
def test_all_parts_train_on_a_table(options: Any, file: Path) -> None:
    table = pv.Table(file)
    vae = pv.assemble(table, **{"latent_dim": 2, "network": pv.MLP((8,)), **options})
    history = pv.fit(vae, table, epochs=1, batch_size=48, compile="off")
    assert all(np.isfinite(history.column("valid_elbo")))
    found = pv.evaluate(vae, table, particles=20)
    assert found.content["units"] == (
        "nats per datum, of a density of 2 of 5 columns in their own units, times a probability of the others"
    )
    drawn = vae.sample(50)
    vae.check(drawn)
    assert all(len(column) == 50 for column in table.to_columns(drawn).values())


def test_the_flat_graph_takes_the_steps_of_pyro(file: Path) -> None:
    table, found = pv.Table(file), []
    for compile in ("off", "flat"):
        torch.manual_seed(0)
        vae = pv.assemble(table, latent_dim=2, network=pv.MLP((8,)), sees_mask=True)
        pv.fit(vae, table, epochs=3, batch_size=32, compile=compile)
        found.append(torch.cat([each.flatten() for each in vae.parameters()]))
    assert torch.equal(*found)


def test_a_table_of_truth_values_has_a_probability() -> None:
    random = np.random.RandomState(0)
    table = pv.Table.from_columns({name: random.randint(0, 2, 60) for name in "abc"})
    vae = pv.assemble(table, latent_dim=1, network=pv.MLP((4,)))
    assert pv.evaluate(vae, table, particles=10).content["units"] == "nats per datum"
    bernoulli = pv.assemble(table, latent_dim=1, network=pv.MLP((4,)), likelihood=pv.BernoulliLikelihood)
    assert pv.evaluate(bernoulli, table, particles=10).content["units"] == "nats per datum"
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    total = pv.log_evidence(vae.model, vae.guide, patterns, num_particles=4000).estimate.exp().sum()
    assert float(total) == pytest.approx(1, abs=0.02)


def test_other_likelihoods_are_taken_or_refused(file: Path) -> None:
    table = pv.Table(file)
    with refused(
        "NormalLikelihood is of numbers, got a table with the category 'city': use ColumnsLikelihood"
    ):
        pv.assemble(table, likelihood=pv.NormalLikelihood)
    with refused("Autoencoder has no likelihood for the columns of a table: use VAE"):
        pv.assemble(table, program=pv.Autoencoder)
    with refused(r"expected a column for each entry of data of shape \(1, 8, 8\), got 0: use a Table"):
        pv.assemble(pv.Digits(), likelihood=pv.ColumnsLikelihood)
    numbers = pv.SklearnTable("wine", columns={"cultivar": "leave_out"})
    vae = pv.assemble(numbers, likelihood=pv.NormalLikelihood, network=pv.MLP((4,)))
    assert isinstance(vae.likelihood, pv.ObservedLikelihood)
    assert pv.evaluate(vae, numbers, particles=5).content["units"] == "nats per datum, of a density"


@pytest.mark.parametrize(
    ("name", "sizes", "last"),
    [
        ("wine", (144, 17, 17), ("cultivar", "category")),
        ("breast_cancer", (457, 56, 56), ("diagnosis", "category")),
        ("diabetes", (354, 44, 44), ("progression", "real")),
    ],
)
def test_tables_of_sklearn(name: Any, sizes: tuple[int, ...], last: tuple[str, str]) -> None:
    table = pv.SklearnTable(name)
    assert tuple(table.sizes) == sizes
    assert (table.columns[-1].name, table.columns[-1].kind) == last
    assert (table.train.labels is None) == (name == "diabetes")
    with refused("name expects wine, breast_cancer, diabetes, got 'iris'"):
        pv.SklearnTable("iris")  # type: ignore[arg-type]


def test_labels_are_a_column_of_classes(file: Path, tmp_path: Path) -> None:
    rows = [[str(i / 7), "ab"[i % 2], str(i // 2)] for i in range(30)]
    path = written(tmp_path / "t.csv", "x,c,n", rows)
    table = pv.Table(path, label="c")
    assert table.train.labels is not None and torch.equal(
        table.train.labels, table.train.batch()[:, 1].long()
    )
    with refused("label expects a column of classes, got 'n': choose among c"):
        pv.Table(path, label="n")
    with refused("label expects a column without missing entries, got 'city'"):
        pv.Table(file, label="city")


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the table."""
    folder = tmp_path_factory.mktemp("runs") / "people"
    assert (
        pv.cli.main(["train", "--data", "Table", "--data.path", str(file), *QUICK, "--out", str(folder)]) == 0
    )
    return folder


def test_a_table_is_trained_on_without_naming_a_likelihood(pyro_vae: Run, file: Path) -> None:
    command = ("train", "--data", "Table", "--data.path", file, *QUICK)
    status, out, err = pyro_vae(*command, "--out", "run", "--data.columns.visits", "real")
    assert (status, err) == (0, "")
    assert "visits  real      real numbers, mean" in out
    assert "units          nats per datum, of a density of 3 of 5 columns in their own units, times" in out
    assert "pyro_vae.ColumnsLikelihood" in Path("run/config.yaml").read_text()
    status, out, err = pyro_vae(
        *command, "--likelihood.densities.visits", "PoissonColumns", "--out", "poisson"
    )
    assert (status, err) == (0, "")
    status, _, err = pyro_vae(*command, "--likelihood", "NormalLikelihood")
    assert status == 2 and "NormalLikelihood is of numbers, got a table with the category 'city'" in err


def test_a_training_draws_rows_and_codes(run: Path, pyro_vae: Run) -> None:
    assert {path.name for path in (run / "figures").iterdir()} >= {"marginals.png", "pairs.png"}
    assert not (run / "figures" / "samples.png").exists()
    opened = pv.load(run)
    data = opened.data()
    header, *cells = cells_in(run / "codes.csv")
    mean, scale = opened.vae.codes(data.test.batch())
    axes = range(mean.shape[1])
    names = [*(f"mean_{axis}" for axis in axes), *(f"scale_{axis}" for axis in axes)]
    assert header == [*HEADER.split(","), *names]
    found = torch.tensor([[float(cell) for cell in row[len(data.columns) :]] for row in cells])
    torch.testing.assert_close(found, torch.cat([mean, scale], 1))
    assert [row[: len(data.columns)] for row in cells] == words_of(data.test.batch().numpy(), data.columns)
    drawn = (run / "samples.csv").read_text()
    assert len(drawn.splitlines()) == 101
    assert pyro_vae("sample", run)[0] == 0  # the same draws, by the same seed
    assert (run / "samples.csv").read_text() == drawn


def test_commands_on_a_table(run: Path, file: Path, pyro_vae: Run) -> None:
    new = ("evaluate", run, "--particles", "20", "--data", "Table", "--data.path", file)
    status, out, err = pyro_vae(*new)
    assert (status, err) == (0, "") and "of 600 entries of the all data, left out of p(x)" in out
    status, out, _ = pyro_vae("sample", run, "--num", "7")
    assert status == 0 and len(out.split()) == 3
    header, *cells = cells_in(run / "samples.csv")
    rows = [dict(zip(header, row, strict=True)) for row in cells]
    assert len(rows) == 7 and {row["smokes"] for row in rows} <= {"no", "yes"}
    assert all(row["city"] in ("Bonn", "Kiel", "Ulm, old") and row["visits"].isdigit() for row in rows)
    status, out, _ = pyro_vae("sample", run, "--out", "rows.csv")
    assert (status, out) == (0, "rows.csv\n") and len(Path("rows.csv").read_text().splitlines()) == 101
    assert "expects a .csv" in pyro_vae("sample", run, "--out", "rows.png")[2]
    for verb in ("reconstruct", "traverse", "interpolate"):
        assert "expected a run on pictures, got one on a table" in pyro_vae(verb, run)[2]


def test_new_rows_are_scored_encoded_and_filled(run: Path, pyro_vae: Run) -> None:
    cells = some_rows(40, holes=0.25)[:20]
    new = written(Path("new.csv"), rows=cells)
    status, out, err = pyro_vae("score", run, new, "--particles", "20")
    assert (status, err) == (0, "") and len(out.splitlines()) == 21
    opened = pv.load(run)
    rows = torch.from_numpy(pv.data.rows_in(new, opened.facts.columns))
    np.save("new.npy", rows.numpy())
    assert pyro_vae("score", run, "new.npy", "--particles", "20")[1] == out
    assert pyro_vae("encode", run, new)[0] == 0
    status, out, _ = pyro_vae("impute", run, new, "--out", "filled.csv", "--particles", "50")
    assert (status, out) == (0, "filled.csv\n")
    filled = cells_in(Path("filled.csv"))
    assert filled[0] == HEADER.split(",")
    for before, after in zip(cells, filled[1:], strict=True):
        assert all(new == old for old, new in zip(before, after, strict=True) if old)
        assert "" not in after and after[1].isdigit() and after[2] in ("no", "yes")
        assert after[3] in ("Bonn", "Kiel", "Ulm, old") and float(after[4]) > 0
    assert pyro_vae("impute", run, new, "--out", "filled.npz", "--particles", "50")[0] == 0
    assert bool(np.isfinite(arrays_in("filled.npz")["filled"]).all())
    written(Path("bad.csv"), rows=[["170", "1", "no", "Rome", "3"]])
    status, _, err = pyro_vae("score", run, "bad.csv")
    assert (
        status == 2 and "expected one of Bonn, Kiel, Ulm, old in the column 'city', line 2 of bad.csv" in err
    )
    assert err.count("\n") == 1
    status, _, err = pyro_vae("evaluate", run, "--data", "Digits")
    assert status == 2 and "expected a table as in training, got Digits" in err


def test_pictures_of_rows(file: Path) -> None:
    table = pv.Table(file)
    x: Tensor = table.train.batch()
    assert len(plots.marginals(x.nan_to_num(1.0), table.columns, x).axes) >= 5
    assert len(plots.pairs(x.nan_to_num(1.0), table.columns).axes) == 25
    assert len(plots.pairs(x.nan_to_num(1.0), table.columns, x, names=["height", "city"]).axes) == 4
    assert len(plots.marginals(x, table.columns, x, panels=3).axes) >= 3
    with refused("pairs expects names of two columns or more, got height"):
        plots.pairs(x, table.columns, names=["height"])
    with refused(r"expected rows of 5 columns, got \(96, 4\)"):
        plots.marginals(x[:, :4], table.columns)
