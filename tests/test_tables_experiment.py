"""The experiment tables: its numbers on known answers, its smoke run, its committed results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import pyro_vae as pv
from experiments.records import finished
from experiments.tables import baselines
from experiments.tables.data import table_of
from experiments.tables.report import interval, sections, summary, verdict
from experiments.tables.run import HERE, main
from tests.committed import assert_committed


def test_a_normal_in_the_units_of_the_table_is_that_of_scipy() -> None:
    """Standardising and its Jacobian leave a normal what it is, and logarithms make it a log-normal."""
    random = np.random.RandomState(0)
    a, b = random.normal(1000, 30, 600), np.exp(random.normal(3, 0.8, 600))
    parts = [{"a": a[part], "b": b[part]} for part in np.split(np.arange(600), [400, 500])]
    table = pv.Table.from_columns(*parts)
    assert [column.kind for column in table.columns] == ["real", "positive"]
    _, _, found = baselines.chosen(baselines.normals(), table)
    seen = np.stack([a, np.log(b)], 1)
    normal = stats.multivariate_normal(seen[:400].mean(0), np.cov(seen[:400].T, ddof=0))
    expected = normal.logpdf(seen[500:]) - np.log(b[500:])
    assert np.allclose(found, expected, atol=1e-3)


def test_words_have_their_frequencies_and_numbers_a_density_by_class() -> None:
    random = np.random.RandomState(0)
    word = random.randint(0, 2, 900)
    number = random.normal(10 * word, 1)
    names = np.array(["u", "v"])[word]
    parts = [{"w": names[part], "n": number[part]} for part in np.split(np.arange(900), [600, 750])]
    _, found = baselines.by_words(pv.Table.from_columns(*parts), 1)
    expected = np.log(0.5) + stats.norm.logpdf(number[750:], 10 * word[750:])
    assert abs(float(np.mean(found - expected))) < 0.06
    assert np.abs(found - expected).max() < 1


def test_tables_are_split_by_the_seed() -> None:
    one, again, other = (table_of("diabetes", seed) for seed in (0, 0, 1))
    assert tuple(one.sizes) == (310, 66, 66)
    assert one.test.hash() == again.test.hash() != other.test.hash()
    assert "sex" not in [column.name for column in one.columns]


def test_intervals_are_paired_by_split() -> None:
    records: list[Any] = [{"log_p": {"VAE": [level + 1.0], "other": [level]}} for level in (0.0, 50.0, -20.0)]
    assert interval(records, "other") == pytest.approx((1, 1, 1)) and verdict(records, "other") == "better"
    records[0]["log_p"]["other"] = [4.0]
    assert verdict(records, "other") == "within noise"


def test_smoke_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"splits.jsonl", "summary.json", "differences.png"}
    before = (tmp_path / "splits.jsonl").read_bytes()
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "splits.jsonl").read_bytes() == before
    assert "Gaussian mixture" in capsys.readouterr().out


def test_tables_show_the_committed_results() -> None:
    records = finished(HERE / "results" / "splits.jsonl")
    assert_committed(HERE, sections(records), json.loads(json.dumps(summary(records))))
