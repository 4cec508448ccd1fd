"""What changes from step to step in `fit`: the learning rate and the weight of the KL term."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

import pyro_vae as pv
from pyro_vae.data import batches
from pyro_vae.objectives import KLWeight
from pyro_vae.training import FIT_OPTIONS, FitOptions
from pyro_vae.training.kl import KLSchedule
from pyro_vae.training.schedules import Schedule
from pyro_vae.training.ways import Way
from tests.commands import SMALL, Run
from tests.components import refused

BITS = (np.random.RandomState(0).rand(140, 1, 3, 3) > 0.5).astype(np.uint8)
DATA = pv.Dataset(BITS[:100], BITS[100:], form=pv.Static())
#: 4 batches of 30, the last of 10.
SHORT: dict[str, Any] = {"batch_size": 30, "keep": "last"}
PER_EPOCH = 4


def small() -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((4,)))


def values(vae: pv.VAE) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in vae.parameters()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def adam(parameters: Any) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def plain(
    epochs: int,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    beta: Callable[[int], float] = lambda step: 1.0,
) -> tuple[list[Tensor], list[float]]:
    """The loop by hand, the schedule stepped after each step; parameters, and the last rate of each epoch."""
    vae, weight = small(), torch.tensor(1.0)
    optimiser = adam(vae.parameters())
    stepped = schedule(optimiser) if schedule else None
    handler, elbo = KLWeight(weight), Trace_ELBO()
    model, guide = handler(vae.model), handler(vae.guide)
    torch.manual_seed(0)
    step, rates = 0, []
    for epoch in range(1, epochs + 1):
        rate = 0.0
        for x in batches(DATA.train, 30, seed=0, epoch=epoch):
            step += 1
            weight.fill_(beta(step))
            optimiser.zero_grad()
            elbo.differentiable_loss(model, guide, x).backward()
            optimiser.step()
            rate = optimiser.param_groups[0]["lr"]
            if stepped is not None:
                stepped.step()
        rates.append(rate)
    return values(vae), rates


BY_STEP: dict[str, Callable[..., LRScheduler]] = {
    "OneCycleLR": partial(OneCycleLR, max_lr=1e-2),
    "CyclicLR": partial(CyclicLR, base_lr=1e-4, max_lr=1e-2, step_size_up=3),
    "own": lambda o, total_steps: LambdaLR(o, lambda step: 1 - step / total_steps),
    "sequence": lambda o: SequentialLR(
        o, [StepLR(o, 1), CyclicLR(o, base_lr=1e-4, max_lr=1e-2, step_size_up=3)], milestones=[5]
    ),
    "chain": lambda o: ChainedScheduler(
        [StepLR(o, 1, gamma=0.99), CyclicLR(o, base_lr=1e-4, max_lr=1e-2, step_size_up=3)]
    ),
}


def made_by_hand(name: str, total: int) -> Callable[[Optimizer], LRScheduler]:
    maker = BY_STEP[name]
    return partial(maker, total_steps=total) if name in ("OneCycleLR", "own") else maker


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.. before:UserWarning")
@pytest.mark.parametrize("name", BY_STEP)
def test_what_counts_steps_is_stepped_by_step(name: str) -> None:
    vae = small()
    history = pv.fit(vae, DATA, epochs=3, schedule=BY_STEP[name], compile="off", **SHORT)
    expected, rates = plain(3, made_by_hand(name, 3 * PER_EPOCH))
    assert equal(values(vae), expected)
    assert history.column("learning_rate") == rates


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"steps": 10}])
def test_one_cycle_comes_down_in_the_last_step(budget: dict[str, Any]) -> None:
    history = pv.fit(small(), DATA, schedule=BY_STEP["OneCycleLR"], **budget, **SHORT)
    assert history.column("learning_rate")[-1] == pytest.approx(1e-2 / 25 / 1e4)  # torch's default


def test_by_epoch_or_by_step_is_an_option() -> None:
    halved = partial(StepLR, step_size=1, gamma=0.5)
    rates = {}
    for per in (None, "epoch", "step"):
        options: dict[str, Any] = {"schedule": halved, "schedule_per": per, **SHORT}
        rates[per] = pv.fit(small(), DATA, epochs=3, **options).column("learning_rate")
    assert rates[None] == rates["epoch"] == [1e-3, 1e-3 / 2, 1e-3 / 4]
    assert rates["step"] == [1e-3 / 2 ** (4 * epoch - 1) for epoch in (1, 2, 3)]
    cycle = pv.fit(small(), DATA, epochs=3, schedule=BY_STEP["OneCycleLR"], schedule_per="epoch", **SHORT)
    by_hand = OneCycleLR(adam([torch.nn.Parameter(torch.zeros(1))]), max_lr=1e-2, total_steps=3)
    expected = []
    for _ in range(3):
        expected.append(by_hand.get_last_lr()[0])
        by_hand.optimizer.step()
        by_hand.step()
    assert cycle.column("learning_rate") == expected


def test_a_one_cycle_of_another_length() -> None:
    with refused(
        "^OneCycleLR ends after 10 of the 12 steps of this training: give total_steps=12, or leave it out, "
        "and it is filled in$"
    ):
        pv.fit(small(), DATA, epochs=3, schedule=partial(OneCycleLR, max_lr=1e-2, total_steps=10), **SHORT)
    text = (
        "^OneCycleLR is made for 100 steps, but this training has 12, so that the learning rate does not "
        "come down: give total_steps=12, or leave it out, and it is filled in$"
    )
    lengths: list[dict[str, Any]] = [{"total_steps": 100}, {"epochs": 25, "steps_per_epoch": 4}]
    for length in lengths:
        with pytest.warns(UserWarning, match=text):
            pv.fit(small(), DATA, epochs=3, schedule=partial(OneCycleLR, max_lr=1e-2, **length), **SHORT)
    with refused("OneCycleLR ends after 2 of the 3 epochs of this training: give total_steps=3"):
        short = partial(OneCycleLR, max_lr=1e-2, total_steps=2)
        pv.fit(small(), DATA, epochs=3, schedule=short, schedule_per="epoch", **SHORT)


RESUMED: dict[str, dict[str, Any]] = {
    **{name: {"schedule": maker} for name, maker in BY_STEP.items()},
    "plateau": {"schedule": partial(ReduceLROnPlateau, patience=0, threshold=0.5)},
    "restarts by step": {"schedule": partial(CosineAnnealingWarmRestarts, T_0=3), "schedule_per": "step"},
    "function of the step": {"kl_weight": lambda step: step / 20},
    "cycles": {"kl_warm_up": 1, "kl_cycle": 2},
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.. before:UserWarning")
@pytest.mark.parametrize("name", RESUMED)
def test_resumed_training_ends_as_if_never_stopped(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"epochs": 5, "compile": "off", **SHORT, **RESUMED[name]}

    def stop(vae: Any, history: pv.History) -> None:
        if len(history.epochs) == 3:
            raise KeyboardInterrupt

    whole, again = small(), small()
    expected = pv.fit(whole, DATA, **options)
    with pytest.raises(KeyboardInterrupt):
        pv.fit(small(), DATA, **options, checkpoints=tmp_path, callbacks=[stop])
    history = pv.fit(again, DATA, **options, checkpoints=tmp_path, resume=True)
    assert equal(values(again), values(whole))
    for column in ("valid_elbo", "learning_rate", "kl_weight"):
        assert history.column(column) == expected.column(column)


def test_a_training_is_not_resumed_with_another_schedule_or_weight(tmp_path: Path) -> None:
    halved = partial(StepLR, step_size=1, gamma=0.5)
    options: dict[str, Any] = {"epochs": 1, **SHORT}
    weight: dict[str, Any] = {"kl_weight": lambda step: 0.5, "kl_warm_up": 1, "kl_cycle": 2}
    pv.fit(small(), DATA, schedule=halved, **weight, **options, checkpoints=tmp_path)
    again: dict[str, Any] = {**weight, **options, "checkpoints": tmp_path, "resume": True, "schedule": halved}
    pv.fit(small(), DATA, **again)
    with refused("made with schedule StepLR .*, got StepLR .* by step: go on with the same settings"):
        pv.fit(small(), DATA, **again, schedule_per="step")
    with refused(
        r"made with kl_weight a function of the step with the values \{1: 0.5, .*\}, got a .* \{1: 0.25, "
    ):
        pv.fit(small(), DATA, **{**again, "kl_weight": lambda step: 0.25, "steps": 4})
    with refused("made with kl_warm_up 1 of every 2, got 1 of every 3: go on"):
        pv.fit(small(), DATA, **{**again, "kl_cycle": 3})


@pytest.mark.parametrize(("per", "number"), [("epoch", 3), ("step", 0)])
def test_a_graph_of_the_whole_step_is_not_made_where_the_rate_changes_within_an_epoch(
    per: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = []

    def capture(step: Callable[[], None], *_: object) -> Callable[[], None]:
        captures.append(step)
        return step

    halved: dict[str, Any] = {"schedule": partial(StepLR, step_size=1, gamma=0.5), "schedule_per": per}
    flat, whole = small(), small()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 20, "keep": "last", **halved}
    pv.fit(flat, DATA, compile="flat", **options)
    way = Way(1, inductor=False, fast=False, captured=True)
    monkeypatch.setattr("pyro_vae.training.trainer.way_of", lambda *_: way)
    monkeypatch.setattr("pyro_vae.training.trainer.make_capturable", lambda _: True)
    monkeypatch.setattr("pyro_vae.training.steps.capture", capture)
    pv.fit(whole, DATA, **options)
    assert len(captures) == number
    assert equal(values(flat), values(whole))


# ReduceLROnPlateau


def followed(elbos: list[float], **options: Any) -> list[float]:
    """The rate after each of these validation ELBOs."""
    optimiser = adam([torch.nn.Parameter(torch.zeros(1))])
    maker = partial(ReduceLROnPlateau, factor=0.5, patience=1, **options)
    schedule = Schedule(maker, optimiser, None, steps=99, epochs=99, validates=True)
    rates = []
    for elbo in elbos:
        schedule.after_epoch(elbo, warming_up=False)
        rates.append(schedule.learning_rate)
    return rates


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("shift", [0.0, 300.0], ids=["negative", "positive"])
def test_a_plateau_is_one_of_the_elbo_in_either_mode_and_of_either_sign(
    mode: str, threshold_mode: str, shift: float
) -> None:
    options = {"mode": mode, "threshold_mode": threshold_mode}
    rising = [shift - 200.0 + 10 * step for step in range(6)]
    assert followed(rising, **options) == [1e-3] * 6
    level = [shift - 150.0] * 5
    assert followed(level, **options) == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    falling = rising[::-1]
    assert followed(falling, **options) == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_relative_threshold_is_a_share_of_the_size_of_the_elbo(mode: str, sign: int) -> None:
    start, options = 100.0 * sign, {"mode": mode, "threshold": 0.1}
    assert followed([start, start + 11, start + 22.3], **options) == [1e-3] * 3
    assert followed([start, start + 4, start + 8], **options) == [1e-3, 1e-3, 5e-4]


def test_the_plateau_is_that_of_the_validation_elbo() -> None:
    def still(parameters: Any) -> Optimizer:
        return torch.optim.SGD(parameters, lr=1e-30)

    plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, eps=0)
    options: dict[str, Any] = {"epochs": 4, "optimiser": still, "schedule": plateau, **SHORT}
    rates = pv.fit(small(), DATA, **options).column("learning_rate")
    assert rates == [1e-30, 1e-30, 5e-31, 2.5e-31]
    rates = pv.fit(small(), DATA, **options, kl_warm_up=2).column("learning_rate")
    assert rates == [1e-30, 1e-30, 1e-30, 1e-30]  # the first epoch after the warm-up is its first
    with refused(
        "^ReduceLROnPlateau follows the validation ELBO, got no validation data: give a valid split"
    ):
        pv.fit(small(), pv.Dataset(BITS), **options)


# the weight of the KL term


def test_cyclical_annealing_is_that_of_fu_and_others() -> None:
    """Against their formula, of M cycles and share R: f(τ) = min(1, τ/R), τ = mod(t − 1, T/M) / (T/M)."""
    total, cycles, share, per_epoch = 120, 3, 0.5, 10
    beta = KLSchedule(1.0, warm_up=2, cycle=4, steps_per_epoch=per_epoch)
    length = total // cycles
    for step in range(1, total + 1):
        theirs = min(1.0, ((step - 1) % length) / length / share)
        assert beta(step) == pytest.approx(min(1.0, theirs + 1 / (length * share)))  # one step further


WEIGHTS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "function": ({"kl_weight": lambda step: 1 / step}, lambda step: 1 / step),
    "function of tensors": (
        {"kl_weight": lambda step: torch.tensor(step / 10).sigmoid()},
        lambda step: float(torch.tensor(step / 10).sigmoid()),
    ),
    "function in a warm-up": (
        {"kl_weight": lambda step: 2.0, "kl_warm_up": 2},
        lambda step: 2.0 * min(1, step / 8),
    ),
    "cycles": ({"kl_warm_up": 1, "kl_cycle": 2}, lambda step: min(1, ((step - 1) % 8 + 1) / 4)),
}


@pytest.mark.parametrize("compile", ["flat", "auto"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_each_step_has_its_own_weight(name: str, compile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 5)
    options, beta = WEIGHTS[name]
    vae = small()
    history = pv.fit(vae, DATA, epochs=4, compile=compile, **options, **SHORT)
    expected, _ = plain(4, beta=beta)
    for a, b in zip(values(vae), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5) if compile == "auto" else torch.equal(a, b)
    assert history.column("kl_weight") == [beta(step) for step in (4, 8, 12, 16)]


def test_a_weight_that_turns_bad_names_its_step() -> None:
    with refused("^kl_weight expects a function whose value in step 7 is not negative, got -1.0$"):
        pv.fit(small(), DATA, epochs=3, kl_weight=lambda step: 1.0 if step < 7 else -1.0, **SHORT)


# from the command line


def test_schedules_and_cycles_are_options(pyro_vae: Run) -> None:
    np.save("bits.npy", BITS)
    options = ("--data", "ArrayFile", "--data.path", "bits.npy", "--batch_size", 28, "--epochs", 4, *SMALL)
    for name, more in {
        "cycle": ("--schedule", "OneCycleLR", "--schedule.max_lr", 0.01),
        "plateau": ("--schedule", "ReduceLROnPlateau", "--schedule.patience", 0),
        "step": ("--schedule", "StepLR", "--schedule.step_size", 1, "--schedule_per", "step"),
        "annealed": ("--kl_warm_up", 1, "--kl_cycle", 2),
    }.items():
        status, _, err = pyro_vae("train", *options, *more, "--out", name)
        assert status == 0, err
        assert pyro_vae("train", "--resume", name)[0] == 0
    rates = {
        name: [float(line.split(",")[6]) for line in Path(name, "metrics.csv").read_text().splitlines()[1:]]
        for name in ("cycle", "step")
    }
    assert rates["cycle"][-1] < 1e-3 < max(rates["cycle"])
    assert rates["step"] == pytest.approx([1e-3 * 0.1 ** (4 * epoch - 1) for epoch in (1, 2, 3, 4)])
    Path("mine.py").write_text("def weight(step):\n    return 0.25\n")
    status, _, err = pyro_vae("train", *options, "--kl_weight", "mine.weight", "--out", "own")
    assert status == 0, err
    assert ",0.25," in Path("own/metrics.csv").read_text()
    assert pyro_vae("sample", "own")[0] == 0


# the options


def test_the_signature_has_every_option_with_its_default_and_type() -> None:
    parameters = inspect.signature(pv.fit).parameters
    plumbing = {
        "program",
        "data",
        "checkpoints",
        "resume",
        "about",
        "on_start",
        "callbacks",
        "progress",
        "track",
    }
    assert tuple(name for name in parameters if name not in plumbing) == FIT_OPTIONS
    for name, kind in inspect.get_annotations(FitOptions).items():
        assert parameters[name].default is getattr(FitOptions, name)
        assert parameters[name].annotation == kind
        assert f"        {name}: " in (pv.fit.__doc__ or "")
