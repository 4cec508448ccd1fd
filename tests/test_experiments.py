"""Each experiment runs for one step or epoch on the embedded data."""

import json
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from experiments.evaluation import run as evaluation
from experiments.evaluation.report import sections as evaluation_sections
from experiments.evaluation.report import summary as evaluation_summary
from experiments.local_proposals import report as local_report
from experiments.local_proposals import run as local_proposals
from experiments.markdown import insert
from experiments.records import finished
from experiments.swap import run as swap
from experiments.swap.cells import LIKELIHOODS, POSTERIORS, PRIORS, PROTOCOLS, Cell, cells, settings
from experiments.swap.report import difference, sections, summary
from experiments.swap.results import Results
from pyro_vae.cli import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SWAP = EXPERIMENTS / "swap"
EVALUATION = EXPERIMENTS / "evaluation"
LOCAL = EXPERIMENTS / "local_proposals"


@pytest.mark.parametrize(
    "config", sorted(EXPERIMENTS.rglob("config*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_configurations_train(config: Path, tmp_path: Path) -> None:
    options = ["--data", "Digits", "--steps", "2", "--particles", "5", "--out", str(tmp_path / "run")]
    assert main(["train", "--trust", "experiments", "--config", str(config), *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["training"]["steps"] == 2


def test_burda_reference_in_plain_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = EXPERIMENTS / "burda_mnist" / "reference.py", tmp_path / "reference.json"
    for kl in ("sampled", "closed"):
        options = ["--smoke", "--epochs", "1", "--particles", "5", "--kl", kl, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [str(script), *options])
        runpy.run_path(str(script), run_name="__main__")
        assert -45 < json.loads(out.read_text())["log_evidence"] < -25


def test_the_reference_measures_what_the_library_measures() -> None:
    """The two estimates of one model, copied parameter by parameter, agree within their errors."""

    plain_class = runpy.run_path(str(EXPERIMENTS / "burda_mnist" / "reference.py"))["PlainVAE"]
    data = pv.Digits()
    vae = pv.assemble(data, latent_dim=5)
    plain = plain_class(64, 5)
    # tanh-bounded log-scales: equal to the plain ones within 1e-3 where they are small
    with torch.no_grad():
        for ours, theirs in ((vae.posterior.encoder, plain.encoder), (vae.likelihood.decoder, plain.decoder)):
            for layer in (0, 2):
                theirs[layer].load_state_dict(ours.layers[layer + 1].state_dict())
        heads = (vae.posterior.loc.layers[1], vae.posterior.log_scale.layers[1])
        plain.encoder[4].weight.copy_(torch.cat([head.weight for head in heads]))
        plain.encoder[4].bias.copy_(torch.cat([head.bias for head in heads]))
        plain.decoder[4].load_state_dict(vae.likelihood.logits.layers[1].state_dict())
    x = data.test.batch()[:50]
    result = pv.log_evidence(vae.model, vae.guide, x, num_particles=2000)
    assert (
        (result.estimate - plain.log_evidence(x.flatten(1), 2000)).abs() < 6 * result.standard_error
    ).all()
    terms = pv.elbo(vae.model, vae.guide, x, num_particles=300).elbo.mean()
    for closed in (True, False):
        elbo = torch.stack([plain.elbo(x.flatten(1), closed) for _ in range(300)]).mean()
        assert abs(elbo - terms) < 0.02


HANDMADE = ("burda_mnist", "learned_priors", "mnist")  # whose tables no report renders


@pytest.mark.parametrize(
    "path", [path for name in HANDMADE for path in sorted((EXPERIMENTS / name / "results").glob("*.json"))]
)
def test_tables_show_the_committed_results(path: Path) -> None:
    found = json.loads(path.read_text())["log_evidence"]
    estimate = found["estimate" if "estimate" in found else "mean"] if isinstance(found, dict) else found
    assert f"−{abs(estimate):.2f}" in (path.parents[1] / "README.md").read_text()


@pytest.fixture
def swap_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The command in this process, its workers a thread of it; returns its status."""
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(swap, "ProcessPoolExecutor", lambda jobs, *_, **__: ThreadPoolExecutor(jobs))
    torch.set_num_threads(1)  # as a worker

    def run(*options: object) -> int:
        monkeypatch.setattr(sys, "argv", ["run.py", "--smoke", "--jobs", "1", *map(str, options)])
        return swap.main()

    yield run
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


def test_swap_trains_each_part_once_and_goes_on_where_it_stopped(
    tmp_path: Path,
    swap_here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It names a cell that fails, and trains the others."""
    out = tmp_path / "results"
    assert swap_here("--out", out) == 0
    kept = out / "cells.jsonl"
    lines = kept.read_text().splitlines()
    found = [Cell(*json.loads(line)["cell"]) for line in lines]
    assert {cell.prior for cell in found} == set(PRIORS)
    assert {cell.posterior for cell in found} == set(POSTERIORS)
    assert {cell.likelihood for cell in found} == set(LIKELIHOODS)
    assert {path.name for path in out.iterdir()} == {
        "cells.jsonl",
        "summary.json",
        "grid.png",
        "likelihoods.png",
    }

    assert [cell.prior for cell in found[:3]] == ["Laplace", "Student's t", "VampPrior"]
    kept.write_text("\n".join(lines[3:]) + "\n")
    monkeypatch.setitem(PRIORS, "Laplace", fails)
    assert swap_here("--out", out) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "failed: Laplace, seed 0: ZeroDivisionError: broken"
    renewed = kept.read_text().splitlines()
    assert renewed[2:] == lines[3:]
    for before, after in zip(lines[1:3], renewed[:2], strict=True):
        assert json.loads(after)["cell"] == json.loads(before)["cell"]
        assert json.loads(after)["per_datum"] == json.loads(before)["per_datum"]

    results = Results(kept)
    other = PROTOCOLS["grid"]._replace(epochs=3, particles=5)
    with pytest.raises(pv.InputError, match="made with epochs 2, got 3: choose another folder with --out"):
        results.todo([(cell, other) for cell in found[1:]])
    for cell in [*results.records]:  # the tables do without any one of them
        record = results.records.pop(cell)
        assert "–" in sections(results)[cell.part]
        results.records[cell] = record


def fails(latent_dim: int) -> pv.Prior:
    raise ZeroDivisionError("broken")


def test_swap_differences_hold_over_data_and_seeds() -> None:
    random = np.random.RandomState(0)
    reference = random.normal(size=(3, 300)) + random.normal(scale=10, size=300)
    mean, low, high = difference(reference + 1, reference)
    assert mean == pytest.approx(1) and low < 1 < high
    seeds = np.array([[-1.0], [0.0], [1.0]])
    _, wide_low, wide_high = difference(reference + 1 + seeds, reference)
    assert wide_low < 0 < wide_high and wide_high - wide_low > 3 * (high - low)
    # of one seed, Student's interval over the data
    paired = pv.comparison.paired_difference(reference[1], reference[0])
    found = difference(reference[1:2], reference[:1])
    assert found == pytest.approx((paired[0], *paired[1]))


def test_swap_shows_its_committed_results() -> None:
    results = Results(SWAP / "results" / "cells.jsonl")
    wanted = [(cell, PROTOCOLS[cell.part]) for cell in cells(3)]
    assert set(results.records) == {cell for cell, _ in wanted}
    assert results.todo(wanted) == []
    for cell, record in results.records.items():
        assert record["settings"] == settings(cell, PROTOCOLS[cell.part])
        assert len(record["per_datum"]) == 300
        assert np.mean(record["per_datum"]) == pytest.approx(record["log_evidence"], abs=0.005)
    assert json.loads((SWAP / "results" / "summary.json").read_text()) == summary(results)
    readme = (SWAP / "README.md").read_text()
    found = sections(results)
    assert insert(readme, found) == readme
    assert all(f"<!-- {name} -->\n\n{section}\n" in readme for name, section in found.items())


def test_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    trained, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", "--steps", "2", "--particles", "5", "--out", str(trained)]) == 0
    options = [str(trained), "--smoke", "--out", str(out), "--num-data"]
    assert evaluation.main([*options, "3"]) == 0
    kept = out / "estimates.jsonl"
    lines = kept.read_text().splitlines()
    assert {path.name for path in out.iterdir()} == {"estimates.jsonl", "summary.json", "bounds.png"}
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert evaluation.main([*options, "3"]) == 0
    renewed = kept.read_text().splitlines()
    assert renewed[:-1] == lines[:-1]
    assert json.loads(renewed[-1])["gap"] == json.loads(lines[-1])["gap"]
    with pytest.raises(pv.InputError, match="choose another folder with --out"):
        evaluation.main([*options, "2"])


def test_local_proposals_go_on_and_show_their_committed_results(tmp_path: Path) -> None:
    trained, out = tmp_path / "run", tmp_path / "out"
    assert main(["train", "--steps", "2", "--particles", "5", "--out", str(trained)]) == 0
    options = [str(trained), "--num-data", "3", "--temperatures", "4", "--particles", "30", "--out", str(out)]
    assert local_proposals.main(options) == 0
    found = finished(out / "run.jsonl")
    assert list(found) == ["elbo", "guide", "local", "annealed from the prior"]
    assert local_proposals.main([*options, "--starts", "prior", "guide"]) == 0
    again = finished(out / "run.jsonl")
    assert [*again][:-1] == [*found] and all(again[name] == found[name] for name in found)
    assert sorted(path.name for path in out.iterdir()) == ["estimates.png", "run.jsonl", "summary.json"]
    committed = LOCAL / "results"
    models = {path.stem: finished(path) for path in sorted(committed.glob("*.jsonl"))}
    assert json.loads((committed / "summary.json").read_text()) == local_report.summary(models)
    readme = (LOCAL / "README.md").read_text()
    for name, section in local_report.sections(models).items():
        assert f"<!-- {name} -->\n\n{section}\n" in readme


def test_evaluation_shows_its_committed_results() -> None:
    text = (EVALUATION / "results" / "estimates.jsonl").read_text()
    records = {record["name"]: record for record in map(json.loads, text.splitlines())}
    assert json.loads((EVALUATION / "results" / "summary.json").read_text()) == evaluation_summary(records)
    readme = (EVALUATION / "README.md").read_text()
    found = evaluation_sections(records)
    assert insert(readme, found) == readme
    assert all(f"<!-- {name} -->\n\n{section}\n" in readme for name, section in found.items())
    gap = records["bidirectional 10000"]
    assert np.mean(gap["upper"]) - np.mean(gap["lower"]) == pytest.approx(np.mean(gap["gap"]), abs=1e-5)
