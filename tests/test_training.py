"""`fit`: equal to a plain SVI loop, repeatable, resumable, and never training nothing."""

import math
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compiled import FlatSteps
from pyro_vae.data import batches
from pyro_vae.storage.checkpoints import load_checkpoint, save_checkpoint
from pyro_vae.storage.pace import Pace
from pyro_vae.training.ways import Way
from tests.components import refused

DATA = pv.Digits()


def small(seed: int = 0, **parts: Any) -> pv.VAE:
    torch.manual_seed(seed)
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,)), **parts)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(history: pv.History) -> list[pv.Epoch]:
    return [epoch._replace(seconds=0.0) for epoch in history.epochs]


def plain_svi(model: pv.VAE, epochs: int, objective: Trace_ELBO, seed: int = 0) -> list[float]:
    """The loop that a user of Pyro writes, with Pyro's own optimiser; the mean ELBO of each epoch."""
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3, "fused": True}), objective)
    torch.manual_seed(seed)
    elbos = []
    for epoch in range(1, epochs + 1):
        loss = 0.0
        for x in batches(DATA.train, 100, seed=seed, epoch=epoch):
            loss += svi.step(x)
        elbos.append(-loss / len(DATA.train))
    return elbos


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("prior", [pv.StandardNormalPrior, pv.MixturePrior])
def test_equals_a_plain_svi_loop_to_the_last_bit(particles: int, prior: type[pv.Prior]) -> None:
    ours, plain = small(prior=prior), small(prior=prior)
    history = pv.fit(ours, DATA, epochs=3, num_particles=particles, keep="last")
    objective = Trace_ELBO(particles, max_plate_nesting=1, vectorize_particles=particles > 1)
    elbos = plain_svi(plain, 3, objective)
    assert equal(values(ours), values(plain))
    assert history.column("train_elbo") == elbos


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kl_weight": 0.5, "kl_warm_up": 2},
        {"objective": pv.ImportanceWeightedELBO, "num_particles": 3},
        {"clip_norm": 1.0, "schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)},
    ],
    ids=["plain", "KL warm-up", "importance-weighted", "clipped and scheduled"],
)
def test_flat_steps_equal_those_of_svi_to_the_last_bit(options: dict[str, Any]) -> None:
    results = []
    for compile in ("off", "flat"):
        model = small()
        history = pv.fit(model, DATA, epochs=3, compile=compile, **options)
        results.append((values(model), without_time(history)))
    assert equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_auto_goes_over_to_flat_steps_and_resumes_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 20)
    monkeypatch.setattr("pyro_vae.compiled.passes._LEAST_FLOPS", 1)  # so that oneDNN has something to do
    monkeypatch.setattr("pyro_vae.compiled.passes._LEAST_COLUMNS", 1)
    taken = []

    class Recorded(FlatSteps):
        def __call__(self, *args: Any, **kwargs: Any) -> list[Tensor]:
            result = super().__call__(*args, **kwargs)
            taken.append((self.eager_because, self.ways[0]["fast"]))
            return result

    whole, parts, again, eager = small(), small(), small(), small()
    with monkeypatch.context() as recorded:
        recorded.setattr("pyro_vae.training.steps.FlatSteps", Recorded)
        history = pv.fit(whole, DATA, epochs=4, keep="last")
    assert taken == [("", True)] * (4 * math.ceil(len(DATA.train) / 100) - 20)
    pv.fit(parts, DATA, epochs=2, keep="last", checkpoints=tmp_path)
    resumed = pv.fit(again, DATA, epochs=4, keep="last", checkpoints=tmp_path, resume=True)
    pv.fit(eager, DATA, epochs=4, keep="last", compile="off")
    assert equal(values(whole), values(again))
    assert without_time(history) == without_time(resumed)
    for a, b in zip(whole.parameters(), eager.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_training_is_not_resumed_with_other_rounding(tmp_path: Path) -> None:
    pv.fit(small(), DATA, epochs=1, checkpoints=tmp_path)
    with refused("rounding"):
        pv.fit(small(), DATA, epochs=2, checkpoints=tmp_path, resume=True, compile="inductor")


def test_a_program_that_is_no_flat_graph_is_trained_by_svi() -> None:
    class Branching(pv.VAE):
        def guide(self, x: Tensor) -> Tensor:  # type: ignore[override]
            assert x.sum() > 0
            return super().guide(x)

    results = []
    for compile in ("off", "flat"):
        model = small()
        model.__class__ = Branching
        if compile == "flat":
            with pytest.warns(UserWarning, match="fit runs as plain Pyro, not as a flat graph"):
                pv.fit(model, DATA, epochs=2, compile=compile)
        else:
            pv.fit(model, DATA, epochs=2, compile=compile)
        results.append(values(model))
    assert equal(*results)


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_networks_train_in_bfloat16_with_nearly_the_same_result(compile: Literal["off", "flat"]) -> None:
    full, rounded = small(), small()
    history = pv.fit(full, DATA, epochs=5, compile=compile)
    other = pv.fit(rounded, DATA, epochs=5, compile=compile, precision="bfloat16")
    assert not equal(values(full), values(rounded))
    assert {tensor.dtype for tensor in rounded.parameters()} == {torch.float32}
    assert not rounded.posterior.encoder.in_bfloat16  # in full again
    assert other.best_valid_elbo == pytest.approx(history.best_valid_elbo, abs=0.1)
    with refused("precision expects 'full' or 'bfloat16', got 'half'"):
        pv.fit(small(), DATA, epochs=1, precision="half")  # type: ignore[arg-type]


def test_whole_steps_in_place_equal_flat_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph replays, run as it is: index and ELBO in place, over several epochs and schedules."""
    captures = []

    def capture(step: Callable[[], None], *_: object) -> Callable[[], None]:
        captures.append(step)
        return step

    options: dict[str, Any] = {
        "epochs": 3,
        "kl_warm_up": 2,
        "clip_norm": 1.0,
        "schedule": lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9),
    }
    flat, whole = small(), small()
    history = pv.fit(flat, DATA, compile="flat", **options)
    way = Way(1, inductor=False, fast=False, captured=True)
    monkeypatch.setattr("pyro_vae.training.trainer.way_of", lambda *_: way)
    monkeypatch.setattr("pyro_vae.training.trainer.make_capturable", lambda _: True)
    monkeypatch.setattr("pyro_vae.training.steps.capture", capture)
    other = pv.fit(whole, DATA, **options)
    assert len(captures) == 3  # anew in each epoch
    assert without_time(history) == without_time(other)
    assert equal(values(flat), values(whole))


def test_a_step_that_cannot_be_captured_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(*_: object) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    flat, other = small(), small()
    pv.fit(flat, DATA, epochs=2, compile="flat")
    way = Way(1, inductor=False, fast=False, captured=True)
    monkeypatch.setattr("pyro_vae.training.trainer.way_of", lambda *_: way)
    monkeypatch.setattr("pyro_vae.training.trainer.make_capturable", lambda _: True)
    monkeypatch.setattr("pyro_vae.training.steps.capture", capture)
    with pytest.warns(UserWarning, match="fit takes steps that are no CUDA graph: operation not permitted"):
        pv.fit(other, DATA, epochs=2)
    assert equal(values(flat), values(other))


def test_compile_expects_one_of_four() -> None:
    with refused("compile expects 'auto', 'flat', 'inductor' or 'off', got 'jit'"):
        pv.fit(small(), DATA, epochs=1, compile="jit")  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_parameters_and_another_does_not() -> None:
    models = [small(), small(), small()]
    histories = [
        pv.fit(model, DATA, epochs=2, seed=seed, keep="last")
        for model, seed in zip(models, (5, 5, 6), strict=True)
    ]
    assert equal(values(models[0]), values(models[1]))
    assert without_time(histories[0]) == without_time(histories[1])
    assert not equal(values(models[0]), values(models[2]))


def test_validation_does_not_change_training() -> None:
    with_valid, without = small(), small()
    pv.fit(with_valid, DATA, epochs=2, keep="last")
    train_only = pv.Dataset(DATA.train.values, form=pv.Dynamic(), maximum=16)
    history = pv.fit(without, train_only, epochs=2)
    assert equal(values(with_valid), values(without))
    assert math.isnan(history.epochs[0].valid_elbo)
    assert history.best_epoch == 0


def test_leaves_random_state_store_and_validation_as_found() -> None:
    pyro.param("left", torch.tensor(3.0))
    model = small()
    state = torch.get_rng_state()
    pyro.enable_validation(False)
    pv.fit(model, DATA, epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(pyro.get_param_store().items()) == {"left": torch.tensor(3.0)}
    assert not pyro.infer.util.is_validation_enabled()
    pickle.dumps(model)


class Modes(nn.Module):
    """Notes whether it is in training mode at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.training)
        return x


def test_trains_in_training_mode_and_measures_in_evaluation_mode() -> None:
    model, modes = small(), Modes()
    model.likelihood.decoder.layers.append(modes)
    pv.fit(model, DATA, steps=2)
    before, steps = modes.seen.index(True), modes.seen.count(True)
    assert before > 0
    assert modes.seen[before : before + steps] == [True] * 2
    assert len(modes.seen) > before + steps
    assert not model.training


def test_two_models_train_in_turn_and_alternately() -> None:
    first, second = small(0), small(1)
    for model in (first, second, first, second):
        before = values(model)
        history = pv.fit(model, DATA, epochs=1, keep="last")
        after = values(model)
        assert all(not torch.equal(before[name], after[name]) for name in before)
        assert len(history.epochs) == 1


def test_entries_of_another_model_in_the_store_do_not_stop_training() -> None:
    clean, stale = small(), small()
    pv.fit(clean, DATA, epochs=1, keep="last")
    other = small(9)
    SVI(other.model, other.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(DATA.test.batch())
    pv.fit(stale, DATA, epochs=1, keep="last")
    assert equal(values(clean), values(stale))


class Forgetful(pv.VAE):
    """Registers nothing in the guide."""

    def guide(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x))


class Secretive(pv.VAE):
    """Has a parameter that is none of the module's."""

    def model(self, x: Tensor) -> Tensor:  # type: ignore[override]
        pyro.param("hidden", torch.zeros(()))
        return super().model(x)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (Forgetful, "6 of 10 not used by the programs and 0 that"),
        (Secretive, "0 of 10 not used by the programs and 1 that"),
    ],
)
@pytest.mark.parametrize("compile", ["off", "flat"])
def test_parameters_that_are_not_those_optimised_are_refused(
    program: type[pv.VAE], text: str, compile: Literal["off", "flat"]
) -> None:
    model = small()
    broken = program(model.prior, model.likelihood, model.posterior)
    with refused(text):
        pv.fit(broken, DATA, epochs=1, compile=compile)


def test_pyro_validates_the_first_step_only() -> None:
    seen = []

    class Watched(pv.StandardNormalPrior):
        def forward(self) -> Any:
            if torch.is_grad_enabled():
                seen.append(pyro.infer.util.is_validation_enabled())
            return super().forward()

    pv.fit(small(prior=Watched), DATA, steps=4)
    assert seen == [True, False, False, False]


def test_steps_end_within_an_epoch() -> None:
    history = pv.fit(small(), DATA, steps=15)
    assert history.column("step") == [13, 15]
    assert history.ended_by == "budget"


def test_all_data_are_used_in_every_epoch() -> None:
    seen = []

    class Watched(pv.VAE):
        def guide(self, x: Tensor) -> Tensor:  # type: ignore[override]
            if torch.is_grad_enabled():
                seen.append(len(x))
            return super().guide(x)

    model = small()
    pv.fit(Watched(model.prior, model.likelihood, model.posterior), DATA, epochs=1, batch_size=500)
    assert seen == [500, 500, 297]


def test_schedule_is_stepped_by_epoch() -> None:
    def cosine(optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=4, eta_min=1e-4)

    rates = pv.fit(small(), DATA, epochs=4, schedule=cosine).column("learning_rate")
    expected = [1e-4 + 9e-4 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates == pytest.approx(expected)


def test_clip_norm_bounds_the_step() -> None:
    model = small()
    before = values(model)
    pv.fit(model, DATA, steps=1, clip_norm=0.5, optimiser=lambda p: torch.optim.SGD(p, lr=1.0), keep="last")
    moved = torch.cat([(after - before[name]).flatten() for name, after in values(model).items()])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-4)


def still(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


def test_patience_stops_after_epochs_without_a_better_validation_elbo() -> None:
    history = pv.fit(small(), DATA, epochs=10, patience=3, optimiser=still)
    assert (len(history.epochs), history.best_epoch, history.ended_by) == (4, 1, "patience")
    assert len(set(history.column("valid_elbo"))) == 1  # the same draws each time


def test_keeps_the_best_or_the_last_parameters() -> None:
    seen: list[dict[str, Tensor]] = []

    def spoil(vae: pv.JointProgram, history: pv.History) -> None:
        """After the second epoch, parameters that can only be worse."""
        seen.append(values(vae))
        if len(history.epochs) == 2:
            with torch.no_grad():
                for parameter in vae.parameters():
                    parameter.add_(3)

    best, last = small(), small()
    history = pv.fit(best, DATA, epochs=3, callbacks=[spoil])
    assert history.best_epoch == 2
    assert history.best_valid_elbo == max(history.column("valid_elbo"))
    assert equal(values(best), seen[1])
    seen.clear()
    pv.fit(last, DATA, epochs=3, callbacks=[spoil], keep="last")
    assert equal(values(last), seen[2])


def test_random_numbers_of_a_callback_change_nothing() -> None:
    quiet, noisy = small(), small()
    pv.fit(quiet, DATA, epochs=2, keep="last")
    pv.fit(noisy, DATA, epochs=2, keep="last", callbacks=[lambda vae, history: bool(torch.rand(()) > 2)])
    assert equal(values(quiet), values(noisy))


def test_trains_inside_no_grad() -> None:
    outside, inside = small(), small()
    pv.fit(outside, DATA, epochs=1)
    with torch.no_grad():
        pv.fit(inside, DATA, epochs=1)
    assert equal(values(outside), values(inside))


def test_gradients_of_callbacks_and_random_numbers_at_the_start_change_nothing() -> None:
    def differentiate(vae: pv.JointProgram, history: pv.History) -> None:
        sum(parameter.sum() for parameter in vae.parameters()).backward()

    quiet, noisy = small(), small()
    pv.fit(quiet, DATA, epochs=2, keep="last")

    def start() -> None:
        torch.rand(7)
        differentiate(noisy, pv.History())

    pv.fit(noisy, DATA, epochs=2, keep="last", on_start=start, callbacks=[differentiate])
    assert equal(values(quiet), values(noisy))


def test_gradients_from_before_change_nothing_and_none_are_left() -> None:
    clean, dirty = small(), small()
    for parameter in dirty.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    for model in (clean, dirty):
        pv.fit(model, DATA, steps=2, keep="last")
        assert all(parameter.grad is None for parameter in model.parameters())
    assert equal(values(clean), values(dirty))


def test_another_fit_inside_a_callback() -> None:
    alone, outer, inner = small(), small(), small(3)
    pv.fit(alone, DATA, epochs=2, keep="last")
    pv.fit(
        outer,
        DATA,
        epochs=2,
        keep="last",
        callbacks=[lambda v, h: bool(pv.fit(inner, DATA, steps=1) is None)],
    )
    assert equal(values(alone), values(outer))


def test_an_ended_training_stays_ended_when_resumed(tmp_path: Path) -> None:
    def stop(vae: pv.JointProgram, history: pv.History) -> bool:
        return len(history.epochs) == 2

    pv.fit(small(), DATA, epochs=6, checkpoints=tmp_path, callbacks=[stop])
    history = pv.fit(small(), DATA, epochs=6, checkpoints=tmp_path, resume=True)
    assert (len(history.epochs), history.ended_by) == (2, "callback")


@pytest.mark.parametrize("end", ["budget", "patience", "callback"])
def test_the_end_is_written_whenever_it_comes(
    end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where writing would have taken too much of the time, the last checkpoints are those of each epoch."""
    writing: list[bool] = []
    options: dict[str, dict[str, Any]] = {
        "budget": {"epochs": 4},
        "patience": {"epochs": 9, "patience": 2, "optimiser": partial(torch.optim.SGD, lr=0.0)},
        "callback": {"epochs": 9, "callbacks": [lambda vae, history: len(history.epochs) == 3]},
    }
    for name, due in {"often": True, "seldom": False}.items():

        def asked(_: Pace, due: bool = due) -> bool:
            writing.append(due)
            return due

        monkeypatch.setattr(Pace, "due", asked)
        history = pv.fit(small(), DATA, checkpoints=tmp_path / name, **options[end])
        assert history.ended_by == end
    assert writing.count(True) == writing.count(False) >= 2
    for name in ("last.pt", "best.pt"):
        often, seldom = (torch.load(tmp_path / each / name) for each in ("often", "seldom"))
        assert equal(often["model"], seldom["model"])
        assert often.get("step") == seldom.get("step") and often.get("epoch") == seldom.get("epoch")


def test_checkpoints_take_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a clock that moves as much in an epoch as in writing: one epoch in nine after the second."""
    now, written = [0.0], []
    monkeypatch.setattr("pyro_vae.storage.pace.monotonic", lambda: now[0])

    def save(path: Path, state: Mapping[str, Any]) -> None:
        if path.name == "last.pt":
            now[0] += 1
            written.append(len(state["epochs"]))

    def goes_on(vae: object, history: pv.History) -> None:
        now[0] += 1

    monkeypatch.setattr("pyro_vae.training.trainer.save_checkpoint", save)
    pv.fit(small(), DATA, epochs=22, checkpoints=tmp_path, callbacks=[goes_on])
    assert written == [1, 2, 11, 20, 22]


def test_an_interruption_says_how_the_training_goes_on(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def fit_many(_: object, data: pv.Dataset, **options: Any) -> None:
        pv.fit_many(small, data, seeds=2, **options)

    for fit, name in ((pv.fit, "fit"), (fit_many, "fit_many")):
        with pytest.raises(KeyboardInterrupt) as end:
            fit(small(), DATA, callbacks=[stop], checkpoints=tmp_path / name)
        call = f"{name}(..., checkpoints={str(tmp_path / name)!r}, resume=True)"
        assert end.value.__notes__ == [f"{call} goes on from the last checkpoint"]
        with pytest.raises(KeyboardInterrupt) as end:
            fit(small(), DATA, callbacks=[stop])
        (note,) = end.value.__notes__
        assert note.startswith("nothing was written to go on from; the next time, give checkpoints, and ")


def test_a_callback_ends_training() -> None:
    history = pv.fit(small(), DATA, callbacks=[lambda vae, history: len(history.epochs) == 2])
    assert (len(history.epochs), history.ended_by) == (2, "callback")


def stop_after(epoch: int) -> Callable[[pv.JointProgram, pv.History], None]:
    def callback(vae: pv.JointProgram, history: pv.History) -> None:
        if len(history.epochs) == epoch:
            raise KeyboardInterrupt

    return callback


OPTIONS: dict[str, Any] = {
    "epochs": 6,
    "patience": 4,
    "num_particles": 2,
    "clip_norm": 100.0,
    "seed": 3,
    "schedule": lambda optimiser: torch.optim.lr_scheduler.StepLR(optimiser, 2, gamma=0.3),
}


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("stopped", [2, 5])  # before that epoch is saved
def test_resumed_training_ends_as_if_never_stopped(tmp_path: Path, stopped: int, keep: Any) -> None:
    whole = small()
    expected = pv.fit(whole, DATA, **OPTIONS, keep=keep)
    with pytest.raises(KeyboardInterrupt):
        pv.fit(small(), DATA, **OPTIONS, checkpoints=tmp_path, callbacks=[stop_after(stopped)])
    resumed = small(seed=77)
    history = pv.fit(resumed, DATA, **OPTIONS, keep=keep, checkpoints=tmp_path, resume=True)
    assert equal(values(resumed), values(whole))
    assert without_time(history) == without_time(expected)
    assert (history.best_epoch, history.ended_by) == (expected.best_epoch, expected.ended_by)


def test_resuming_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    first, again = small(), small(seed=4)
    history = pv.fit(first, DATA, epochs=2, checkpoints=tmp_path)
    assert pv.fit(again, DATA, epochs=2, checkpoints=tmp_path, resume=True) == history
    assert equal(values(first), values(again))


def test_early_stopping_is_resumed_as_stopped(tmp_path: Path) -> None:
    options: dict[str, Any] = {"patience": 2, "optimiser": still, "checkpoints": tmp_path}
    pv.fit(small(), DATA, **options)
    history = pv.fit(small(), DATA, **options, resume=True)
    assert (len(history.epochs), history.ended_by) == (3, "patience")


class Bomb(nn.Module):
    """Pickles into code that would write a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_checkpoints_that_cannot_be_used(tmp_path: Path) -> None:
    def resume(model: pv.VAE, **options: Any) -> None:
        pv.fit(model, DATA, **{"epochs": 2, **options}, checkpoints=tmp_path, resume=True)

    pv.fit(small(), DATA, epochs=1, checkpoints=tmp_path)
    with refused("made with batch_size 100, got 50: go on with the same settings and data"):
        resume(small(), batch_size=50)
    with refused("made with optimiser Adam .*'lr': 0.001.*, got Adam .*'lr': 0.002"):
        resume(small(), optimiser=lambda p: torch.optim.Adam(p, lr=0.002, fused=True))
    with refused("made with clip_norm None, got 1.0"):
        resume(small(), clip_norm=1.0)
    with refused("made with schedule none, got StepLR .*'step_size': 3"):
        resume(small(), schedule=lambda optimiser: torch.optim.lr_scheduler.StepLR(optimiser, 3))
    with refused("made with training data [0-9a-f]{16}, got [0-9a-f]{16}"):
        pv.fit(small(), pv.Digits(form=pv.Static()), epochs=2, checkpoints=tmp_path, resume=True)
    with refused("holds the checkpoints of a training: go on with resume=True, or give another folder"):
        pv.fit(small(), DATA, checkpoints=tmp_path)
    with refused("made for another model: prior.logits expects .10,., got nothing"):
        resume(small(prior=pv.MixturePrior))
    torch.manual_seed(0)
    with refused(
        r"made for another model: likelihood.decoder.layers.1.weight expects \(9, 2\), got \(8, 2\)"
    ):
        resume(pv.assemble(DATA, latent_dim=2, network=pv.MLP((9,))))
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    with refused("last.pt is truncated or corrupt"):
        resume(small())
    torch.save({"model": Bomb(tmp_path / "exploded")}, tmp_path / "last.pt")
    with refused("loading it could execute code: refused"):
        resume(small())
    assert not (tmp_path / "exploded").exists()
    torch.save([1, 2], tmp_path / "last.pt")
    with refused(r"expected a checkpoint at .*last.pt with about, best, .*, got none of it"):
        resume(small())
    for name in ("last.pt", "best.pt"):
        (tmp_path / name).unlink()
    pv.fit(small(), DATA, epochs=1, checkpoints=tmp_path)
    best = load_checkpoint(tmp_path / "best.pt")
    (tmp_path / "last.pt").unlink()
    save_checkpoint(tmp_path / "best.pt", {**best, "epoch": 7})
    with refused("expected last.pt beside .*best.pt, found none, so this training cannot go on"):
        resume(small())
    with refused("resume needs the folder of checkpoints"):
        pv.fit(small(), DATA, resume=True)


class Poisoned(pv.VAE):
    """Its likelihood turns NaN at a given step."""

    at = 15
    count = 0

    def model(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.count += self.training and torch.is_grad_enabled()
        self.register(self.prior, self.likelihood)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())
            factor = math.nan if self.count == self.at else 1.0
            return pyro.sample(
                "x", dist.Bernoulli(logits=self.likelihood(z).base_dist.logits * factor).to_event(3), obs=x
            )


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    model = small()
    poisoned = Poisoned(model.prior, model.likelihood, model.posterior)
    with pytest.raises(pv.NonFiniteLossError) as caught:
        pv.fit(poisoned, DATA, checkpoints=tmp_path)
    assert str(caught.value) == (
        "the loss is nan at step 15, first at the site 'x' of the model: lower the learning rate or give "
        f"clip_norm; the last good checkpoint is {tmp_path}/last.pt of epoch 1"
    )
    assert all(torch.isfinite(parameter).all() for parameter in poisoned.parameters())
    poisoned = Poisoned(*(getattr(small(), role) for role in ("prior", "likelihood", "posterior")))
    poisoned.at = 5
    with pytest.raises(pv.NonFiniteLossError, match="no checkpoint was written before"):
        pv.fit(poisoned, DATA)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    def explode(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e38)

    with pytest.raises(pv.NonFiniteLossError, match="no checkpoint was written before"):
        pv.fit(small(), DATA, steps=1, optimiser=explode, checkpoints=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_grey_pixels_are_refused_before_training() -> None:
    with refused("BernoulliLikelihood expects the values 0 and 1, got 0.6875 among values from 0 to 1"):
        pv.fit(small(), pv.Digits(form=pv.Levels()))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs expects a positive whole number, got 0"),
        ({"steps": -1}, "steps expects a positive whole number, got -1"),
        ({"batch_size": 0}, "batch_size expects a positive whole number, got 0"),
        ({"batch_size": 5000}, "expected at least one full batch of 5000, got 1297 data"),
        ({"num_particles": 0}, "num_particles expects a positive whole number"),
        ({"patience": 0}, "patience expects a positive whole number"),
        ({"clip_norm": 0.0}, "clip_norm expects a positive number, got 0"),
        ({"device": "cpuu"}, "expected a device such as auto, cpu or cuda:0, got 'cpuu'"),
        ({"device": "meta"}, "expected a device such as auto, cpu or cuda:0, got 'meta'"),
        ({"seed": -1}, "seed expects a whole number from 0 to"),
        ({"seed": 2**40}, "seed expects a whole number from 0 to"),
        ({"keep": "bset"}, "keep expects 'best' or 'last', got 'bset'"),
        ({"optimiser": torch.optim.LBFGS}, "got LBFGS: use Adam"),
        ({"optimiser": lambda p: None}, "or one that gives none: give"),
        (
            {"optimiser": lambda p: torch.optim.SGD(p, lr=-1.0)},
            "the optimiser cannot be made: Invalid learning rate",
        ),
        ({"optimiser": pyro.optim.Adam}, "the optimiser cannot be made|got Adam|got PyroOptim"),
        ({"schedule": torch.optim.lr_scheduler.StepLR}, "the schedule cannot be made: .*step_size"),
        (
            {"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau, "schedule_per": "step"},
            "ReduceLROnPlateau follows the validation ELBO of each epoch, got schedule_per 'step': leave it",
        ),
        ({"schedule_per": "batch"}, "schedule_per expects 'epoch' or 'step', got 'batch'"),
        ({"schedule": torch.optim.Adam}, "the schedule cannot be made|one that makes Adam: give one of"),
        ({"kl_weight": -1.0}, "kl_weight expects a number that is not negative, got -1"),
        (
            {"kl_weight": lambda step: math.nan},
            "kl_weight expects a function whose value in step 1 is not negative, got nan",
        ),
        ({"kl_weight": lambda step: "much"}, "function whose value in step 1 is not negative, got much"),
        ({"kl_warm_up": -2}, "kl_warm_up expects a positive whole number, got -2"),
        ({"kl_cycle": 4}, "kl_cycle begins the warm-up anew every 4 epochs, got no kl_warm_up: give it"),
        ({"kl_cycle": 4, "kl_warm_up": 5}, "kl_cycle expects at least the 5 epochs of kl_warm_up, got 4"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], text: str) -> None:
    with refused(text):
        pv.fit(small(), DATA, **options)


def test_models_that_cannot_be_trained() -> None:
    with refused("fit expects a module with a Pyro model and guide, or both as .model, guide., got Digits"):
        pv.fit(DATA, small())  # type: ignore[arg-type]
    frozen = small()
    frozen.requires_grad_(False)
    with refused("expected a model with parameters to train, got none: all are frozen"):
        pv.fit(frozen, DATA)


class Flat(pv.StandardNormalPrior):
    """Forgets to declare its event axis."""

    def forward(self) -> Any:
        return dist.Normal(self.loc, self.scale)


def test_shapes_that_do_not_fit_are_refused_in_one_line_before_training(tmp_path: Path) -> None:
    with refused("expected the log density of the site 'z' to have an axis for each plate") as caught:
        pv.fit(small(prior=Flat), DATA, checkpoints=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_learning_rates_from_numpy_can_be_resumed(tmp_path: Path) -> None:
    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=np.float64(1e-3))

    pv.fit(small(), DATA, epochs=1, optimiser=adam, checkpoints=tmp_path / "new" / "folder")
    history = pv.fit(
        small(), DATA, epochs=2, optimiser=adam, checkpoints=tmp_path / "new" / "folder", resume=True
    )
    assert len(history.epochs) == 2


def test_patience_needs_validation_data() -> None:
    with refused("patience needs validation data, got none"):
        pv.fit(small(), pv.Dataset(torch.rand(200, 1, 8, 8).round()), patience=2)


def test_float64_models_train() -> None:
    model = small().double()
    history = pv.fit(model, DATA, epochs=2)
    assert history.epochs[1].train_elbo > history.epochs[0].train_elbo
    assert model.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_trains_on_a_gpu_and_resumes_there(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(KeyboardInterrupt):
        pv.fit(model, DATA, **OPTIONS, checkpoints=tmp_path, callbacks=[stop_after(3)])
    assert model.device.type == "cuda"
    resumed = small(seed=5)
    history = pv.fit(resumed, DATA, **OPTIONS, checkpoints=tmp_path, resume=True)
    assert len(history.epochs) == 6
    assert history.epochs[-1].train_elbo > history.epochs[0].train_elbo
    x = DATA.test.batch().to(resumed.device)
    assert pv.log_evidence(resumed.model, resumed.guide, x, num_particles=10).estimate.device == x.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_steps_equal_those_of_svi_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 5)
    captured, eager = small(), small()
    history = pv.fit(captured, DATA, epochs=3, keep="last", device="cuda")
    other = pv.fit(eager, DATA, epochs=3, keep="last", device="cuda", compile="off")
    assert history.column("train_elbo") == pytest.approx(other.column("train_elbo"), rel=1e-4)
    for a, b in zip(captured.parameters(), eager.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
