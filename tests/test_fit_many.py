"""`fit_many`: each member is what it would be by itself, batched or with a word why not."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.cli import processes
from pyro_vae.compiled import FlatGraph, Stacks, Untraceable
from pyro_vae.compiled.memory import most_at_once
from pyro_vae.training.steps_of_many import StepsOfMany
from tests.commands import SMALL, Run
from tests.components import (
    ARCHITECTURES,
    DATA_SHAPE,
    LATENT_DIM,
    OBJECTIVES,
    PRIORS,
    data_for,
    refused,
    vae,
)

GREY = torch.rand(90, 4, 4, generator=torch.Generator().manual_seed(0))
DATA = pv.Dataset(GREY[:60], GREY[60:80], GREY[80:], form=pv.Dynamic())
#: 60 steps, all of one shape.
LONG: dict[str, Any] = {"epochs": 10, "batch_size": 10}
#: Three steps in an epoch.
SHORT: dict[str, Any] = {"epochs": 3, "batch_size": 20}


def adam(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return partial(torch.optim.Adam, lr=rate, fused=True)


def small(network: pv.Architecture | None = None, **parts: Any) -> pv.VAE:
    return pv.assemble(DATA, latent_dim=2, network=network or pv.MLP((8,)), **parts)


def alone(make: Any, seed: int, data: Any = DATA, **options: Any) -> tuple[pv.JointProgram, pv.History]:
    torch.manual_seed(seed)
    model = make()
    return model, pv.fit(model, data, seed=seed, **options)


def deviation(one: nn.Module, other: nn.Module) -> float:
    """The largest difference in a parameter or buffer."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())


def numbers(history: pv.History) -> Tensor:
    rows = [list(epoch._replace(seconds=0.0)) for epoch in history.epochs]
    return torch.tensor(rows, dtype=torch.float64)


def check(member: pv.Fitted, model: nn.Module, history: pv.History, tolerance: float = 1e-9) -> None:
    assert deviation(member.program, model) <= tolerance
    assert torch.allclose(
        numbers(member.history), numbers(history), rtol=tolerance, atol=tolerance, equal_nan=True
    )
    assert (member.history.best_epoch, member.history.ended_by) == (history.best_epoch, history.ended_by)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of members in each batched step that was taken."""
    found: list[int] = []
    take = StepsOfMany.take

    def counted(self: StepsOfMany, indices: Any) -> Any:
        result = take(self, indices)
        found.append(len(indices))
        return result

    monkeypatch.setattr(StepsOfMany, "take", counted)
    return found


def step_by_step(optimiser: Any) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + step / 50))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({**LONG, "clip_norm": 2.0, "kl_weight": 0.5, "kl_warm_up": 3}, 60),
        ({**SHORT, "schedule": step_by_step, "schedule_per": "step", "optimiser": torch.optim.AdamW}, 9),
    ],
    ids=["clipped, KL warm-up", "scheduled"],
)
def test_each_seed_equals_its_training_alone(options: dict[str, Any], steps: int, taken: list[int]) -> None:
    found = pv.fit_many(small, DATA, seeds=[3, 5], **options)
    assert taken == [2] * (steps - 1)  # each takes the first step alone
    for member in found:
        check(member, *alone(small, member.seed, **options))


def test_in_float32_it_does_up_to_rounding_that_training_spreads(taken: list[int]) -> None:
    options: dict[str, Any] = {"epochs": 10, "batch_size": 10}
    found = pv.fit_many(small, DATA, seeds=2, **options)
    assert taken == [2] * 59
    for member in found:
        check(member, *alone(small, member.seed, **options), tolerance=1e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "optimiser",
    [
        partial(torch.optim.NAdam, lr=1e-2),
        partial(torch.optim.Adafactor, lr=1e-2),  # by norms of whole tensors
    ],
)
def test_each_optimiser_moves_its_members_as_alone(optimiser: Any, taken: list[int]) -> None:
    options = {**SHORT, "optimiser": optimiser}
    found = pv.fit_many(small, DATA, seeds=[3, 5], **options)
    assert taken == [2] * 8
    for member in found:
        check(member, *alone(small, member.seed, **options))


@pytest.mark.usefixtures("float64")
def test_hooks_of_an_optimiser_are_called(taken: list[int]) -> None:
    called = []

    def hooked(parameters: Any) -> torch.optim.Optimizer:
        made = adam(1e-3)(parameters)
        made.register_step_post_hook(lambda *_: called.append(1))
        return made

    pv.fit_many(small, DATA, seeds=2, **SHORT, optimiser=hooked)
    assert len(called) == 2 * 9 and taken == [2] * 8


@pytest.mark.usefixtures("float64")
def test_members_may_differ_in_numbers(taken: list[int]) -> None:
    each = [
        {"optimiser": adam(1e-3), "kl_weight": 1.0},
        {"optimiser": adam(1e-2), "kl_weight": 0.5, "clip_norm": 3.0, "epochs": 5},
        {"optimiser": adam(3e-3), "kl_weight": 2.0, "kl_warm_up": 4},
    ]
    options: dict[str, Any] = {"epochs": 8, "batch_size": 10}
    found = pv.fit_many(small, DATA, seeds=[1, 2], each=each, **options)
    assert [member.seed for member in found] == [1, 2] * 3
    assert taken == [6] * 29 + [4] * 18
    for member in found:
        check(member, *alone(small, member.seed, **{**options, **member.choices}))


def with_numbers(scale: float, dropout: float) -> pv.VAE:
    model = small(likelihood=partial(pv.NormalLikelihood, scale=scale))
    encoder: Any = model.posterior.encoder
    encoder.layers = nn.Sequential(encoder.layers, nn.Dropout(dropout))
    return model


@pytest.mark.usefixtures("float64")
def test_members_may_differ_in_numbers_of_their_programs(taken: list[int]) -> None:
    each = [
        {"scale": 0.3, "dropout": 0.1},
        {"scale": 0.5, "dropout": 0.4},
        {"scale": 0.3, "dropout": 0.4},
    ]
    data = pv.Dataset(GREY[:60], GREY[60:80], GREY[80:], form=pv.AsGiven())
    found = pv.fit_many(with_numbers, data, each=each, **SHORT)
    assert taken == [3] * 8
    for member in found:
        check(member, *alone(lambda one=member: with_numbers(**one.choices), 0, data, **SHORT))


@pytest.mark.usefixtures("float64")
def test_a_member_that_stops_early_stays_as_it_is(taken: list[int]) -> None:
    options: dict[str, Any] = {
        "batch_size": 20,
        "epochs": 20,
        "patience": 1,
        "optimiser": adam(3e-2),
        "keep": "last",
    }
    found = pv.fit_many(small, DATA, seeds=6, **options)
    lengths = {len(member.history.epochs) for member in found}
    assert len(lengths) > 2 and {6, 1} <= {*taken, 1}  # so that those that go on are put together anew
    for member in found:
        check(member, *alone(small, member.seed, **options))


@pytest.mark.usefixtures("float64")
def test_a_loss_that_is_not_finite_ends_its_member_only(tmp_path: Path) -> None:
    each: list[dict[str, Any]] = [{}, {"optimiser": partial(torch.optim.SGD, lr=1e200)}, {"kl_weight": 0.5}]
    found = pv.fit_many(small, DATA, each=each, **SHORT, checkpoints=tmp_path)
    model = small()
    with pytest.raises(pv.NonFiniteLossError) as caught:
        alone(lambda: model, 0, **SHORT, **each[1])
    assert str(found[1].error) == str(caught.value)
    assert found[1].history.epochs == []
    for member in (found[0], found[2]):
        assert member.error is None
        check(member, *alone(small, 0, **SHORT, **member.choices))


def regular(*layers: Callable[[], nn.Module]) -> pv.VAE:
    """A VAE with further layers at the end of its encoder and decoder."""
    model = small()
    networks: Any = (model.posterior.encoder, model.likelihood.decoder)
    for network in networks:
        network.layers = nn.Sequential(network.layers, *(layer() for layer in layers))
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [[partial(nn.Dropout, 0.3)], [partial(nn.BatchNorm1d, 8)]])
def test_dropout_and_batch_norm_are_each_members_own(layers: Any, taken: list[int]) -> None:
    options = {**SHORT, "clip_norm": 100.0}
    found = pv.fit_many(lambda: regular(*layers), DATA, seeds=3, **options)
    assert taken == [3] * 8
    for member in found:
        check(member, *alone(lambda: regular(*layers), member.seed, **options))


def combinations() -> Iterator[tuple[str, str, str]]:
    """Parts of the registry that compute in different ways, each once."""
    priors = [name for name in PRIORS if name not in ("StandardNormal", "Laplace", "StudentT")]
    likelihoods = ["Bernoulli", "ContinuousBernoulli", "Normal, scale per pixel", "Categorical"]
    likelihoods += ["DiscretizedLogisticMixture", "NegativeBinomial, in quarters", "Normal, standardised"]
    posteriors = ["LowRankNormal", "FullNormal", "Flow, inverse autoregressive"]
    parts = [*zip_longest(priors, likelihoods, posteriors)]
    usual = ("StandardNormal", "Bernoulli", "DiagonalNormal")
    for row in parts:
        prior, likelihood, posterior = (each or default for each, default in zip(row, usual, strict=True))
        yield prior, likelihood, posterior


def few(likelihood: str) -> Tensor:
    torch.manual_seed(7)
    return data_for(likelihood, 12)


FEW: dict[str, Any] = {"batch_size": 4, "epochs": 1, "optimiser": adam(1e-2)}


def obeys(make: Callable[[], pv.JointProgram], data: Any, **options: Any) -> None:
    for member in pv.fit_many(make, data, seeds=2, **FEW, **options):
        check(member, *alone(make, member.seed, data, **FEW, **options), tolerance=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", [*combinations()], ids=" ".join)
def test_every_component_is_batched(parts: tuple[str, str, str], taken: list[int]) -> None:
    obeys(lambda: vae(*parts), few(parts[1]))
    assert taken == [2, 2]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("objective", ["TraceMeanField", "ImportanceWeighted, dreg", "FreeBits"])
def test_every_objective_is_batched(objective: str, taken: list[int]) -> None:
    obeys(vae, few("Bernoulli"), objective=OBJECTIVES[objective], num_particles=2)
    assert taken == [2, 2]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["Convolutional", "ResidualConvolutional"])
def test_every_network_is_batched(name: str, taken: list[int]) -> None:
    def make() -> pv.VAE:
        network = ARCHITECTURES[name]()
        return pv.VAE(
            pv.StandardNormalPrior(LATENT_DIM),
            pv.BernoulliLikelihood(network.decoder(LATENT_DIM, DATA_SHAPE), DATA_SHAPE),
            pv.DiagonalNormalPosterior(network.encoder(DATA_SHAPE), LATENT_DIM),
        )

    obeys(make, few("Bernoulli"))
    assert taken == [2, 2]


def deciding() -> pv.VAE:
    """A VAE whose model decides by a number of the data."""

    class Deciding(pv.VAE):  # here, since the command line offers every class of a module
        def model(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().model(x) if float(x.sum()) >= 0 else x

    model = small()
    return Deciding(model.prior, model.likelihood, model.posterior)


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (deciding, {}, r"it decides by a number in a tensor \(Tensor.__float__\)"),
        (small, {"compile": "off"}, "compile is 'off'"),
    ],
)
@pytest.mark.filterwarnings("ignore:fit runs as plain Pyro")
def test_what_cannot_be_batched_is_said_and_trained_the_same(make: Any, options: Any, reason: str) -> None:
    options = {**SHORT, **options}
    with pytest.warns(UserWarning, match=f"one after the other, not batched: {reason}"):
        found = pv.fit_many(make, DATA, seeds=2, **options)
    for member in found:
        check(member, *alone(make, member.seed, **options), tolerance=0)


def test_other_networks_are_said_and_trained_the_same() -> None:
    def make(width: int) -> pv.VAE:
        return small(pv.MLP((width,)))

    with pytest.warns(UserWarning, match="not batched: tensors of the members differ in shape"):
        found = pv.fit_many(make, DATA, each=[{"width": 4}, {"width": 6}], epochs=2, batch_size=20)
    for member in found:
        check(member, *alone(lambda one=member: make(**one.choices), 0, epochs=2, batch_size=20), tolerance=0)


class Stop(Exception):
    """Stands for what ends a process."""


def stop_at(
    seed: int, epoch: int, error: type[BaseException] = Stop
) -> Callable[[pv.JointProgram, pv.History], None]:
    """Ends everything when one member has ended an epoch that it has not saved yet."""
    seen = []

    def callback(_: pv.JointProgram, history: pv.History) -> None:
        if len(history.epochs) == epoch:
            seen.append(1)
            if len(seen) == seed + 1:
                raise error

    return callback


@pytest.mark.usefixtures("float64")
def test_members_are_resumed_from_where_each_was_saved(tmp_path: Path, taken: list[int]) -> None:
    options = {**SHORT, "epochs": 4, "kl_warm_up": 2, "checkpoints": tmp_path}
    with pytest.raises(Stop):  # the first has saved epoch 2, the others epoch 1
        pv.fit_many(small, DATA, seeds=3, **options, callbacks=[stop_at(1, 2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-0", "seed-1", "seed-2"]
    taken.clear()
    found = pv.fit_many(small, DATA, seeds=3, **options, resume=True)
    assert taken == [2] * 2 + [3] * 5  # those behind catch up; the first step of each is taken alone
    options.pop("checkpoints")
    for member in found:
        check(member, *alone(small, member.seed, **options))


@pytest.mark.usefixtures("float64")
def test_a_member_goes_on_alone(tmp_path: Path) -> None:
    pv.fit_many(small, DATA, seeds=2, **SHORT, checkpoints=tmp_path)
    pv.fit_many(small, DATA, seeds=1, **SHORT, checkpoints=tmp_path / "one")
    sizes = [Path(tmp_path, name, "last.pt").stat().st_size for name in ("seed-0", "seed-1", "one/seed-0")]
    again = small()
    options = {**SHORT, "epochs": 6}
    history = pv.fit(again, DATA, seed=1, **options, checkpoints=tmp_path / "seed-1", resume=True)
    model, expected = alone(small, 1, **options)
    assert deviation(again, model) < 1e-9 and torch.allclose(numbers(history), numbers(expected))
    assert max(sizes) - min(sizes) < 100  # no file holds the other members, too


def test_options_that_cannot_be_used() -> None:
    for options, text in (
        ({"seeds": 0}, "seeds expects a positive whole number, got 0"),
        ({"seeds": [1, 1]}, "seeds expects one seed or more, each once"),
        ({"seed": 3}, "got 'seed': give seeds"),
        ({"width": 3}, "got 'width': give what `make` takes in each"),
        ({"each": []}, "each expects the choices of one member or more"),
        ({"each": [{"seed": 3}, {"seed": 4}]}, "each expects no seed, got 3: give seeds, as seeds="),
        ({"each": [{"lr": 1}]}, "each got 'lr', which is neither an option of fit nor an argument of make"),
        ({"each": [{"resume": True}]}, "each got 'resume', which is neither"),
    ):
        with refused(text):
            pv.fit_many(lambda: small(), DATA, **options)


def test_one_model_for_all_is_refused() -> None:
    model = small()
    with refused("make expects to make a new model at each call"):
        pv.fit_many(lambda: model, DATA, seeds=2, **SHORT)


def test_arguments_that_make_does_not_get_are_said() -> None:
    def make(width: int, **rest: int) -> pv.VAE:
        return small(pv.MLP((width + sum(rest.values()),)))

    with refused(r"make\(width: int.* cannot be called with \['depth'\] of each: missing .* 'width'"):
        pv.fit_many(make, DATA, each=[{"depth": 2}])
    assert len(pv.fit_many(make, DATA, each=[{"width": 4, "depth": 2}], batch_size=60, steps=1)) == 1


def test_members_do_not_share_what_they_train() -> None:
    shared = small().posterior

    def make() -> pv.VAE:
        model = small()
        return pv.VAE(model.prior, model.likelihood, shared)

    with refused("new parameters at each call, got 'posterior.* in two members: .* or freeze it"):
        pv.fit_many(make, DATA, seeds=2, **SHORT)
    shared.requires_grad_(False)
    for member in pv.fit_many(make, DATA, seeds=2, **SHORT):
        check(member, *alone(make, member.seed, **SHORT), tolerance=1e-4)


def test_memory_is_looked_at_before(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(parameter.numel() * 4 for parameter in small().parameters())
    monkeypatch.setattr("pyro_vae.training.many.available", lambda _: 5 * 3 * size - 1)
    with refused(
        "3 members take .* KiB, for parameters of .* KiB each .* free on cpu: give fewer seeds at a time"
    ):
        pv.fit_many(small, DATA, seeds=3, **SHORT)
    monkeypatch.setattr("pyro_vae.compiled.many.available", lambda _: 1024)
    with pytest.warns(UserWarning, match="a step of 2 members at once takes .* and 1.0 KiB are free on cpu"):
        pv.fit_many(small, DATA, seeds=2, **{**SHORT, "epochs": 1})


def test_a_graph_holds_at_once_what_is_still_needed() -> None:
    def twice(x: Tensor) -> tuple[Tensor, ...]:
        return ((x.exp() + 1).view(-1).sin().sum(),)  # two of 400 bytes at a time, and a view

    assert most_at_once(FlatGraph(twice, (torch.zeros(10, 10),)).module.graph) == 800


def test_what_was_there_stays() -> None:
    before = torch.get_rng_state()
    pv.fit_many(small, DATA, seeds=2, epochs=1, batch_size=20)
    assert torch.equal(torch.get_rng_state(), before)


def test_stacks_refuse_views_of_one_memory() -> None:
    whole = torch.zeros(4)
    with pytest.raises(Untraceable, match="is a view of another"):
        Stacks().of([whole[:2], whole[2:]])


TRAIN = ("train", "--seeds", "[2,4]", *SMALL, "--num_data", 40, "--out", "runs/two")


def test_seeds_are_runs_of_their_own(pyro_vae: Run) -> None:
    status, out, err = pyro_vae(*TRAIN, "--epochs", 2)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["runs/two/seed-2", "runs/two/seed-4", "2", "measured"]
    assert pyro_vae("train", "--seed", 4, *SMALL, "--num_data", 40, "--epochs", 2, "--out", "one")[0] == 0
    configs = [Path(name, "config.yaml").read_text() for name in ("one", "runs/two/seed-4")]
    assert configs[0] == configs[1]
    found = pv.compare(["runs/two", "one"])
    assert [run.members for run in found.runs] == [("runs/two/seed-2", "runs/two/seed-4"), ("one",)]
    together, alone = found.runs[0].of_members[1], found.runs[1].of_members[0]
    assert together == pytest.approx(alone, abs=1e-4)
    assert lines[2] == (
        f"2 seeds           ELBO {found.runs[0].elbo:.3f}   log p(x) {found.runs[0].log_evidence:.3f} "
        f"sd {found.runs[0].seed_deviation:.3f} over seeds"
    )
    assert pyro_vae("evaluate", "runs/two/seed-2", "--particles", 10, "--num_data", 20)[0] == 0
    assert len(pv.load("runs/two/seed-4").history.epochs) == 2


def test_seeds_go_on_by_the_same_command(pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt = stop_at(1, 2, KeyboardInterrupt)
    with monkeypatch.context() as patched:
        patched.setattr("pyro_vae.cli.members.noting", lambda *_: interrupt)
        status, _, err = pyro_vae(*TRAIN, "--epochs", 3)
    assert status == 130
    assert err.endswith("interrupted; go on with: pyro-vae train --resume runs/two\n")
    assert pyro_vae(*TRAIN, "--epochs", 3)[0] == 0
    whole = pyro_vae(*TRAIN[:-1], "whole", "--epochs", 3)
    first, second = (
        Path(name, "seed-4", "metrics.csv").read_text().splitlines() for name in ("runs/two", "whole")
    )
    assert whole[0] == 0 and len(first) == len(second) == 4
    pairs = [
        (float(a), float(b)) for a, b in zip(first[3].split(",")[:-1], second[3].split(",")[:-1], strict=True)
    ]
    assert all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)
    status, out, err = pyro_vae("train", "--resume", "runs/two", "--epochs", 4)
    assert status == 0 and "4 epochs" in out


def test_seeds_that_cannot_be_trained_there(pyro_vae: Run, trained: Path) -> None:
    for words, text in (
        (("--seeds", 0), "seeds expects a positive whole number"),
        (("--seeds", 2, "--seed", 3), "--seeds names all seeds, got --seed 3 too: give one of them"),
        (("--seeds", 2, "--out", trained), "is the folder of one run, and --seeds has several"),
    ):
        status, _, err = pyro_vae("train", *SMALL, *words)
        assert status == 2 and text in err


# --------------------------------------------------------------------------- each in a process of its own

APART = ("train", "--seeds", "[2,4]", *SMALL, "--num_data", 40, "--compile", "off", "--out", "runs/two")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_seeds_that_are_not_batched_are_trained_in_processes(pyro_vae: Run) -> None:
    status, out, err = pyro_vae(*APART, "--epochs", 1)
    assert status == 0, err
    assert err.splitlines()[0] == (
        "pyro-vae: note: 2 seeds at once, a process each: not batched, compile is 'off'"
    )
    words = [line.split()[0] for line in out.splitlines()]
    assert words == ["runs/two/seed-2", "runs/two/seed-4", "2", "measured"]
    one = ("train", "--seed", 4, *SMALL, "--num_data", 40, "--compile", "off", "--epochs", 1, "--out", "one")
    torch.set_num_threads(1)  # as each process has
    assert pyro_vae(*one)[0] == 0
    apart, alone = (
        torch.load(Path(name, "checkpoints/last.pt"))["model"] for name in ("runs/two/seed-4", "one")
    )
    assert all(torch.equal(apart[name], alone[name]) for name in alone)
    assert Path("one/config.yaml").read_text() == Path("runs/two/seed-4/config.yaml").read_text()


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> list[Any]:
    """Python code in the place of each process's command; the processes."""
    begun: list[Any] = []
    popen = subprocess.Popen

    def start(command: Any, **options: Any) -> Any:
        begun.append(popen([sys.executable, "-S", "-c", code, str(command[-1])], **options))
        return begun[-1]

    monkeypatch.setattr(processes, "_command", lambda folder: [str(folder)])
    monkeypatch.setattr(subprocess, "Popen", start)
    return begun


@pytest.mark.usefixtures("two_threads")
def test_an_interruption_ends_the_processes(pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = stand_in(monkeypatch, "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(99)")
    monkeypatch.setattr(processes._Pool, "grace", 0.1)  # so also those that do not hear

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    status, _, err = pyro_vae(*APART, "--epochs", 1)
    assert status == 130 and err.endswith("interrupted; go on with: pyro-vae train --resume runs/two\n")
    assert len(begun) == 2 and all(each.returncode is not None for each in begun)


@pytest.mark.usefixtures("two_threads")
def test_a_process_that_fails_is_told_of_and_costs_no_other(
    pyro_vae: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """if True:
        import sys
        print("UserWarning: said by both", file=sys.stderr)
        if sys.argv[1].endswith("seed-4"):
            sys.exit("pyro-vae: error: the loss is nan")
        """
    begun = stand_in(monkeypatch, code)
    monkeypatch.setattr("pyro_vae.cli.train_seeds._table", lambda folders, _: f"good: {folders}")
    monkeypatch.setattr("pyro_vae.cli.train_seeds.read_text", lambda _: "{}")
    status, out, err = pyro_vae(*APART, "--epochs", 1)
    assert status == 1 and len(begun) == 2 and "seed-2" in out and "seed-4" not in out
    assert err.splitlines()[1:] == ["UserWarning: said by both", "pyro-vae: runs/two/seed-4: the loss is nan"]


@pytest.mark.parametrize(
    ("each", "options"),
    [
        ([{"steps": 5}, {"steps": 9}], {"batch_size": 20}),
        ([{"steps": 9}, {"steps": 5}], {"batch_size": 20}),
        ([{"batch_size": 20}, {"batch_size": 30}], {"epochs": 2}),  # another number of batches
        ([{"batch_size": 35}, {"batch_size": 50}], {"steps": 3}),  # the same number of batches
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:fit_many takes the steps of one after the other")
def test_members_have_budgets_and_batches_of_their_own(each: Any, options: dict[str, Any]) -> None:
    for member in pv.fit_many(small, DATA, each=each, **options):
        check(member, *alone(small, 0, **{**options, **member.choices}), tolerance=0)


class Counting(pv.JointProgram):
    """A program that counts its calls in training, on which it depends then, or in validation."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.calls = where, 0
        self.encoder, self.decoder = nn.Linear(16, 4), nn.Linear(2, 16)
        if where == "batch norm":
            self.norm = nn.BatchNorm1d(4, momentum=None)

    def model(self, x: Tensor) -> Tensor:
        self.register(self)
        if self.where == ("training" if self.training else "validation"):
            self.calls += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            mean = self.decoder(z) * (1 + self.calls / 8 if self.where == "training" else 1.0)
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x.flatten(1))

    def guide(self, x: Tensor) -> Tensor:
        self.register(self)
        found = self.encoder(x.flatten(1))
        loc, scale = (self.norm(found) if self.where == "batch norm" else found).chunk(2, -1)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


@pytest.mark.parametrize("where", ["training", "validation", "batch norm"])
@pytest.mark.filterwarnings("ignore:fit:UserWarning", "ignore:fit_many:UserWarning")
def test_what_is_tried_leaves_no_trace_where_it_fails(where: str) -> None:
    data, make = pv.Dataset(GREY[:60], GREY[60:], form=pv.AsGiven()), partial(Counting, where)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 20, "keep": "last"}
    for member in pv.fit_many(make, data, seeds=2, **options):
        program, history = alone(make, member.seed, data, **options)
        check(member, program, history, tolerance=0)
        assert member.program.calls == program.calls
