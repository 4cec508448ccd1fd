"""Optimisers against Pyro's own and torch's by hand, to the last bit; saved, continued, refused."""

import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import adagrad_rmsprop, clipped_adam
from torch import Tensor, nn
from torch.distributions import constraints
from torch.optim import lr_scheduler

import pyro_vae as pv
from tests.components import refused as refused_by_pattern

X = torch.linspace(-1.0, 2.0, 7)
ADAM = {"lr": 0.1, "betas": (0.8, 0.99)}
SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 4]),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=20),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.5, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


class Programs:
    """A model and guide whose names can be used from a step on, or in some steps only."""

    def __init__(self, bias: Callable[[int], bool] = lambda step: True) -> None:
        self.count = 0
        self.bias = bias

    def model(self, x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
        bias = pyro.param("bias", torch.zeros(2)).sum() if self.bias(self.count) else 0.0
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z + bias, scale), obs=x)

    def guide(self, x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.1))
        pyro.sample("z", dist.Normal(loc, pyro.param("width", torch.tensor(0.3), constraints.positive)))


def refused(text: str) -> Any:
    return refused_by_pattern(re.escape(text))


def values() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train(
    optimiser: Any,
    steps: int = 6,
    *,
    first: int = 0,
    programs: Programs | None = None,
    epoch: int = 0,
) -> dict[str, Tensor]:
    """The parameters after `steps` of SVI that draw by the step's number."""
    programs = programs or Programs()
    svi = SVI(programs.model, programs.guide, optimiser, Trace_ELBO())
    for step in range(first, first + steps):
        torch.manual_seed(step)
        programs.count = step
        svi.step(X)
        if epoch and (step + 1) % epoch == 0:
            optimiser.step()
    return values()


def by_pyro(optimiser: Any, **options: Any) -> dict[str, Tensor]:
    pyro.clear_param_store()
    result = train(optimiser, **options)
    pyro.clear_param_store()
    return result


def by_name(name: str) -> dict[str, Any]:
    return {"lr": 0.3} if name.endswith("bias") else {"lr": 0.01, "betas": (0.5, 0.9)}


OPTIONS: dict[str, Any] = {"the same for all": ADAM, "by name": by_name}


def rates(optimiser: pv.SingleOptimiser) -> dict[str, float]:
    """The learning rate of each parameter by its name."""
    assert optimiser.optimiser is not None
    store = pyro.get_param_store()
    return {
        store.param_name(tensor): group["lr"]
        for group in optimiser.optimiser.param_groups
        for tensor in group["params"]
    }


#: In which steps a name is used.
BIAS: dict[str, Callable[[int], bool]] = {
    "always": lambda step: True,
    "late": lambda step: step >= 3,
    "alternately": lambda step: step % 2 == 0,
    "rarely": lambda step: step in (1, 4),
}
LATE = pytest.mark.parametrize("bias", list(BIAS.values()), ids=list(BIAS))


@LATE
@pytest.mark.parametrize("options", list(OPTIONS.values()), ids=list(OPTIONS))
def test_equals_pyros_adam_to_the_last_bit(options: Any, bias: Callable[[int], bool]) -> None:
    expected = by_pyro(pyro.optim.Adam(options), programs=Programs(bias))
    assert equal(train(pv.SingleOptimiser(torch.optim.Adam, options), programs=Programs(bias)), expected)


@LATE
def test_fused_adam_equals_pyros_fused_adam_to_the_last_bit(bias: Callable[[int], bool]) -> None:
    expected = by_pyro(pyro.optim.Adam({**ADAM, "fused": True}), programs=Programs(bias))
    assert equal(train(pv.FusedAdam(ADAM), programs=Programs(bias)), expected)


@pytest.mark.parametrize(
    ("ours", "pyros"),
    [
        (adagrad_rmsprop.AdagradRMSProp, pyro.optim.AdagradRMSProp),  # its states begin when it is made
        (torch.optim.RMSprop, pyro.optim.RMSprop),
        (torch.optim.NAdam, pyro.optim.NAdam),
        (clipped_adam.ClippedAdam, pyro.optim.ClippedAdam),
    ],
)
def test_any_torch_optimiser_equals_pyros(ours: Any, pyros: Any) -> None:
    options = {"eta": 0.05} if ours is adagrad_rmsprop.AdagradRMSProp else {"lr": 0.05}
    expected = by_pyro(pyros(options), programs=Programs(lambda step: step >= 3))
    single = pv.SingleOptimiser(ours, options)
    assert equal(train(single, programs=Programs(lambda step: step >= 3)), expected)


def test_a_vae_equals_pyros_adam_to_the_last_bit() -> None:
    data = pv.Digits()
    found = []
    for optimiser in (pv.FusedAdam(ADAM), pyro.optim.Adam({**ADAM, "fused": True})):
        pyro.clear_param_store()
        torch.manual_seed(0)
        vae = pv.assemble(data, latent_dim=2, network=pv.MLP((8,)), prior=pv.MixturePrior)
        svi = SVI(vae.model, vae.guide, optimiser, Trace_ELBO())
        found.append([svi.step(data.train.batch(slice(i, i + 50))) for i in range(0, 500, 50)])
        found[-1] += [parameter.sum().item() for parameter in vae.parameters()]
    assert found[0] == found[1]


class Mixed:
    """Batches with labels and without: modules are registered in every step, and used in some.

    In the others their parameters get no gradient. One parameter comes late, one is frozen after some
    steps, and one is never reached by the loss, if there is it.
    """

    def __init__(self, labelled: Callable[[int], bool], late: int = 7, unreached: bool = True) -> None:
        self.step, self.labelled, self.late, self.unreached = 0, labelled, late, unreached
        self.encoder, self.classifier = nn.Linear(2, 2), nn.Linear(2, 3)
        with torch.no_grad():
            for parameter in (*self.encoder.parameters(), *self.classifier.parameters()):
                parameter.copy_(torch.linspace(-0.5, 1.0, parameter.numel()).reshape(parameter.shape))

    def __call__(self) -> Tensor:
        encoder, classifier = (pyro.module(n, getattr(self, n)) for n in ("encoder", "classifier"))
        if self.unreached:
            pyro.param("unreached", torch.tensor(0.7))
        frozen = pyro.param("frozen", torch.tensor(0.2))
        if self.step == 10:
            pyro.get_param_store()._params["frozen"].requires_grad_(False)
        x = torch.tensor([[1.0, 0.3 * self.step]])
        if self.step >= self.late:
            x = x * pyro.param("late", torch.tensor(0.3))
        z = torch.tanh(encoder(x)) - frozen
        loss = (z - 0.3).square().sum()
        if self.labelled(self.step):
            loss = loss - classifier(z).log_softmax(-1)[0, 1]
        self.step += 1
        return loss


LABELLED = {
    "alternately": lambda step: step % 2 == 0,
    "alternately from the second": lambda step: step % 2 == 1,
    "late": lambda step: step >= 5,
    "early": lambda step: step < 5,
}


def mixed(optimiser: Any, labelled: Callable[[int], bool]) -> dict[str, Tensor]:
    """The parameters after 40 such steps, from an empty store."""
    pyro.clear_param_store()
    return descend(optimiser, Mixed(labelled), 40)


def in_module(module: str, name: str) -> dict[str, Any]:
    return {"lr": 0.1 if module == "classifier" else 0.03, "weight_decay": 0.1 if name == "weight" else 0.0}


@pytest.mark.parametrize("labelled", LABELLED)
@pytest.mark.parametrize(
    "options",
    [
        ADAM,
        {"lr": 0.1, "weight_decay": 0.2},
        {"lr": 0.1, "amsgrad": True, "betas": (0.5, 0.7), "eps": 1e-3},
        by_name,
        in_module,
    ],
    ids=["plain", "weight decay", "amsgrad", "by name", "by module and name"],
)
def test_parameters_without_a_gradient_move_as_in_pyro(options: Any, labelled: str) -> None:
    expected = mixed(pyro.optim.Adam(options), LABELLED[labelled])
    found = mixed(pv.SingleOptimiser(torch.optim.Adam, options), LABELLED[labelled])
    assert len(found) == 7 and equal(found, expected)
    if not callable(options):
        expected = mixed(pyro.optim.Adam({**options, "fused": True}), LABELLED[labelled])
        assert equal(mixed(pv.FusedAdam(options), LABELLED[labelled]), expected)


def test_a_semi_supervised_vae_takes_pyros_steps() -> None:
    """A classifier q(y|x) that is registered in all steps and used where there are labels."""
    labels = (X > 0).long()

    def run(optimiser: Any) -> list[float]:
        pyro.clear_param_store()
        torch.manual_seed(0)
        decoder, encoder, classifier = nn.Linear(2, 1), nn.Linear(1, 2), nn.Linear(1, 2)

        def model(x: Tensor, y: Tensor | None) -> None:
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                known = torch.zeros(len(x)) if y is None else y.float()
                loc = decoder(torch.stack([z, known], -1)).squeeze(-1)
                pyro.sample("x", dist.Normal(loc, 0.5), obs=x)

        def guide(x: Tensor, y: Tensor | None) -> None:
            for name, module in (("encoder", encoder), ("classifier", classifier)):
                pyro.module(name, module)
            with pyro.plate("data", len(x)):
                if y is not None:
                    log_q = classifier(x.unsqueeze(-1)).log_softmax(-1)
                    pyro.factor("labels", log_q.gather(-1, y.unsqueeze(-1)).squeeze(-1), has_rsample=False)
                loc, scale = encoder(x.unsqueeze(-1)).unbind(-1)
                pyro.sample("z", dist.Normal(loc, nn.functional.softplus(scale) + 0.1))

        svi = SVI(model, guide, optimiser, Trace_ELBO())
        losses = [svi.step(X, labels if step % 2 else None) for step in range(40)]
        return losses + [p.sum().item() for m in (decoder, encoder, classifier) for p in m.parameters()]

    assert run(pv.FusedAdam(ADAM)) == run(pyro.optim.Adam({**ADAM, "fused": True}))


ELEMENTWISE: dict[str, dict[str, Any]] = {  # torch's optimisers that take any dense tensor
    "Adadelta": {"lr": 0.5},
    "Adafactor": {"lr": 0.1},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
    "Adamax": {"lr": 0.1},
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "ASGD": {"lr": 0.1, "lambd": 0.1, "t0": 5.0},
    "NAdam": {"lr": 0.1},
    "RAdam": {"lr": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.1},
    "SGD": {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_torch_optimiser_moves_parameters_without_a_gradient_as_pyros(name: str) -> None:
    for labelled in LABELLED.values():
        expected = mixed(getattr(pyro.optim, name)(ELEMENTWISE[name]), labelled)
        assert equal(
            mixed(pv.SingleOptimiser(getattr(torch.optim, name), ELEMENTWISE[name]), labelled), expected
        )


@pytest.mark.parametrize("name", ["AdagradRMSProp", "ClippedAdam", "DCTAdam"])
def test_every_optimiser_of_pyro_moves_parameters_without_a_gradient_as_it_does(name: str) -> None:
    wrapped = getattr(pyro.optim, name)({})
    expected = mixed(wrapped, lambda step: step % 3 == 1)
    single = pv.SingleOptimiser(wrapped.pt_optim_constructor)
    assert equal(mixed(single, lambda step: step % 3 == 1), expected)


def test_clip_value_is_that_of_pyro_for_parameters_without_a_gradient_too() -> None:
    found = []
    for make in (partial(pyro.optim.Adam, {**ADAM, "fused": True}), partial(pv.FusedAdam, ADAM)):
        pyro.clear_param_store()  # torch cannot clip a parameter without a gradient alone, as Pyro does
        found.append(descend(make({"clip_value": 0.3}), Mixed(LABELLED["alternately"], unreached=False), 40))
    assert equal(*found)


@pytest.mark.parametrize("clip_args", [{"clip_value": 0.3}, {"clip_norm": 0.3}])
def test_without_any_gradient_there_is_nothing_to_clip(clip_args: dict[str, float]) -> None:
    optimiser = pv.FusedAdam(ADAM, clip_args)
    found = descend(optimiser, lambda: pyro.param("a", torch.tensor(2.0)).detach())
    assert found["a"] == 2.0


@pytest.mark.parametrize("name", ["StepLR", "ExponentialLR", "CosineAnnealingLR", "OneCycleLR"])
def test_schedules_equal_pyros_for_parameters_without_a_gradient(name: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "StepLR": {"step_size": 2, "gamma": 0.5},
        "ExponentialLR": {"gamma": 0.9},
        "CosineAnnealingLR": {"T_max": 6},
        "OneCycleLR": {"max_lr": 0.2, "total_steps": 20},
    }
    options = arguments[name]
    scheduler = getattr(lr_scheduler, name)
    adam = {"optimizer": torch.optim.Adam, "optim_args": {**ADAM, "fused": True}}

    def run(optimiser: Any) -> dict[str, Tensor]:
        pyro.clear_param_store()
        loss = Mixed(LABELLED["alternately"], late=0)  # a late one has a schedule of its own in Pyro
        for _ in range(12):
            found = descend(optimiser, loss, 3)
            optimiser.step()
        return found

    expected = run(getattr(pyro.optim, name)({**adam, **options}))
    assert equal(run(pv.FusedAdam(ADAM, schedule=lambda o: scheduler(o, **options))), expected)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_parameters_move_as_in_pyro(dtype: torch.dtype) -> None:
    def run(optimiser: Any) -> dict[str, Tensor]:
        pyro.clear_param_store()
        steps = iter(range(40))

        def loss() -> Tensor:
            c, r = pyro.param("c", torch.tensor([1 + 2j, -1j], dtype=dtype)), pyro.param("r", torch.ones(2))
            return (r**2).sum() + (c.abs() ** 3).sum() if next(steps) % 2 else (r**4).sum()

        return descend(optimiser, loss, 40)

    expected = run(pyro.optim.Adam(ADAM))
    assert equal(run(pv.SingleOptimiser(torch.optim.Adam, ADAM)), expected)


def test_one_optimiser_for_several_svis_and_several_for_the_same_parameters_equal_pyros() -> None:
    """Gradients that another optimiser left at zero count as there."""

    def run(make: Callable[[], Any]) -> dict[str, Tensor]:
        pyro.clear_param_store()
        shared, other = make(), make()
        for step in range(40):
            used = "ab" if step % 4 else "abc"

            def loss(used: str = used, step: int = step) -> Tensor:
                params = [pyro.param(name, torch.tensor(1.0)) for name in "abc"]
                kept = [p for p, name in zip(params, "abc", strict=True) if name in used]
                return torch.stack([torch.sin(3 * p + step) for p in kept]).sum()

            descend(other if step > 5 and step % 3 == 0 else shared, loss)
        return values()

    expected = run(lambda: pyro.optim.Adam({**ADAM, "fused": True}))
    assert equal(run(lambda: pv.FusedAdam(ADAM)), expected)


def quadratic(curvatures: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A loss ½ Σ c θ², whose gradient in each parameter is c θ."""

    def loss() -> Tensor:
        terms = [(c * pyro.param(name, torch.ones_like(c)) ** 2).sum() / 2 for name, c in curvatures.items()]
        return torch.stack(terms).sum()

    return loss


def descend(optimiser: Any, loss: Callable[[], Tensor], steps: int = 1) -> dict[str, Tensor]:
    svi = SVI(loss, loss, optimiser, lambda model, guide: model())
    for _ in range(steps):
        svi.step()
    return values()


CURVATURES = {"a": torch.tensor([3.0, -0.5]), "b": torch.tensor(4.0), "c": torch.tensor([[0.1, 2.0, 0.3]])}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.2, "amsgrad": True, "fused": True}),
    ],
)
def test_equals_torch_by_hand(make: Any, options: dict[str, Any]) -> None:
    by_hand = [torch.ones_like(c).requires_grad_() for c in CURVATURES.values()]
    reference = make(by_hand, **options)
    for _ in range(5):
        reference.zero_grad()
        torch.stack(
            [(c * p**2).sum() / 2 for c, p in zip(CURVATURES.values(), by_hand, strict=True)]
        ).sum().backward()
        reference.step()
    found = descend(pv.SingleOptimiser(make, options), quadratic(CURVATURES), 5)
    assert equal(found, dict(zip(CURVATURES, by_hand, strict=True)))


def test_clip_norm_is_that_of_the_whole_gradient_and_clip_value_of_each_element() -> None:
    norm = math.sqrt(sum((c**2).sum().item() for c in CURVATURES.values()))
    sgd = partial(pv.SingleOptimiser, torch.optim.SGD, {"lr": 1.0})
    for bound, factor in ((0.5, 0.5 / norm), (100.0, 1.0), (None, 1.0)):
        pyro.clear_param_store()
        found = descend(sgd({"clip_norm": bound}), quadratic(CURVATURES))
        for name, c in CURVATURES.items():
            torch.testing.assert_close(found[name], 1 - factor * c, rtol=1e-5, atol=1e-6)
    pyro.clear_param_store()
    found = descend(sgd({"clip_value": 0.4}), quadratic(CURVATURES))
    assert equal(found, {name: 1 - c.clamp(-0.4, 0.4) for name, c in CURVATURES.items()})
    pyro.clear_param_store()
    found = descend(sgd({"clip_norm": 0.5, "clip_value": 0.2}), quadratic(CURVATURES))
    for name, c in CURVATURES.items():
        torch.testing.assert_close(found[name], 1 - (c * 0.5 / norm).clamp(-0.2, 0.2), rtol=1e-5, atol=1e-6)


def test_order_of_the_parameters_changes_nothing() -> None:
    """SVI hands over a set, whose order is that of addresses."""
    shapes = {f"p{i}": torch.randn(i + 1) * 10.0**i for i in range(6)}
    found = []
    for names in (list(shapes), list(reversed(shapes)), ["p3", "p0", "p5", "p1", "p4", "p2"]):
        pyro.clear_param_store()
        loss = quadratic({name: shapes[name] for name in names})
        optimiser = pv.FusedAdam(ADAM, {"clip_norm": 0.3})
        result = descend(optimiser, loss, 3)
        state = optimiser.get_state()
        found.append((result, [*state], [one["state"][0]["exp_avg"] for one in state.values()]))
        assert [id(p) for p in optimiser.parameters] == [
            id(pyro.get_param_store()._params[n]) for n in sorted(shapes)
        ]
    for result, names, moments in found[1:]:
        assert equal(result, found[0][0])
        assert names == found[0][1] == sorted(shapes)
        assert all(torch.equal(a, b) for a, b in zip(moments, found[0][2], strict=True))


def test_names_are_those_of_named_parameters() -> None:
    seen = []

    def options(name: str) -> dict[str, Any]:
        seen.append(name)
        return {"lr": 0.0 if name.endswith("bias") else 1.0}

    network = nn.Linear(2, 1)
    before = [p.detach().clone() for p in network.parameters()]

    def loss() -> Tensor:
        return pyro.module("network", network)(torch.ones(3, 2)).sum()

    descend(pv.SingleOptimiser(torch.optim.SGD, options), loss)
    assert seen == ["network.bias", "network.weight"]
    assert torch.equal(network.weight, before[0] - 3)
    assert torch.equal(network.bias, before[1])


def test_equal_options_share_a_group() -> None:
    optimiser = pv.FusedAdam(by_name)
    train(optimiser, programs=Programs(lambda step: step >= 3))
    assert optimiser.optimiser is not None
    assert [len(group["params"]) for group in optimiser.optimiser.param_groups] == [3, 1]
    assert rates(optimiser) == {"scale": 0.01, "loc": 0.01, "width": 0.01, "bias": 0.3}
    assert all(group["fused"] for group in optimiser.optimiser.param_groups)


def test_fused_can_be_switched_off() -> None:
    expected = by_pyro(pyro.optim.Adam(ADAM))
    assert equal(train(pv.FusedAdam({**ADAM, "fused": False})), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fused_adam_takes_every_floating_point(dtype: torch.dtype) -> None:
    found = descend(pv.FusedAdam({"lr": 0.5}), quadratic({"a": torch.ones(3, dtype=dtype)}))
    torch.testing.assert_close(found["a"], torch.full((3,), 0.5, dtype=dtype))


def test_gradients_are_none_after_a_step_and_others_are_left() -> None:
    used = {"b": True}

    def loss() -> Tensor:
        total = pyro.param("a", torch.tensor(1.0)) ** 2
        return total + pyro.param("b", torch.tensor(2.0)) ** 2 if used["b"] else total

    optimiser = pv.FusedAdam({"lr": 0.1})
    descend(optimiser, loss)
    store = pyro.get_param_store()
    assert all(store._params[name].grad is None for name in "ab")
    used["b"] = False
    before = store["b"].detach().clone()
    gradient = store._params["b"].grad = torch.tensor(7.0)  # of another SVI, say
    descend(optimiser, loss)
    assert torch.equal(store["b"], before) and store._params["b"].grad is gradient


def test_a_tensor_put_in_the_place_of_another_begins_anew_as_in_pyro() -> None:
    def twice(optimiser: Any) -> dict[str, Tensor]:
        pyro.clear_param_store()
        descend(optimiser, quadratic(CURVATURES), 3)
        pyro.get_param_store()["a"] = torch.tensor([2.0, 3.0])
        descend(optimiser, quadratic(CURVATURES), 2)
        pyro.clear_param_store()
        return descend(optimiser, quadratic(CURVATURES), 2)

    expected = twice(pyro.optim.Adam({**ADAM, "fused": True}))
    single = pv.FusedAdam(ADAM)
    assert equal(twice(single), expected)
    assert len(rates(single)) == 3 and len(single.parameters) == 3
    assert single.optimiser is not None and len(single.optimiser.state) == 3


def test_no_parameters_no_step() -> None:
    optimiser = pv.FusedAdam()
    optimiser(set())
    assert optimiser.optimiser is None and optimiser.get_state() == {}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_torch_by_hand(name: str) -> None:
    by_hand = [torch.ones_like(c).requires_grad_() for c in CURVATURES.values()]
    reference = torch.optim.Adam(by_hand, lr=0.1, fused=True)
    schedule = SCHEDULES[name](reference)
    optimiser = pv.FusedAdam({"lr": 0.1}, schedule=SCHEDULES[name])
    for _ in range(6):
        reference.zero_grad()
        torch.stack(
            [(c * p**2).sum() / 2 for c, p in zip(CURVATURES.values(), by_hand, strict=True)]
        ).sum().backward()
        reference.step()
        schedule.step()
        found = descend(optimiser, quadratic(CURVATURES))
        optimiser.step()
        assert set(rates(optimiser).values()) == {reference.param_groups[0]["lr"]}
    assert equal(found, dict(zip(CURVATURES, by_hand, strict=True)))


def test_a_schedule_equals_pyros() -> None:
    options = {"optimizer": torch.optim.Adam, "optim_args": dict(ADAM), "gamma": 0.5, "step_size": 2}
    expected = by_pyro(pyro.optim.StepLR(options), epoch=1)
    assert equal(
        train(pv.SingleOptimiser(torch.optim.Adam, ADAM, schedule=SCHEDULES["StepLR"]), epoch=1), expected
    )


def test_late_parameters_join_the_schedule_where_it_is() -> None:
    optimiser = pv.FusedAdam(ADAM, schedule=SCHEDULES["StepLR"])
    train(optimiser, 5, programs=Programs(lambda step: step >= 3), epoch=1)
    assert rates(optimiser) == dict.fromkeys(("scale", "loc", "width", "bias"), 0.025)


def test_a_late_group_under_a_schedule_is_refused_and_what_was_trained_stays() -> None:
    optimiser = pv.FusedAdam(by_name, schedule=SCHEDULES["StepLR"])
    programs = Programs(lambda step: step >= 3)
    before = train(optimiser, 3, programs=programs)
    for _ in range(2):
        with refused(
            "expected the options of a group that the schedule began with, got {'fused': True, 'lr': 0.3} "
            "for bias, which came later: give it the options of another, use it in the first step, or leave "
            "out the schedule"
        ):
            train(optimiser, 1, first=3, programs=programs)
        assert len(rates(optimiser)) == 3
    assert equal({name: value for name, value in values().items() if name != "bias"}, before)


def test_a_late_group_right_after_a_load_is_refused_and_the_state_is_not_lost(tmp_path: Path) -> None:
    programs = Programs(lambda step: step == 3)
    make = partial(pv.FusedAdam, by_name, schedule=SCHEDULES["StepLR"])
    expected = by_pyro(make(), steps=3, programs=programs, epoch=1)
    first = make()
    train(first, 2, programs=programs, epoch=1)
    snapshot(first, tmp_path)
    second = new_process(make(), tmp_path)
    with refused("expected the options of a group that the schedule began with"):
        train(second, 1, first=3, programs=programs)
    pyro.infer.util.zero_grads(pyro.get_param_store()._params.values())  # of the refused step
    found = train(second, 1, first=2, programs=programs, epoch=1)
    assert equal({name: found[name] for name in expected}, expected)


def test_reduce_on_plateau_takes_its_metric() -> None:
    optimiser = pv.FusedAdam({"lr": 0.1}, schedule=lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1))
    for metric in (1.0, 2.0, 2.0):
        descend(optimiser, quadratic(CURVATURES))
        optimiser.step(metric)
    assert rates(optimiser)["a"] == pytest.approx(0.01)
    with pytest.raises(TypeError, match="metrics"):
        optimiser.step()


def test_the_schedule_of_a_made_optimiser() -> None:
    parameter = nn.Parameter(torch.tensor(1.0))
    made = torch.optim.SGD([parameter], lr=0.1)
    optimiser = pv.SingleOptimiser(made, schedule=SCHEDULES["ExponentialLR"])
    svi = SVI(lambda: 0, lambda: 0, optimiser, lambda model, guide: pyro.param("p", parameter) * 1.0)
    for _ in range(2):
        svi.step()
        optimiser.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor(1 - 0.1 - 0.09))
    assert made.param_groups[0]["lr"] == pytest.approx(0.081)


def snapshot(optimiser: Any, path: Path) -> None:
    optimiser.save(str(path / "optimiser.pt"))
    pyro.get_param_store().save(str(path / "store.pt"))


def new_process(optimiser: Any, path: Path) -> Any:
    """As a new process begins: parameters from a file, an optimiser that has met none of them."""
    pyro.clear_param_store()
    pyro.get_param_store().load(str(path / "store.pt"))
    optimiser.load(str(path / "optimiser.pt"))
    return optimiser


def same_state(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


#: A group that comes late is refused under a schedule, so that all options by name are there from the start.
CONTINUED = [
    (name, options, bias)
    for name in ("none", *SCHEDULES)
    for options in OPTIONS
    for bias in BIAS
    if name == "none" or options == "the same for all" or bias == "always"
]


@pytest.mark.parametrize(("name", "options", "bias"), CONTINUED)
@pytest.mark.parametrize("stopped", [1, 4, 5])
def test_continued_in_a_new_process_as_if_never_stopped(
    tmp_path: Path, name: str, options: str, bias: str, stopped: int
) -> None:
    schedule = SCHEDULES.get(name)
    run = partial(train, programs=Programs(BIAS[bias]), epoch=2 if schedule else 0)
    make = partial(pv.FusedAdam, OPTIONS[options], {"clip_norm": 0.5}, schedule=schedule)
    whole = make()
    expected = run(whole, 8)
    pyro.clear_param_store()
    first = make()
    run(first, stopped)
    snapshot(first, tmp_path)
    second = new_process(make(), tmp_path)
    snapshot(second, tmp_path)  # saved again before a step: nothing is lost
    third = new_process(make(), tmp_path)
    found = run(third, 8 - stopped, first=stopped)
    assert equal(found, expected)
    assert same_state(third.get_state(), whole.get_state())


def pyros(name: str, options: Any) -> Any:
    """Pyro's optimiser under that schedule."""
    adam = {"optimizer": torch.optim.Adam, "optim_args": options}
    arguments: dict[str, dict[str, Any]] = {
        "none": {},
        "StepLR": {"step_size": 2, "gamma": 0.5},
        "MultiStepLR": {"milestones": [1, 4]},
        "ExponentialLR": {"gamma": 0.9},
        "LinearLR": {"start_factor": 0.1, "total_iters": 5},
        "LambdaLR": {"lr_lambda": lambda epoch: 1 / (1 + epoch)},
        "CosineAnnealingLR": {"T_max": 6},
        "CosineAnnealingWarmRestarts": {"T_0": 3},
        "OneCycleLR": {"max_lr": 0.2, "total_steps": 20},
        "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False},
    }
    if name == "none":
        return pyro.optim.Adam(options)
    return getattr(pyro.optim, name)({**adam, **arguments[name]})


def fused_by_name(name: str) -> dict[str, Any]:
    return {**by_name(name), "fused": True}


EXCHANGED = ["none", *[name for name in SCHEDULES if name != "SequentialLR"]]


@pytest.mark.parametrize("name", EXCHANGED)
@pytest.mark.parametrize("options", [{**ADAM, "fused": True}, fused_by_name], ids=["the same", "by name"])
@pytest.mark.parametrize("to_pyro", [True, False], ids=["to Pyro", "from Pyro"])
def test_states_are_exchanged_with_pyros_optimisers(
    tmp_path: Path, name: str, options: Any, to_pyro: bool
) -> None:
    run = partial(train, epoch=0 if name == "none" else 2)
    expected = by_pyro(pyros(name, options), steps=12, epoch=0 if name == "none" else 2)
    pair = pv.FusedAdam(options, schedule=SCHEDULES.get(name)), pyros(name, options)
    first, second = pair if to_pyro else reversed(pair)
    run(first, 5)
    snapshot(first, tmp_path)
    assert equal(run(new_process(second, tmp_path), 7, first=5), expected)


def test_a_state_has_the_very_keys_and_values_of_pyros() -> None:
    for name in ("none", "StepLR"):
        found = []
        for optimiser in (
            pyros(name, {**ADAM, "fused": True}),
            pv.FusedAdam(ADAM, schedule=SCHEDULES.get(name)),
        ):
            pyro.clear_param_store()
            train(optimiser, epoch=0 if name == "none" else 2)
            found.append(optimiser.get_state())
        assert same_state(found[0], found[1])


def test_a_state_of_pyros_unfused_adam_goes_on_unfused(tmp_path: Path) -> None:
    expected = by_pyro(pyro.optim.Adam(ADAM), steps=20)
    first = pyro.optim.Adam(ADAM)
    train(first, 10)
    snapshot(first, tmp_path)
    assert equal(train(new_process(pv.FusedAdam(ADAM), tmp_path), 10, first=10), expected)


def test_late_parameters_after_a_load_have_their_own_options_as_in_pyro(tmp_path: Path) -> None:
    programs = Programs(lambda step: step >= 5)
    found = []
    for late in ({"lr": 0.3}, ADAM):  # the state is that of the second
        made = [pyro.optim.Adam({**late, "fused": True}), pv.FusedAdam(late)]
        for optimiser in made:
            pyro.clear_param_store()
            first = pyro.optim.Adam({**ADAM, "fused": True})
            train(first, 4, programs=programs)
            snapshot(first, tmp_path)
            found.append(train(new_process(optimiser, tmp_path), 6, first=4, programs=programs))
    assert equal(found[0], found[1]) and equal(found[2], found[3]) and not equal(found[0], found[2])


def test_parameters_without_a_gradient_right_after_a_load_go_on_as_if_never_stopped(tmp_path: Path) -> None:
    def loss() -> Tensor:
        a, b = (pyro.param(name, torch.tensor(1.0)) for name in "ab")
        return a**2 if len(steps) % 3 else a**2 + b**2

    steps: list[int] = []

    def go(optimiser: Any, count: int) -> dict[str, Tensor]:
        for _ in range(count):
            descend(optimiser, loss)
            steps.append(1)
        return values()

    expected = go(pyro.optim.Adam({**ADAM, "fused": True}), 9)
    pyro.clear_param_store()
    steps.clear()
    first = pv.FusedAdam(ADAM)
    go(first, 4)
    snapshot(first, tmp_path)
    assert equal(go(new_process(pv.FusedAdam(ADAM), tmp_path), 5), expected)


def test_pyros_schedules_at_several_places_are_refused() -> None:
    late = pyro.optim.StepLR(
        {"optimizer": torch.optim.Adam, "optim_args": dict(ADAM), "gamma": 0.5, "step_size": 2}
    )
    train(late, 6, programs=Programs(lambda step: step >= 3), epoch=1)
    optimiser = pv.FusedAdam(ADAM, schedule=SCHEDULES["StepLR"])
    optimiser.set_state(late.get_state())
    with refused(
        "expected schedules at one place, since one schedule moves all parameters here, got them at 3, 6: go "
        "on with the optimiser of pyro.optim that was saved"
    ):
        train(optimiser, 1, first=6)


def test_a_state_waits_for_parameters_that_come_later_and_is_saved_with_them(tmp_path: Path) -> None:
    programs = Programs(lambda step: step != 4)
    expected = by_pyro(pv.FusedAdam(ADAM), programs=programs)
    first = pv.FusedAdam(ADAM)
    train(first, 4, programs=programs)
    snapshot(first, tmp_path)
    second = new_process(pv.FusedAdam(ADAM), tmp_path)
    train(second, 1, first=4, programs=programs)  # without bias, whose state waits
    assert len(second.parameters) == 3 and len(second.get_state()) == 4
    snapshot(second, tmp_path)
    third = new_process(pv.FusedAdam(ADAM), tmp_path)
    assert equal(train(third, 1, first=5, programs=programs), expected)


def test_states_are_copies_and_can_be_set_again_in_the_same_object() -> None:
    optimiser = pv.FusedAdam(ADAM, schedule=SCHEDULES["StepLR"])
    train(optimiser, 3, epoch=1)
    state, before = optimiser.get_state(), values()
    expected = train(optimiser, 3, first=3, epoch=1)
    for _ in range(2):
        for name, value in before.items():
            pyro.get_param_store()._params[name].data.copy_(value)
        optimiser.set_state(state)
        assert same_state(optimiser.get_state(), state)
        assert equal(train(optimiser, 3, first=3, epoch=1), expected)


def test_the_state_of_a_made_optimiser(tmp_path: Path) -> None:
    data = pv.Digits()

    def run(steps: Iterable[int], resume: bool) -> tuple[pv.SingleOptimiser, pv.VAE]:
        pyro.clear_param_store()
        torch.manual_seed(0)
        vae = pv.assemble(data, latent_dim=2, network=pv.MLP((8,)))
        made = torch.optim.Adam(vae.parameters(), lr=1e-2)
        optimiser = pv.SingleOptimiser(made, schedule=SCHEDULES["LinearLR"])
        if resume:
            vae.load_state_dict(torch.load(tmp_path / "vae.pt"))
            optimiser.load(tmp_path / "optimiser.pt")
        svi = SVI(vae.model, vae.guide, optimiser, Trace_ELBO())
        for step in steps:
            torch.manual_seed(step)
            svi.step(data.train.batch(slice(50 * step, 50 * step + 50)))
            optimiser.step()
        return optimiser, vae

    whole, expected = run(range(6), resume=False)
    part, vae = run(range(3), resume=False)
    part.save(tmp_path / "optimiser.pt")
    torch.save(vae.state_dict(), tmp_path / "vae.pt")
    rest, found = run(range(3, 6), resume=True)
    assert equal(dict(found.named_parameters()), dict(expected.named_parameters()))
    assert same_state(rest.get_state(), whole.get_state())


def test_made_optimisers_refuse_other_parameters() -> None:
    held, other = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))
    optimiser = pv.SingleOptimiser(torch.optim.SGD([held], lr=0.1))
    text = "got 1 of 1 not used by the programs and 1 that it does not hold: register every module"
    with refused(text):
        descend(optimiser, lambda: pyro.param("p", other) * 1.0)
    with refused("got 1 of 1 not used by the programs and 0 that it does not hold"):
        optimiser(set())
    descend(optimiser, lambda: pyro.param("q", held) * 1.0)
    with refused(text):
        descend(optimiser, lambda: pyro.param("p", other) * 1.0)
    assert held.item() == pytest.approx(0.9) and other.item() == 1.0


def test_numbers_from_numpy_can_be_saved_and_loaded(tmp_path: Path) -> None:
    optimiser = pv.FusedAdam({"lr": np.float64(0.1)})
    descend(optimiser, quadratic(CURVATURES))
    optimiser.save(tmp_path / "optimiser.pt")
    optimiser.load(str(tmp_path / "optimiser.pt"), map_location="cpu")


def test_saved_before_the_first_step(tmp_path: Path) -> None:
    expected = by_pyro(pv.FusedAdam(ADAM))
    pv.FusedAdam(ADAM).save(tmp_path / "optimiser.pt")
    optimiser = pv.FusedAdam(ADAM)
    optimiser.load(tmp_path / "optimiser.pt")
    assert equal(train(optimiser), expected)


def saved(names: str, **options: Any) -> dict[str, Any]:
    """The state of an optimiser of parameters with these letters."""
    pyro.clear_param_store()
    optimiser = pv.FusedAdam(**options)
    descend(optimiser, quadratic({name: torch.ones(2) for name in names}))
    pyro.clear_param_store()
    return optimiser.get_state()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (
            lambda: saved("xyz"),
            "expected a state of the parameters that are trained, got one that lacks a and 2 more "
            "and names x and 2 more that this step does not use: load the state saved with this model and "
            "guide",
        ),
        (lambda: saved("abx"), "got one that lacks c and names x that this step"),
        (
            lambda: saved("ab"),
            "expected a state for b of shape (), got (2,): load the state saved with this model and guide",
        ),
        (
            lambda: saved("a", schedule=SCHEDULES["StepLR"]),
            "expected a state without a schedule, got one under a schedule for a: make the optimiser as the "
            "one that was saved",
        ),
    ],
)
def test_states_of_another_are_refused_in_every_step(state: Callable[[], Any], text: str) -> None:
    given = state()
    optimiser = pv.FusedAdam()
    optimiser.set_state(given)
    curvatures = CURVATURES if "shape" in text else {name: torch.ones(2) for name in "abc"}
    for _ in range(2):
        with refused(text):
            descend(optimiser, quadratic(curvatures))
    optimiser.set_state(saved("abc"))
    descend(optimiser, quadratic({name: torch.ones(2) for name in "abc"}))


def test_states_of_another_optimiser_or_schedule_are_refused() -> None:
    given = saved("abc")
    loss = quadratic({name: torch.ones(2) for name in "abc"})
    sgd = pv.SingleOptimiser(torch.optim.SGD, {"lr": 0.1})
    sgd.set_state(given)
    with refused(
        "expected a state of SGD, got one of an optimiser that differs in its options amsgrad, betas, "
        "dampening, eps, momentum, nesterov"
    ):
        descend(sgd, loss)
    scheduled = pv.FusedAdam(schedule=SCHEDULES["StepLR"])
    scheduled.set_state(given)
    with refused("expected a state under a schedule, got one without a schedule for a"):
        descend(scheduled, loss)
    scheduled.set_state(saved("abc", schedule=SCHEDULES["LinearLR"]))
    with refused(
        "expected a state under StepLR, got one under a schedule that differs in end_factor, gamma, "
        "start_factor, step_size, total_iters"
    ):
        descend(scheduled, loss)


def test_a_made_optimiser_refuses_a_state_of_other_groups_or_parameters() -> None:
    given = saved("abc", optim_args=lambda name: {"lr": 0.1 if name == "b" else 0.2})
    held = [nn.Parameter(torch.ones(2)) for _ in "abc"]
    made = pv.SingleOptimiser(torch.optim.Adam([{"params": held[:1]}, {"params": held[1:]}]))

    def loss() -> Tensor:
        return torch.stack([pyro.param(n, p).sum() for n, p in zip("abc", held, strict=True)]).sum()

    made.set_state(given)
    with refused("expected a state with equal options for the parameters of a group, got {'lr': 0.2, "):
        descend(made, loss)
    made.set_state({name: given[name] for name in "ab"})
    with refused("got one that lacks c and names none that this step does not use"):
        descend(made, loss)


def test_files_that_are_no_state_are_refused(tmp_path: Path) -> None:
    optimiser = pv.FusedAdam()
    with refused(f"expected a checkpoint at {tmp_path}/none.pt, found none"):
        optimiser.load(tmp_path / "none.pt")
    with refused(
        "expected a state by the names of parameters, as get_state of an optimiser for SVI gives it, got "
        "dict for 'state'"
    ):
        optimiser.set_state(torch.optim.Adam([torch.ones(1, requires_grad=True)]).state_dict())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: pv.FusedAdam({"learning_rate": 1.0}),
            "the optimiser cannot be made: Adam.__init__() got an unexpected keyword argument 'learning",
        ),
        (lambda: pv.FusedAdam({"lr": -1.0}), "the optimiser cannot be made: Invalid learning rate: -1.0"),
        (lambda: pv.FusedAdam(0.1), "optim_args expects a dictionary or a function from names, got 0.1"),  # type: ignore
        (
            lambda: pv.FusedAdam(lambda name: 0.1),  # type: ignore
            "optim_args expects a function from names to dictionaries, got 0.1 for a",
        ),
        (lambda: pv.FusedAdam(clip_args={"clip_norm": 0.0}), "clip_norm expects a positive number, got 0.0"),
        (
            lambda: pv.FusedAdam(clip_args={"clip_value": -1.0}),
            "clip_value expects a positive number, got -1.0",
        ),
        (
            lambda: pv.FusedAdam(clip_args={"norm": 1.0}),
            "clip_args expects a dictionary of clip_norm and clip_value, got {'norm': 1.0}",
        ),
        (
            lambda: pv.FusedAdam(schedule=lambda o: o),  # type: ignore
            "schedule expects a function from a torch optimiser to a scheduler, got Adam",
        ),
        (lambda: pv.SingleOptimiser(torch.optim.LBFGS), "optimiser for dense gradients, got LBFGS: use Adam"),
        (
            lambda: pv.SingleOptimiser(torch.optim.SGD([torch.ones(1)]), {"lr": 0.1}),
            "optim_args expects a torch optimiser's class, got a made one: leave them out",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[], pv.SingleOptimiser], text: str) -> None:
    with refused(text):
        descend(make(), quadratic(CURVATURES))


def test_what_cannot_be_stepped_is_refused() -> None:
    with refused("expected a schedule to step, got none: give schedule, or leave out step()"):
        pv.FusedAdam().step()
    with refused("expected a step of SVI before one of the schedule, got none"):
        pv.FusedAdam(schedule=SCHEDULES["StepLR"]).step()
    with refused(
        "expected parameters of Pyro's parameter store, got a tensor of shape (3,) that is not in it"
    ):
        pv.FusedAdam()([torch.ones(3)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_equals_pyros_and_goes_on_from_a_file(tmp_path: Path) -> None:
    loss = quadratic({name: c.cuda() for name, c in CURVATURES.items()})
    expected = descend(pyro.optim.Adam({**ADAM, "fused": True}), loss, 4)
    pyro.clear_param_store()
    first = pv.FusedAdam(ADAM)
    descend(first, loss, 2)
    snapshot(first, tmp_path)
    assert equal(descend(new_process(pv.FusedAdam(ADAM), tmp_path), loss, 2), expected)
