"""What is faster is measured once on each machine, kept, and what a training that goes on uses again."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx

import pyro_vae as pv
from pyro_vae.compiled import FlatGraph, machine, passes
from pyro_vae.compiled.machine import Faster
from pyro_vae.errors import InputError


class Clock:
    """Seconds that pass only where a way is run."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def way(self, *seconds: float) -> Callable[[], None]:
        """Takes so many seconds, in turns; how often it ran is its attribute `runs`."""

        def run() -> None:
            self.now += seconds[run.runs % len(seconds)]  # type: ignore[attr-defined]
            run.runs += 1  # type: ignore[attr-defined]

        run.runs = 0  # type: ignore[attr-defined]
        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv(machine.VARIABLE, "measured")
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.mark.parametrize(
    ("plain", "other", "taken"), [(1.0, 0.5, True), (1.0, 0.95, False), (1.0, 2.0, False)]
)
def test_a_way_is_taken_where_it_is_clearly_faster(
    clock: Clock, plain: float, other: float, taken: bool
) -> None:
    assert Faster(None).other("pair", lambda: (clock.way(plain), clock.way(other))) is taken


@pytest.mark.parametrize(("other", "taken"), [(0.5, True), (0.7, False)])
def test_in_a_compiled_step_onednn_must_gain_more(
    clock: Clock, other: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven tenths of MKL's time pay in a graph that Python runs, and not in a step that is one function."""
    monkeypatch.setattr(machine, "FASTER", Faster(None))
    for where, name, seconds in ((passes, "_linear", other), (torch, "mm", 1.0)):
        way = clock.way(seconds)
        monkeypatch.setattr(where, name, lambda *_, way=way: way())
    graph = fx.Graph()
    left, weight = graph.placeholder("left"), graph.placeholder("weight")
    left.meta["val"], weight.meta["val"] = torch.empty(200, 800), torch.empty(400, 800)
    product = graph.call_function(torch.ops.pyro_vae.linear.default, (left, weight, None))
    graph.output(product)
    module = fx.GraphModule({}, graph)
    passes.leave_to_mkl(module)
    targets = {node.target for node in module.graph.nodes}
    assert (torch.ops.pyro_vae.linear.default in targets) is taken
    assert (torch.ops.aten.mm.default in targets) is not taken


def test_what_was_found_is_not_measured_again_nor_by_another_process(clock: Clock, tmp_path: Path) -> None:
    ways = clock.way(1.0), clock.way(0.5)
    first, later = Faster(tmp_path), Faster(tmp_path)
    assert first.other("pair", lambda: ways)
    runs = ways[0].runs  # type: ignore[attr-defined]
    assert runs > 1
    assert first.other("pair", lambda: ways) and later.other("pair", lambda: ways)
    assert ways[0].runs == runs  # type: ignore[attr-defined]
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["faster"] == {"pair": True} and kept["torch"] == torch.__version__


def test_of_two_processes_that_measure_at_once_the_first_decides_for_both(
    clock: Clock, tmp_path: Path
) -> None:
    first, second = Faster(tmp_path), Faster(tmp_path)
    assert second.known() == {}  # has looked before the first has written
    assert first.other("pair", lambda: (clock.way(1.0), clock.way(0.5)))
    assert second.other("pair", lambda: (clock.way(0.5), clock.way(1.0)))


def test_what_is_measured_beside_other_work_holds_for_this_process_only(clock: Clock, tmp_path: Path) -> None:
    found = Faster(tmp_path)
    disturbed = clock.way(0.5, 3.0, 3.0)
    assert found.other("pair", lambda: (clock.way(1.0), disturbed))
    assert found.known() == {"pair": True} and not any(tmp_path.iterdir())


def test_other_threads_are_another_machine(clock: Clock, tmp_path: Path) -> None:
    found = Faster(tmp_path)
    assert found.other("pair", lambda: (clock.way(1.0), clock.way(0.5)))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert not found.other("pair", lambda: (clock.way(0.5), clock.way(1.0)))
    finally:
        torch.set_num_threads(before)
    assert found.other("pair", lambda: (clock.way(0.5), clock.way(1.0)))


def test_a_cache_that_is_damaged_or_cannot_be_written_is_none(clock: Clock, tmp_path: Path) -> None:
    found = Faster(tmp_path)
    found.other("pair", lambda: (clock.way(1.0), clock.way(0.5)))
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    assert not Faster(tmp_path).other("pair", lambda: (clock.way(0.5), clock.way(1.0)))
    (tmp_path / "file").write_text("")
    assert Faster(tmp_path / "file" / "folder").other("pair", lambda: (clock.way(1.0), clock.way(0.5)))


@pytest.mark.parametrize(("said", "taken"), [("always", True), ("never", False)])
def test_a_user_decides_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch, said: str, taken: bool
) -> None:
    monkeypatch.setenv(machine.VARIABLE, said)
    assert Faster(None).other("pair", lambda: pytest.fail("measured")) is taken


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.VARIABLE, "sometimes")
    with pytest.raises(InputError, match="PYRO_VAE_FAST expects measured, always or never, got 'sometimes'"):
        pv.fit(pv.assemble(pv.Digits()), pv.Digits(), epochs=1)


def _product(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.nn.functional.softplus(x @ torch.ones(300, 300)),)


def _targets(graph: FlatGraph) -> set[str]:
    return {str(node.target) for node in graph.module.graph.nodes}


def test_each_operation_is_measured_in_its_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(machine.VARIABLE, "measured")
    monkeypatch.setattr(machine, "FASTER", found := Faster(None))
    x = torch.randn(200, 300)
    graph = FlatGraph(_product, (x,), fast=True)
    names = list(found.known())
    assert [name.split(":")[0] for name in names] == ["aten.mm.default", "aten.softplus.default"]
    assert "(200, 300) (300, 1), (300, 300) (300, 1)" in names[0]
    assert ("pyro_vae.linear.default" in _targets(graph)) is found.known()[names[0]]
    assert ("aten.softplus.default" not in _targets(graph)) is found.known()[names[1]]
    torch.testing.assert_close(graph(x), _product(x))


@pytest.mark.parametrize("taken", [True, False])
def test_what_another_process_used_is_used_again(monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    monkeypatch.setenv(machine.VARIABLE, "measured")
    before = Faster(None)
    monkeypatch.setattr(machine, "FASTER", before)
    FlatGraph(_product, (torch.randn(200, 300),), fast=True)
    used = before.used()
    used["faster"] = dict.fromkeys(used["faster"], taken)
    monkeypatch.setattr(machine, "FASTER", after := Faster(None))
    assert after.adopt(used)
    graph = FlatGraph(_product, (torch.randn(200, 300),), fast=True)
    assert ("pyro_vae.linear.default" in _targets(graph)) is taken


def test_a_training_that_goes_on_elsewhere_says_that_its_bits_may_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> None:
        pv.fit(pv.assemble(data), data, epochs=1, checkpoints=tmp_path, resume=True)

    data = pv.Digits()
    train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()
    monkeypatch.setattr(machine, "_processor", lambda: "another")
    with pytest.warns(UserWarning, match="another processor, number of threads"):
        train()
