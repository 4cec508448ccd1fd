"""The experiment missing_pixels: its holes and scores, its smoke run, its committed results."""

import json
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from experiments.missing_pixels import run as experiment
from experiments.missing_pixels.measuring import of_means, pixel_means, scores
from experiments.missing_pixels.report import SEEDS, sections, summary
from experiments.missing_pixels.setting import MODELS, data_of
from experiments.records import finished
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent


def test_half_of_the_pixels_are_missing_and_the_others_the_same() -> None:
    data = data_of(pv.Digits(), (200, 20, 30))
    for split in ("train", "valid", "test"):
        x, hollow = (getattr(each, split).batch() for each in data)
        missing = hollow.isnan()
        assert float(missing.float().mean()) == pytest.approx(0.5, abs=0.05)
        assert torch.equal(hollow[~missing], x[~missing])
    again = data_of(pv.Digits(form=pv.Static()), (200, 20, 30)).incomplete.test.batch()
    assert torch.equal(again.isnan(), missing)  # which are missing does not depend on the data


def test_scores_and_the_baseline_on_known_numbers() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]])
    mean = torch.tensor([[0.9, 0.4, 0.6, 0.0, 0.0]])
    found = scores(mean, x, torch.tensor([[True, True, True, True, False]]))
    assert found["accuracy"] == 0.5 and found["f1"] == 0.5  # one hit, one miss, one false
    assert found["mse"] == pytest.approx((0.01 + 0.36 + 0.36) / 4)
    data = data_of(pv.Digits(), (100, 20, 10))
    p, hollow = pixel_means(data), data.incomplete.train.batch()
    column = hollow[:, 0, 3, 4]
    ones, number = float(column.nansum()), int((~column.isnan()).sum())
    assert float(p[0, 3, 4]) == pytest.approx((1 + ones) / (2 + number))
    x, seen = data.complete.test.batch()[0], ~data.incomplete.test.batch()[0].isnan()
    each = torch.where(x > 0.5, p, 1 - p).log()
    record = of_means(data)
    assert record["log_px"][0] == pytest.approx(float(each.sum()), abs=2e-3)
    assert record["log_px_observed"][0] == pytest.approx(float(each[seen].sum()), abs=2e-3)


def test_one_command_makes_everything_and_goes_on(tmp_path: Path) -> None:
    options = ["--smoke", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert experiment.main(options) == 0
    kept = tmp_path / "out" / "models.jsonl"
    lines = kept.read_text().splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    assert set(records) == {"means", *(f"{name} {seed}" for name in MODELS for seed in SEEDS)}
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"models.jsonl", "annealed.jsonl", "summary.json", "filled.png"}
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert experiment.main(options) == 0
    again = json.loads(kept.read_text().splitlines()[-1])
    assert again["log_px"] == records[again["name"]]["log_px"]  # of the model that was kept


def test_the_committed_tables_show_the_committed_results() -> None:
    records, checks = (finished(HERE / "results" / name) for name in ("models.jsonl", "annealed.jsonl"))
    found = records | {f"annealed {name}": record for name, record in checks.items()}
    assert_committed(HERE, sections(found), summary(found))
