"""Works shared out over copies of this process: their answers, and what happens where a copy fails."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae.processes import on_all_cores
from tests.commands import SMALL, Run, arrays_in

HERE = os.getpid()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads of torch, and no other: what tests before have left behind is not seen."""
    if torch.accelerator.is_available():
        pytest.skip("a process beside a GPU is not copied")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def squared(number: int) -> tuple[int, float, int]:
    """Its process, a result that takes a gradient, and the threads it has."""
    x = torch.tensor(float(number), requires_grad=True)
    (gradient,) = torch.autograd.grad(x**3 / 3, x)
    return os.getpid(), float(gradient), torch.get_num_threads()


def test_answers_come_in_their_order(two_threads: None) -> None:
    found = on_all_cores([partial(squared, number) for number in range(5)])
    processes, answers, threads = zip(*found, strict=True)
    assert answers == (0.0, 1.0, 4.0, 9.0, 16.0) and threads == (1,) * 5
    copy = processes[1]
    assert processes == (HERE, copy, HERE, copy, HERE) and copy != HERE


def test_a_process_with_other_threads_is_not_copied(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert {process for process, *_ in on_all_cores([partial(squared, 2)] * 3)} == {HERE}


def test_one_thread_is_one_process() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert {process for process, *_ in on_all_cores([partial(squared, 2)] * 3)} == {HERE}
    torch.set_num_threads(before)


def test_a_work_that_fails_in_a_copy_fails_here(two_threads: None) -> None:
    def fails() -> int:
        raise ValueError(f"in a copy: {os.getpid() != HERE}")

    with pytest.raises(ValueError, match="in a copy: True"):
        on_all_cores([lambda: 1, fails, lambda: 3])


def test_what_a_killed_copy_has_left_is_done_here(two_threads: None) -> None:
    def dies() -> int:
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)
        return HERE

    works: list[Callable[[], int]] = [os.getpid, os.getpid, os.getpid, dies]
    first, second, third, fourth = on_all_cores(works)
    assert (first, third, fourth) == (HERE, HERE, HERE) and second != HERE


def test_seeds_evaluated_in_two_processes_have_the_numbers_of_one(
    pyro_vae: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, number in {"one": 1, "two": 2}.items():
        monkeypatch.setattr("pyro_vae.processes._processes", lambda _, number=number: number)
        words = (*SMALL, "--num_data", 40, "--epochs", 1, "--out", place)
        status, out, errors = pyro_vae("train", "--seeds", 2, *words)
        assert (status, errors) == (0, "") and len(out.splitlines()) == 4
    for seed in range(2):
        one, two = (arrays_in(Path(name, f"seed-{seed}", "per_datum.npz")) for name in ("one", "two"))
        for name in ("log_evidence", "elbo", "pareto_k"):
            np.testing.assert_array_equal(one[name], two[name])
