"""The experiment count_table: its truth against closed forms and draws, and its committed results."""

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import nbinom, poisson

from experiments.count_table import run as experiment
from experiments.count_table.report import SEEDS, sections, summary
from experiments.count_table.setting import MODELS
from experiments.count_table.totals import log_p_of_totals
from experiments.count_table.truth import truth_of
from experiments.records import finished
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent


def test_totals_have_the_law_of_the_closed_form() -> None:
    n = torch.arange(0, 60)
    means = torch.tensor([[1.0, 2.5, 4.0], [3.0, 3.0, 3.0]]).double()
    weights = torch.tensor([0.3, 0.7]).double()
    found = log_p_of_totals(n, means, None, weights.log(), length=256)
    expected = sum(
        w * poisson.pmf(n.numpy(), float(m.sum())) for w, m in zip(weights.tolist(), means, strict=True)
    )
    assert found.exp().numpy() == pytest.approx(expected, abs=1e-12)
    # of one ratio of mean and θ, the sum is negative binomial again
    theta = torch.tensor([0.5, 1.25, 2.0]).double()
    found = log_p_of_totals(n, 2 * theta[None], theta, torch.zeros(1), length=1024)
    assert found.exp().numpy() == pytest.approx(nbinom.pmf(n.numpy(), 3.75, 1 / 3), abs=1e-12)


def test_the_truth_is_a_law_and_that_of_its_draws() -> None:
    truth = truth_of(1, total=3.0)
    x = torch.arange(0, 400).double()[:, None]
    log_px = truth.log_p(x)
    assert float(log_px.exp().sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(truth.log_p_of_totals(x[:, 0]).exp(), log_px.exp(), rtol=0, atol=1e-12)
    drawn, sizes = truth.sample(20_000, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn[:, 0].long(), minlength=5)[:5] / len(drawn)
    assert shares.tolist() == pytest.approx(log_px[:5].exp().tolist(), abs=0.012)
    assert float(sizes.mean()) == pytest.approx(1, abs=0.02)
    given = truth.log_p_given_size(x, torch.full((len(x),), 0.7).double())
    assert float(given.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_one_command_makes_everything_and_goes_on(tmp_path: Path) -> None:
    options = ["--smoke", "--out", str(tmp_path)]
    assert experiment.main(options) == 0
    kept = tmp_path / "models.jsonl"
    lines = kept.read_text().splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    assert set(records) == {"truth", *(f"{name} {seed}" for name in MODELS for seed in SEEDS)}
    assert {path.name for path in tmp_path.iterdir()} == {"models.jsonl", "summary.json", "short.png"}
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert experiment.main(options) == 0
    again = json.loads(kept.read_text().splitlines()[-1])
    assert again["log_p"] == records[again["name"]]["log_p"]


def test_the_committed_tables_show_the_committed_results() -> None:
    records = finished(HERE / "results" / "models.jsonl")
    assert_committed(HERE, sections(records), summary(records))
    for name, model in MODELS.items():  # no model of the counts is above the truth
        for seed in SEEDS:
            assert sum(records[f"{name} {seed}"]["log_p"]) < sum(records["truth"][model.given])
