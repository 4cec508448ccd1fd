"""The benchmarks' harness: what it counts, how it compares, and that it runs. No time is asserted."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from experiments.benchmarks import annealing, beyond_memory, bfloat16, cases, imports, seeds, ways
from experiments.benchmarks.cases import CASES, MLP, SMALL, SMOKE, Case, case_flops, flops, step_products
from experiments.benchmarks.contender import Task
from experiments.benchmarks.registry import VARIANTS, Variant, chosen, missing, reference
from experiments.benchmarks.report import number, of_kind, sections
from experiments.benchmarks.run import main
from experiments.benchmarks.summary import TARGETS, Target, answer, fastest, floor, ratio, spread
from experiments.benchmarks.variants import own, plain, plain_evidence, pyro_evidence
from experiments.benchmarks.worker import moved

RUN = Path(__file__).parents[1] / "experiments" / "benchmarks" / "run.py"


def test_flops_of_a_step_by_hand() -> None:
    weights = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
    by_hand = 2 * 128 * (3 * weights - 784 * 400)  # forward, both gradients, but not that of x
    assert flops(step_products(MLP, 128)) == case_flops(CASES["mlp-128"]) == by_hand
    assert by_hand / 1e9 == pytest.approx(0.42, abs=0.001)
    assert case_flops(CASES["evidence"]) == 2 * 400 * 5000 * (20 * 400 + 400 * 784)


def test_convolutions_are_the_products_that_they_are_by_im2col() -> None:
    network = SMOKE["smoke-conv"].network
    forward = [layer.product(5) for layer in (*cases.encoder(network), *cases.decoder(network))]
    assert forward == [
        *((5 * 16, 9, 2), (5 * 4, 18, 3), (5, 12, 8), (5, 8, 4)),
        *((5, 2, 12), (5 * 4, 3, 27), (5 * 16, 3, 18), (5 * 64, 18, 1)),
    ]


@pytest.mark.parametrize("case", [*CASES, *SMOKE])
def test_all_that_is_compared_has_the_same_size(case: str) -> None:
    network = {**CASES, **SMOKE}[case].network
    layers = [*cases.encoder(network), *cases.decoder(network)]
    numbers = sum(weight.size + bias.size for weight, bias in cases.weights(layers, 0))
    for vae in (plain.PlainVAE(network), own.build(network)):
        assert sum(parameter.numel() for parameter in vae.parameters()) == numbers
    assert plain.PlainVAE(network)(torch.zeros(3, *network.data_shape)).isfinite()


def test_estimates_of_log_evidence_share_their_weights() -> None:
    case = Case("evidence", SMALL, 3, 5000)
    task = Task(case, cases.synthetic(SMALL, 3).astype(np.float32), "cpu")
    values = []
    for make in (plain_evidence.eager, pyro_evidence.own):
        contender = make(task)
        contender.run(2)
        values.append(contender.value())
    assert values[0] == pytest.approx(values[1], abs=0.1)


def test_medians_ratios_and_floor() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.5, 2.5)
    assert ratio([1.0, 2.0, 6.0], [4.0, 4.0, 100.0]) == (0.5, 0.375, 1.0)
    assert [number(value) for value in (123.4, 1.234, 0.0123, float("nan"))] == ["123", "1.23", "0.0123", "–"]
    seconds = {
        "PyTorch eager": [2.0],
        "pyro_vae off": [3.0],
        "pyro_vae flat": [1.5],
        "products, torch.mm": [1.0],
        "products, oneDNN": [0.5],
    }
    rows = {name: {"seconds": each} for name, each in seconds.items()}
    record = {"rows": {**rows, "Pythae": {"left_out": "why"}}}
    steps = VARIANTS["steps"]
    assert floor(record, steps) == 0.5
    assert fastest(record, steps) == "pyro_vae flat"
    assert Target("mlp-20", "PyTorch eager", 1.0).reached(record, "pyro_vae flat") == 0.75
    assert np.isnan(Target("mlp-20", "Pythae", 1.0).reached(record, "pyro_vae flat"))
    assert all(target.case in CASES for target in TARGETS)
    assert answer({"mlp-20": record}) == {"eager_least": 0.75, "eager_most": 0.75}
    scanned = {"rows": {**rows, "NumPyro lax.scan": {"seconds": [0.5]}}}
    assert answer({"tiny-20": scanned, "conv-128": scanned})["scan_most"] == 3


def test_the_answer_is_that_of_the_committed_times() -> None:
    folder = RUN.parent / "results" / "cpu"
    records = json.loads((folder / "results.json").read_text())["cases"]
    assert json.loads((folder / "summary.json").read_text()) == answer(of_kind(records, "steps"))


def test_variants_are_chosen_by_words_and_packages() -> None:
    assert chosen("steps", "cpu", ["NumPyro"]) == ["PyTorch eager", "NumPyro jit", "NumPyro lax.scan"]
    assert "PyTorch CUDA graph" not in chosen("steps", "cpu", None)
    assert "products, oneDNN" not in chosen("evidence", "cuda", None)
    assert [reference(kind) for kind in ("steps", "evidence")] == ["PyTorch eager"] * 2
    assert "no_such_package" in missing(Variant("a:b", "", needs=("torch", "no_such_package")))
    assert missing(Variant("a:b", "", needs=("torch",))) == ""


def test_a_variant_that_trains_nothing_is_refused() -> None:
    before, after = [np.zeros(2), np.ones(3)], [np.zeros(2), np.zeros(3)]
    assert moved(before, after) == {"failed": "1 of 2 parameters did not move"}
    assert moved(before, [before[0] + 1, before[1] - [0, 0, 1]]) == {}


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(RUN), "--smoke", *options], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """The command in this process; returns its status."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(RUN), "--smoke", *options])
        return main()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_the_benchmarks_run_and_keep_what_is_finished(
    tmp_path: Path, run_here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    done = run("--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    names = {"results.json", "summary.json", "steps.png", "evidence.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    found = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert list(found) == list(SMOKE)
    for name, record in found.items():
        rows = record["rows"]
        assert not any("failed" in row for row in rows.values())
        assert len(rows["PyTorch eager"]["seconds"]) == record["rounds"] == 2
        if name != "smoke-evidence":
            assert 10 < rows["PyTorch eager"]["value"] < 64
    evidence = found["smoke-evidence"]["rows"]
    assert evidence["PyTorch eager"]["value"] == pytest.approx(
        evidence["pyro_vae log_evidence"]["value"], abs=5
    )
    assert done.stdout.strip() == "\n\n".join(sections(found, "cpu").values()).strip()

    kept = (tmp_path / "results.json").read_bytes()
    assert run_here("--resume", "--out", str(tmp_path)) == 0
    assert (tmp_path / "results.json").read_bytes() == kept
    assert capsys.readouterr().out == done.stdout


def test_a_wrong_word_is_refused_with_what_is_expected(
    tmp_path: Path, run_here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("--out", str(tmp_path), "--cases", "large") == 2
    expected = f"error: --cases expects some of {', '.join(SMOKE)}, got large"
    assert capsys.readouterr().err.strip() == expected


@pytest.mark.parametrize("name", ["PyTorch eager", "pyro_vae off", "Pyro example", "products, torch.mm"])
def test_variants_take_steps_that_move_every_parameter(name: str) -> None:
    module, _, function = VARIANTS["steps"][name].maker.partition(":")
    maker = getattr(import_module(f"experiments.benchmarks.variants.{module}"), function)
    task = Task(SMOKE["smoke-steps"], cases.synthetic(SMALL, 40).astype(np.float32), "cpu")
    contender = maker(task)
    before = contender.parameters()
    contender.run(3)
    assert moved(before, contender.parameters()) == {}
    assert name.startswith("products") or 10 < contender.value() < 64


def test_the_error_of_bfloat16_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    bfloat16.main(epochs=1, particles=100)
    found = re.findall(r"mean ([+-][\d.]+)  largest ([\d.]+) nats, 300 data", capsys.readouterr().out)
    assert len(found) == 2
    assert all(abs(float(mean)) < 0.01 and 0 < float(largest) < 0.1 for mean, largest in found)


def test_annealing_is_timed_next_to_bare_gradients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert annealing.main(["--smoke", "--rounds", "2", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "annealing.json").read_text())["cases"]
    assert capsys.readouterr().out.strip() == annealing.table(found)
    (rows,) = found.values()
    assert all(len(times) == 2 and min(times) > 0 for times in rows.values())


def test_data_in_files_are_timed_next_to_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = {"bytes of files": 20_000_000_000, "seconds of fit": 61.4, "resident at most": 900_000_000}
    rounds = [{"memory": 2.0, "files": files} for files in (2.1, 2.2, 3.0)]
    monkeypatch.setattr(beyond_memory, "memory", lambda *_: used)
    monkeypatch.setattr(beyond_memory, "times", lambda *_, **__: rounds)
    assert beyond_memory.main(["--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "| bytes of files | 20.00 GB |\n| resident at most | 0.90 GB |\n| seconds of fit | 61 |" in shown
    assert "| files over memory: median of the rounds (lowest, highest) | 1.10 (1.05, 1.50) |" in shown
    assert json.loads((tmp_path / "beyond_memory.json").read_text())["rounds"] == rounds


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux counts")
def test_sparse_files_are_trained_on(tmp_path: Path) -> None:
    beyond_memory.sparse(tmp_path, 4_000_000)
    found = beyond_memory.train_on(tmp_path, steps=2)
    assert found["data"] == [1300, 1, 0]
    assert found["resident at most"] >= found["resident after imports"] > 0


def test_seeds_are_timed_next_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ratios are those within a round."""
    taken = iter([10.0, 20.0, 10.0, 40.0, 20.0, 60.0])
    monkeypatch.setattr(seeds, "seconds_of", lambda *_: {"whole": next(taken)})
    assert seeds.main(["--rounds", "3", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "| whole | 10.0 | 40.0 | 3.00 |"
    assert len(json.loads((tmp_path / "seeds.json").read_text())["rounds"]) == 3


def test_the_bare_gradient_is_that_of_the_log_joint() -> None:
    works = annealing.contenders((10,), 2, 3, smoke=True)
    loss, u = works["PyTorch eager"].args  # type: ignore[attr-defined]
    path = works["pyro_vae, compile off"].args[0]  # type: ignore[attr-defined]
    z = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    torch.testing.assert_close(path.force(u, torch.ones(3)), -gradient, rtol=1e-4, atol=1e-4)


def test_imports_are_timed_in_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {imports.REFERENCE: "pass", "import pyro_vae": "import json"}
    monkeypatch.setattr(imports, "PROGRAMS", quick)
    assert imports.main(["--rounds", "2", "--out", str(tmp_path)]) == 0
    times = json.loads((tmp_path / "imports.json").read_text())["times"]
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys(quick, 2)
    assert capsys.readouterr().out.strip() == imports.table(times)
    assert "| `import torch, pyro` |" in imports.table(times)


def test_programs_on_repeated_data_give_the_same_log_p() -> None:
    found = {}
    for name, work in ways.contenders(pv.MLP((10,)), 3, 400).items():
        torch.manual_seed(0)
        found[name] = work()
    estimates = [result.estimate for result in found.values() if isinstance(result, pv.LogEvidence)]
    assert len(estimates) == 3
    for estimate in estimates[1:]:
        torch.testing.assert_close(estimate, estimates[0], rtol=0, atol=0.5)
    assert ways.table({"case": {name: [1.0] for name in found}}).count("1.00") == 3
