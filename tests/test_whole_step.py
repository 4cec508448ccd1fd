"""A whole step of `fit` as one function: it gives what the flat graph and torch's Adam give."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, fx, nn
from torch.optim.lr_scheduler import ExponentialLR

import pyro_vae as pv
from pyro_vae.compiled import Compile, ahead, whole_step
from pyro_vae.compiled.graph import straight_line
from pyro_vae.compiled.whole_step import WholeStep
from pyro_vae.training.ways import Way, way_of

DATA = pv.Digits()
#: By the flat graph, and by the whole step.
BOTH: tuple[Compile, Compile] = ("flat", "auto")
#: 39 steps, the last one of each epoch smaller; the rate falls at each step, the KL weight rises over 26.
OPTIONS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 103,
    "keep": "last",
    "kl_warm_up": 2,
    "clip_norm": 30.0,
    "schedule": partial(ExponentialLR, gamma=0.97),
    "schedule_per": "step",
}


def small(**parts: Any) -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,)), **parts)


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[WholeStep]:
    """The whole steps that are taken."""
    taken: list[WholeStep] = []

    class Recorded(WholeStep):
        def __call__(self, *args: Tensor) -> list[Tensor]:
            taken.append(self)
            return super().__call__(*args)

    monkeypatch.setattr("pyro_vae.training.steps.WholeStep", Recorded)
    return taken


def as_it_is(module: fx.GraphModule, inputs: Sequence[Tensor]) -> ahead.Run:
    """The graph of a whole step, without a compiler."""
    run = straight_line(module)
    return lambda inputs: list(torch.no_grad()(run)(*inputs))  # type: ignore[arg-type]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole steps of the same operations as the flat graph."""
    monkeypatch.setattr(whole_step, "compiled_ahead", as_it_is)
    way = Way(1, inductor=False, fast=False, captured=False, whole=True)
    monkeypatch.setattr(
        "pyro_vae.training.trainer.way_of",
        lambda compile, *_: way if compile == "auto" else Way(1, False, False, False),
    )


@pytest.fixture(scope="module")
def by_flat() -> tuple[pv.VAE, pv.History]:
    """A model, and its training by the flat graph."""
    model = small()
    return model, pv.fit(model, DATA, compile="flat", **OPTIONS)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of libraries that the tests of this file share."""
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    from torch._inductor import config  # slow to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        # no trial by the compiler of each kind of instructions that the processor says it has
        patch.setattr(config.cpp, "vec_isa_ok", True)
        yield ahead.kept_in()


def test_compiled_steps_are_those_of_the_flat_graph(
    libraries: Path,
    by_flat: tuple[pv.VAE, pv.History],
    taken: list[WholeStep],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a second process that finds the library, in one that finds a broken one, and resumed."""
    whole, again, parts = small(), small(), small()
    flat, expected = by_flat
    history = pv.fit(whole, DATA, compile="inductor", **OPTIONS)
    full = 3 * (len(DATA.train) // 103) - 1  # the first step makes the optimiser's state
    assert len(taken) == full and history.epochs[-1].step == 39
    assert torch.allclose(parameters(whole), parameters(flat), rtol=1e-5, atol=1e-6)
    for one, other in zip(history.epochs, expected.epochs, strict=True):
        assert one.train_elbo == pytest.approx(other.train_elbo, rel=1e-6)
        assert one.valid_elbo == pytest.approx(other.valid_elbo, rel=1e-5)

    (kept,) = libraries.iterdir()
    monkeypatch.setattr(ahead, "_compile", lambda *_: pytest.fail("it was compiled again"))
    pv.fit(parts, DATA, compile="inductor", checkpoints=tmp_path / "run", **{**OPTIONS, "epochs": 2})
    pv.fit(parts, DATA, compile="inductor", checkpoints=tmp_path / "run", resume=True, **OPTIONS)
    assert torch.equal(parameters(parts), parameters(whole))

    made: list[Path] = []
    monkeypatch.setattr(
        ahead, "_compile", lambda _, __, to: made.append(shutil.copytree(kept, to, dirs_exist_ok=True))
    )
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    broken = tmp_path / "pyro_vae" / kept.name
    broken.mkdir(parents=True)
    (broken / "graph.so").write_bytes(b"no library")
    pv.fit(again, DATA, compile="inductor", **OPTIONS)
    assert made == [broken] and torch.equal(parameters(again), parameters(whole))


def adamw(parameters: Any) -> torch.optim.Optimizer:
    first, *rest = parameters
    groups = [{"params": [first], "lr": 1e-2, "betas": (0.8, 0.95)}, {"params": rest, "weight_decay": 0.1}]
    return torch.optim.AdamW(groups, lr=1e-3, eps=1e-6)


@pytest.mark.parametrize(
    "optimiser",
    [None, adamw, partial(torch.optim.Adam, lr=2e-3, weight_decay=0.01)],
    ids=["adam", "adamw in groups", "weight decay"],
)
@pytest.mark.usefixtures("uncompiled")
def test_in_float64_they_are_those_of_torch(
    optimiser: Any, taken: list[WholeStep], tmp_path: Path, float64: None
) -> None:
    """Steps, and what the optimiser keeps of them."""
    options = {**OPTIONS, **({"optimiser": optimiser} if optimiser else {})}
    states = []
    models = small(), small()
    for model, compile in zip(models, BOTH, strict=True):
        folder = tmp_path / compile
        pv.fit(model, DATA, compile=compile, checkpoints=folder, **options)
        states.append(torch.load(folder / "last.pt", weights_only=True)["optimiser"]["state"])
    assert len(taken) > 30
    assert torch.allclose(parameters(models[1]), parameters(models[0]), rtol=1e-10, atol=1e-12)
    for flat, whole in zip(states[0].values(), states[1].values(), strict=True):
        assert flat.keys() == whole.keys() and float(flat["step"]) == float(whole["step"]) == 39
        assert torch.allclose(whole["exp_avg_sq"], flat["exp_avg_sq"], rtol=1e-8)


@pytest.mark.usefixtures("uncompiled")
def test_noise_that_is_drawn_with_the_data_is_drawn_outside(taken: list[WholeStep]) -> None:
    data, models = DATA.in_form(pv.Dynamic()), (small(), small())
    for model, compile in zip(models, BOTH, strict=True):
        pv.fit(model, data, compile=compile, **{**OPTIONS, "epochs": 1})
    flat, whole = map(parameters, models)
    assert taken[0].batch is None and torch.allclose(flat, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("uncompiled")
def test_programs_with_something_given_and_statistics_of_batches(taken: list[WholeStep]) -> None:
    def made() -> tuple[nn.Module, Callable[..., None], Callable[..., None]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

        def model(x: Tensor, shift: Tensor, size: float) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), size).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1) + shift, 1.0), obs=x.sum(-1))

        def guide(x: Tensor, shift: Tensor, size: float) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x), 0.5).to_event(1))

        return net, model, guide

    data = pv.Batch(torch.randn(200, 3), {"shift": torch.randn(200), "size": 2.0})
    nets = []
    for compile in BOTH:
        pyro.clear_param_store()
        net, model, guide = made()
        pv.fit((model, guide), data, compile=compile, epochs=4, batch_size=20, keep="last")
        nets.append(net)
    assert len(taken) > 30 and taken[0].batch is not None
    for flat, whole in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.allclose(whole, flat, rtol=1e-4, atol=2e-6)


@pytest.mark.usefixtures("uncompiled")
def test_a_loss_that_is_not_finite_changes_nothing(taken: list[WholeStep]) -> None:
    before, stopped = small(), small()
    options = {**OPTIONS, "kl_warm_up": 0, "compile": "auto"}
    pv.fit(before, DATA, **{**options, "steps": 29}, kl_weight=lambda step: 0.5)
    with pytest.raises(pv.NonFiniteLossError, match=r"the loss is (inf|nan) at step 30"):
        pv.fit(stopped, DATA, **options, kl_weight=lambda step: 0.5 if step < 30 else 3e38)
    assert len(taken) > 50 and torch.equal(parameters(before), parameters(stopped))


def hooked(parameters: Any) -> torch.optim.Optimizer:
    optimiser = torch.optim.Adam(parameters)
    optimiser.register_step_post_hook(lambda *_: None)
    return optimiser


@pytest.mark.parametrize(
    "optimiser", [partial(torch.optim.SGD, lr=1e-4), partial(torch.optim.Adam, amsgrad=True), hooked]
)
@pytest.mark.usefixtures("uncompiled")
def test_another_optimiser_is_torchs(optimiser: Any, taken: list[WholeStep]) -> None:
    models = small(), small()
    for model, compile in zip(models, BOTH, strict=True):
        pv.fit(model, DATA, compile=compile, **{**OPTIONS, "epochs": 1, "optimiser": optimiser})
    assert not taken and torch.equal(*map(parameters, models))


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (0, "gives another value"),
        (1, "moves a parameter otherwise than Adam"),
        (2, "gives another moment of a gradient"),
        (3, "draws other random numbers"),
        (4, "no compiler"),
    ],
)
@pytest.mark.usefixtures("uncompiled")
def test_a_compiled_step_that_differs_is_not_taken(
    place: int, problem: str, by_flat: tuple[pv.VAE, pv.History], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are then those of the flat graph, to the last bit."""

    def wrong(module: fx.GraphModule, inputs: Sequence[Tensor]) -> ahead.Run:
        if place == 4:
            raise RuntimeError("no compiler")
        run = as_it_is(module, inputs)

        def changed(inputs: list[Tensor]) -> list[Tensor]:
            values = run(inputs)
            if place == 3:
                torch.rand(1)
            (values[0] if place == 0 else inputs[2 if place == 1 else 12]).mul_(1.01)
            return values

        return changed

    monkeypatch.setattr(whole_step, "compiled_ahead", wrong)
    model = small()
    with pytest.warns(UserWarning, match=f"not compiled as a whole: .*{problem}"):
        pv.fit(model, DATA, compile="auto", **OPTIONS)
    assert torch.equal(parameters(model), parameters(by_flat[0]))


def test_auto_compiles_a_long_training_on_a_cpu_and_says_the_same_of_a_short_one() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    short, long = way_of("auto", cpu, 19_999), way_of("auto", cpu, 20_000)
    assert (short.whole, long.whole) == (False, shutil.which("g++") is not None)
    assert short.rounding == long.rounding  # a short training may go on as a long one
    assert way_of("inductor", cpu).whole and not way_of("inductor", cuda).whole
    assert not any(way_of(compile, cpu, 1e9).whole for compile in ("flat", "off"))
