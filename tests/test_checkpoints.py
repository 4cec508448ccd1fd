"""A computation that was interrupted ends with the numbers of one that was not."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_vae.storage.files import write
from pyro_vae.storage.hashing import fingerprint
from pyro_vae.storage.resumable import Resumable
from tests.components import refused

CPU = torch.device("cpu")
STEPS = 10


def walk(path: Path | None, settings: dict[str, Any], fail: BaseException | None = None) -> Tensor:
    """The sum of ten random numbers, one per step; `fail` is raised in the seventh step."""
    with Resumable(path, settings, CPU) as kept:
        state = kept.state or {"step": 0, "sum": torch.zeros(3)}
        for step in range(state["step"], STEPS):
            draw = torch.randn(3)
            if step == 6 and fail is not None:
                raise fail
            state = {"step": step + 1, "sum": state["sum"] + draw}
            kept.keep(lambda: state)  # noqa: B023
    return state["sum"]


@pytest.fixture(autouse=True)
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resumable, "interval", 0.0)


def test_an_interrupted_walk_ends_where_it_would_have(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected, after = walk(None, {}), torch.rand(1)
    torch.manual_seed(1)
    with pytest.raises(RuntimeError, match="the lights went out"):
        walk(tmp_path / "walk.pt", {}, RuntimeError("the lights went out"))
    torch.manual_seed(2)  # another process
    assert torch.equal(walk(tmp_path / "walk.pt", {}), expected)
    assert torch.equal(torch.rand(1), after)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_written_only_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resumable, "interval", 1000.0)
    with pytest.raises(RuntimeError):
        walk(tmp_path / "walk.pt", {}, RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_control_c_waits_until_the_state_is_whole_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resumable, "interval", 1000.0)
    path, handler = tmp_path / "state.pt", signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Resumable(path, {}, CPU) as kept:
        signal.raise_signal(signal.SIGINT)
        half = 1  # still runs
        kept.keep(lambda: {"half": half})
        raise AssertionError("not reached")
    assert signal.getsignal(signal.SIGINT) is handler
    with Resumable(path, {}, CPU) as again:
        assert again.state == {"half": 1}
    assert not path.exists()


def test_a_second_control_c_does_not_wait(tmp_path: Path) -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), Resumable(tmp_path / "state.pt", {}, CPU):
        signal.raise_signal(signal.SIGINT)
        reached = True
        signal.raise_signal(signal.SIGINT)
    assert reached


def test_control_c_after_the_last_state_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt), Resumable(path, {}, CPU) as kept:
        kept.keep(lambda: {"done": 1})
        signal.raise_signal(signal.SIGINT)
    assert path.exists()


def test_a_thread_of_its_own_catches_no_signals(tmp_path: Path) -> None:
    done: list[Tensor] = []
    thread = threading.Thread(target=lambda: done.append(walk(tmp_path / "walk.pt", {})))
    thread.start()
    thread.join()
    assert len(done) == 1


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "walk.pt"
    made = {"steps": 10, "data": "a1", "programs": torch.tensor([-500.0, 2.0])}
    with pytest.raises(RuntimeError):
        walk(path, made, RuntimeError())
    with refused(r"walk\.pt was made with steps 10, got 11: go on with the same settings and data"):
        walk(path, {**made, "steps": 11})
    for other in (torch.tensor([-500.1, 2.0]), torch.tensor([-500.0]), torch.tensor([-500, 2])):
        with refused(
            r"walk\.pt was made with other programs: go on with the same model, guide and parameters, or"
        ):
            walk(path, {**made, "programs": other})
    assert path.exists()
    walk(path, {**made, "programs": torch.tensor([-500.0001, 2.0])})  # rounds differently


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "walk.pt"
    with pytest.raises(RuntimeError):
        walk(path, {}, RuntimeError())
    write(path, path.read_bytes()[:-300])
    with refused("truncated or corrupt"):
        walk(path, {})
    torch.save({"model": {}}, path)
    with refused("expected a checkpoint at .* with random, settings, state"):
        walk(path, {})


def test_a_fingerprint_sees_values_shape_and_type() -> None:
    x = torch.arange(6.0)
    others = [x + 1e-6, x.reshape(2, 3), x.double(), x.flip(0)]
    assert len({fingerprint(each) for each in (x, *others)}) == 5
    assert fingerprint(x.reshape(3, 2).T) == fingerprint(x.reshape(3, 2).T.contiguous())
