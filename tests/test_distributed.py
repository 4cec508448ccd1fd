"""Training on several ranks, by gloo on a CPU: the numbers of one process, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.ranks import Ranks, _place
from pyro_vae.training.saved import load_best
from pyro_vae.training.shares import PLACE, Share
from tests import components
from tests.commands import SMALL, Run, arrays_in
from tests.components import OBJECTIVES, POSTERIORS, PRIORS
from tests.several_ranks import ESTIMATES, same, vae

ROOT = Path(__file__).parents[1]
#: After which a test fails, not hangs.
SECONDS = 300


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def started(stack: ExitStack, size: int, *words: object, cwd: Path) -> list[subprocess.Popen[str]]:
    """Ranks with the environment that `srun` gives them; killed where the test ends before them."""
    place = {"SLURM_NTASKS": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    found = []
    for rank in range(size):
        one = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            env=environment(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **place),
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stack.callback(one.kill)
        found.append(stack.enter_context(one))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    """What one process finds, which leaves checkpoints for ranks to go on from."""
    return same(folder / "by one")


@pytest.fixture(scope="module")
def shared(folder: Path, alone: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of two ranks finds."""
    words = ["--nproc-per-node=2", f"--master-port={free_port()}", "-m", "tests.several_ranks", folder]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        env=environment(),
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    "what", ["by Pyro", "flat", "importance-weighted", "any program", "stopped early", "counting"]
)
def test_two_ranks_take_the_steps_of_one_process(
    what: str, alone: dict[str, Any], shared: list[dict[str, Any]]
) -> None:
    """In float64: noise of the data, draws, losses, and the epoch that is the last."""
    for found in shared:
        assert len(found[what]) == len(alone[what])
        for mine, others in zip(found[what], alone[what], strict=True):
            assert mine == pytest.approx(others, rel=1e-10, abs=1e-10, nan_ok=True)
    if what == "stopped early":
        assert 2 < len(alone[what]) < 60
    if what in ("by Pyro", "any program"):
        assert alone[what][-1][1] > 50  # steps


def test_the_first_rank_alone_calls_back(alone: dict[str, Any], shared: list[dict[str, Any]]) -> None:
    assert [found["called"] for found in shared] == [alone["called"], 0]


def test_training_goes_on_by_another_number_of_ranks(
    folder: Path, alone: dict[str, Any], shared: list[dict[str, Any]]
) -> None:
    whole = vae()
    assert alone["called"] > 0 and len(whole) == 8
    by_ranks = shared[1]["gone on"]  # from three epochs of one process
    by_one = vae(checkpoints=folder / "by ranks", resume=True)  # from three of two ranks
    for found in (by_ranks, by_one):
        for mine, others in zip(found, whole, strict=True):
            assert mine == pytest.approx(others, rel=1e-10)


def test_what_ranks_cannot_share_is_said_on_all_of_them(shared: list[dict[str, Any]]) -> None:
    first, second = (found["said"] for found in shared)
    assert "steps on 2 ranks are not those of one process" in first["batch norm"]
    assert "list changes as the programs run, also where they are run to see" in first["logging"]
    assert second["batch norm"] == second["logging"] == ""
    for what, words in {
        "other data": "as on rank 0, got",
        "small batches": "batch_size expects a datum or more for each of 2 ranks, got 1",
        "not finite": "first at the site 'data' of the guide",
        "no sum": "an objective that is a sum over the data, got FreeBitsELBO",
        "plates": "than the 10 places of the plate 'columns', got batches of 20 from 50",
        "each datum": "than the 25 places of the plate 'data', got batches of 50 from 50",
        "one rank": "the model cannot be evaluated on these data",
        "several": "training several models at once runs in one process, got 2 ranks",
    }.items():
        assert words in first[what] and first[what] == second[what]


def test_a_run_of_two_ranks_is_that_of_one_process(
    folder: Path, shared: list[dict[str, Any]], pyro_vae: Run
) -> None:
    """The first rank prints and writes; what is wrong is said once."""
    (status, out, errors), second = (found["trained"] for found in shared)
    assert (status, errors) == (0, "") and out.count("nats per datum") == 1
    assert second == [0, "", ""]
    assert pyro_vae("train", *SMALL, "--epochs", 2, "--out", folder / "one")[0] == 0
    one, two = (load_best(folder / name / "checkpoints" / "best.pt") for name in ("one", "two"))
    assert one["epoch"] == two["epoch"] == 2
    assert one["valid_elbo"] == pytest.approx(two["valid_elbo"], rel=1e-4)
    status, out, errors = pyro_vae("train", "--resume", folder / "two", "--epochs", 3)
    assert status == 0 and "3 epochs" in out, errors
    for what, words in {"refused": "Nothing", "other command": "sample runs in one process"}.items():
        assert [found[what][0] for found in shared] == [2, 2]
        (line,) = [found[what][2] for found in shared if found[what][2]]
        assert words in line and line.count("\n") == 1


def test_estimates_of_two_ranks_are_those_of_one_process(
    folder: Path, shared: list[dict[str, Any]], pyro_vae: Run
) -> None:
    """To the last bit: by draws from fitted proposals, by chains with a certificate, and of a file.

    The first rank prints and writes.
    """
    run, (first, second) = folder / "evaluated", (found["estimated"] for found in shared)
    for name, words in {"trained": ("--particles", 10), **ESTIMATES}.items():
        assert pyro_vae("evaluate", run, *words)[0] == 0
        check_same(run / "per_datum.npz", run / f"{name} per_datum.npz")
        if name != "trained":
            assert first[name][0] == 0 and "log p(x)" in first[name][1] and second[name] == [0, "", ""]
            one, two = (
                json.loads((run / f"{which}evaluation.json").read_text()) for which in ("", f"{name} ")
            )
            assert {**one, "seconds": 0, "device": ""} == {**two, "seconds": 0, "device": ""}
    assert first["scored"][0] == 0 and second["scored"] == [0, "", ""]
    status, _, _ = pyro_vae("score", run, run / "values.npy", "--particles", 500, "--out", "one.npz")
    assert status == 0
    check_same(Path("one.npz"), run / "scored.npz")


def check_same(first: Path, second: Path) -> None:
    """To the last bit."""
    one, two = (arrays_in(path) for path in (first, second))
    assert list(one) == list(two) and len(one["elbo"]) >= 12
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_the_recipe_averages_gradients(shared: list[dict[str, Any]]) -> None:
    assert all(found["recipe"] < 1e-5 for found in shared)


def test_a_rank_that_is_killed_ends_the_others_with_one_line(tmp_path: Path) -> None:
    """Here the first one, which holds what ranks tell one another."""
    with ExitStack() as stack:
        words = ("pyro_vae", "train", *SMALL, "--epochs", 10**6, "--out", "run")
        ranks = started(stack, 2, *words, cwd=tmp_path)
        start = time.monotonic()
        while not (tmp_path / "run" / "metrics.csv").exists():
            assert time.monotonic() - start < SECONDS and ranks[0].poll() is None
            time.sleep(0.05)
        ranks[0].send_signal(signal.SIGKILL)
        out, errors = ranks[1].communicate(timeout=SECONDS)
        status = ranks[1].returncode
    assert (status, out) == (1, "")
    assert errors.count("\n") == 1
    assert "rank 1 of 2 has lost another" in errors and "pyro-vae train --resume run" in errors


def test_who_has_started_a_process_says_which_rank_it_is() -> None:
    there = {"MASTER_ADDR": "node", "MASTER_PORT": "29500"}
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    torchrun = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    assert _place({**there, **slurm}) == (5, 8, 1)
    assert _place({**there, **slurm, **torchrun}) == (2, 4, 0)
    assert _place(slurm) is _place({}) is _place({**there, **torchrun, "WORLD_SIZE": "1"}) is None
    with pytest.raises(pv.InputError, match="whole numbers in RANK"):
        _place({**there, **torchrun, "RANK": "one"})


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize(
    "parts",
    [
        *({"posterior": name} for name in POSTERIORS),
        *({"prior": name} for name in PRIORS),
        {"objective": "TraceMeanField"},
        {"objective": "ImportanceWeighted, dreg"},
    ],
    ids=lambda parts: " ".join(parts.values()),
)
def test_losses_of_all_parts_are_that_of_the_whole(
    parts: dict[str, str], particles: int, float64: None
) -> None:
    """By one state of the random numbers, of which all use up the same."""
    objective = OBJECTIVES[parts.get("objective", "Trace")](
        num_particles=particles, max_plate_nesting=1, vectorize_particles=True
    )
    model = components.vae(**{name: value for name, value in parts.items() if name != "objective"}).double()
    x = components.data_for("Bernoulli", 7).double()

    def loss(rows: slice) -> tuple[float, torch.Tensor]:
        torch.manual_seed(3)
        given = {PLACE: (rows.start, len(x))}
        found = objective.differentiable_loss(Share(model.model), Share(model.guide), x[rows], **given)
        return found.item(), torch.rand(3)

    whole, after = loss(slice(0, 7))
    found = [loss(Ranks(rank, 3).rows(7)) for rank in range(3)]
    assert sum(each for each, _ in found) == pytest.approx(whole, rel=1e-12)
    assert all(torch.equal(after, other) for _, other in found)


@pytest.mark.parametrize(("number", "size"), [(10, 3), (2, 4), (8, 8)])
def test_rows_of_all_ranks_are_the_batch(number: int, size: int) -> None:
    parts = [range(number)[Ranks(rank, size).rows(number)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(number))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
