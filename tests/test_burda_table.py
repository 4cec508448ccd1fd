"""The experiment burda_table: its schedule, a run in pieces, and what its tables say of known numbers."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import pyro_vae as pv
from experiments.burda_table import run as experiment
from experiments.burda_table.report import differences, sections, summary
from experiments.burda_table.run import BUDGETS, Cell, PieceEnded, cells
from experiments.records import finished
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent


def test_the_schedule_is_that_of_the_paper() -> None:
    """3280 epochs, the rate falling by 10^(1/7) after 1, 4, 13, … epochs, from 1e-3 to 1e-4."""
    sizes = BUDGETS["paper"]
    assert sizes.epochs == 3280 and sizes.milestones == [1, 4, 13, 40, 121, 364, 1093]
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, sizes.milestones, gamma=10 ** (-1 / 7))
    rates = []
    for _ in range(sizes.epochs):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    for stage in range(8):
        first = sum(3**i for i in range(stage))
        assert rates[first : first + 3**stage] == pytest.approx([1e-3 * 10 ** (-stage / 7)] * 3**stage)
    assert len(cells(sizes.particles)) == 10


def test_a_run_in_pieces_goes_on_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that ends after each epoch; annealing, which takes long, is stood in for."""

    def annealed(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(estimate=torch.full((3,), -20.0))

    wanted = [Cell(1, "VAE", 1), Cell(1, "IWAE", 2), Cell(2, "VAE", 1)]
    monkeypatch.setattr(experiment, "cells", lambda _: wanted)
    monkeypatch.setattr(pv, "annealed_log_evidence", annealed)
    monkeypatch.chdir(tmp_path)
    words = ["--smoke", "--device", "cpu", "--runs", str(tmp_path / "runs")]
    clock = iter(range(10**6))
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="one after the other"):
        patch.setattr(time, "monotonic", lambda: float(next(clock)) * 40)
        with pytest.raises(PieceEnded):
            experiment.main([*words, "--minutes", "1"])
    with pytest.warns(UserWarning, match="one after the other"):
        assert experiment.main(words) == 0
    records = [json.loads(line) for line in (tmp_path / "runs/results/models.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == [cell.name for cell in wanted]
    for record in records:
        assert record["steps"] == 8 and list(record["seeds"]) == ["seed 0", "seed 1"]
        assert all(len(seed["log_px"]) == 10 for seed in record["seeds"].values())


def record(layers: int, bound: str, particles: int, means: tuple[float, float]) -> dict[str, Any]:
    """Of eleven data around a mean, for two seeds."""
    offsets = [float(place) for place in range(-5, 6)]
    seeds = {
        f"seed {number}": {
            "log_px": [mean + offset for offset in offsets],
            "annealed": [mean + 0.5] * 3,
            "elbo": mean - 1,
            "active": ["z1", "z1", "z2"] if layers == 2 else ["z", "z"],
            "unreliable": 0.25,
        }
        for number, mean in enumerate(means)
    }
    return {"layers": layers, "bound": bound, "particles": particles, "seeds": seeds}


def test_the_tables_say_what_was_measured() -> None:
    found = {
        Cell(layers, bound, k).name: record(layers, bound, k, (mean, mean + 0.2))
        for layers in (1, 2)
        for bound, k, mean in (("VAE", 1, -90.0), ("VAE", 50, -89.5), ("IWAE", 50, -88.0))
    }
    for each in found.values():
        each.update(training_seconds=60.0, steps=8, made={"device": "cpu", "versions": {"torch": "2"}})
        each["about"] = {"data": "D", "protocol": "p", "hash": "h", "sizes": BUDGETS["smoke"]._asdict()}
    gains = differences(found)
    assert gains["1 layer IWAE 50"].mean == pytest.approx(2.0)
    low, high = gains["1 layer IWAE 50"].interval
    # each datum gains the same, so that all uncertainty is that of the seeds: sd 0.1414 of each mean of two
    assert (low + high) / 2 == pytest.approx(2.0) and (high - low) / 2 == pytest.approx(
        4.303 * 0.1414, rel=1e-3
    )
    row = "| 2 | IWAE | 50 | 87.90 ± 0.14 | 91.90 ± 0.14 | 87.40 ± 0.14 | 88.90 ± 0.14 | 2+1, 2+1 | 25 |"
    assert row in sections(found)["table"]
    assert summary(found)["VAE_2"] == 0.5


def test_the_committed_tables_are_those_of_the_committed_records() -> None:
    found = finished(HERE / "results" / "models.jsonl")
    assert_committed(HERE, sections(found), summary(found))
