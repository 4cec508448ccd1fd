"""Flat graphs: equal to eager Pyro to the last bit, with nothing baked in."""

import copy
import gc
import math
import random
import shutil
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    ELBO,
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
)
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, fx, nn
from torch.distributions import constraints

import pyro_vae as pv
from pyro_vae.compiled import FlatGraph, FlatSteps, Untraceable, passes
from pyro_vae.compiled.graph import straight_line
from pyro_vae.compiled.reuse import in_place
from tests import components
from tests.components import refused

Program = Callable[..., Any]
TRACE = Trace_ELBO(max_plate_nesting=1)


def gradients(parameters: Iterable[Tensor]) -> list[Tensor | None]:
    return [parameter.grad for parameter in parameters]


def clear(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None


def same(a: Iterable[Tensor | None], b: Iterable[Tensor | None]) -> bool:
    return all(
        torch.equal(x, y) if x is not None and y is not None else x is y for x, y in zip(a, b, strict=True)
    )


def assert_equal_to_eager(
    elbo: ELBO,
    model: Program,
    guide: Program,
    batches: Iterable[Tensor],
    parameters: Callable[[], list[Tensor]],
    compiled: pv.CompiledELBO | None = None,
) -> pv.CompiledELBO:
    """Loss, gradients and random numbers of each batch, eager and flat, to the last bit."""
    compiled = compiled or pv.CompiledELBO(elbo)
    for seed, x in enumerate(batches):
        results = []
        for objective in (elbo, compiled):
            clear(parameters())
            torch.manual_seed(seed)
            loss = objective.loss_and_grads(model, guide, x)
            results.append((loss, gradients(parameters()), torch.get_rng_state()))
        (eager, eager_gradients, eager_state), (flat, flat_gradients, flat_state) = results
        assert flat == eager
        assert same(flat_gradients, eager_gradients)
        assert torch.equal(flat_state, eager_state)
    return compiled


def steps_of(compiled: pv.CompiledELBO) -> FlatSteps:
    (steps,) = compiled._steps.values()
    return steps


def assert_flat(compiled: pv.CompiledELBO) -> None:
    """The last steps were those of a graph, and none has been given up."""
    steps = steps_of(compiled)
    assert not steps.eager_because
    assert all(kept.checked for states in steps._kept.values() for kept in states)


def equal_on(vae: pv.VAE, data: Tensor, elbo: ELBO) -> None:
    batches = [data[:2], data[2:4], data[4:6], data[:2]]
    compiled = assert_equal_to_eager(elbo, vae.model, vae.guide, batches, lambda: list(vae.parameters()))
    assert_flat(compiled)


@pytest.mark.parametrize("likelihood", components.LIKELIHOODS)
def test_equals_eager_pyro_with_every_likelihood(likelihood: str) -> None:
    torch.manual_seed(0)
    equal_on(components.vae(likelihood=likelihood), components.data_for(likelihood), TRACE)


@pytest.mark.parametrize("prior", components.PRIORS)
def test_equals_eager_pyro_with_every_prior(prior: str) -> None:
    torch.manual_seed(0)
    equal_on(components.vae(prior=prior), components.data_for("Bernoulli"), TRACE)


@pytest.mark.parametrize("posterior", components.POSTERIORS)
def test_equals_eager_pyro_with_every_posterior(posterior: str) -> None:
    torch.manual_seed(0)
    equal_on(components.vae(posterior=posterior), components.data_for("Bernoulli"), TRACE)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("objective", components.OBJECTIVES)
def test_equals_eager_pyro_with_every_objective(objective: str, particles: int) -> None:
    torch.manual_seed(0)
    elbo = components.OBJECTIVES[objective](
        num_particles=particles, max_plate_nesting=1, vectorize_particles=particles > 1
    )
    equal_on(components.vae(), components.data_for("Bernoulli"), elbo)


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(4, max_plate_nesting=1),
        TraceGraph_ELBO(max_plate_nesting=1),
        RenyiELBO(0.0, 3, max_plate_nesting=1, vectorize_particles=True),
    ],
    ids=["particles in a loop", "TraceGraph", "Renyi"],
)
def test_equals_eager_pyro_with_its_other_objectives(elbo: ELBO) -> None:
    torch.manual_seed(0)
    equal_on(components.vae(), components.data_for("Bernoulli"), elbo)


@pytest.mark.parametrize("architecture", components.ARCHITECTURES)
def test_equals_eager_pyro_with_every_architecture(architecture: str) -> None:
    torch.manual_seed(0)
    shape, network = components.DATA_SHAPE, components.ARCHITECTURES[architecture]()
    vae = pv.VAE(
        pv.StandardNormalPrior(3),
        pv.BernoulliLikelihood(network.decoder(3, shape), shape),
        pv.DiagonalNormalPosterior(network.encoder(shape), 3),
    )
    equal_on(vae, components.data_for("Bernoulli"), TRACE)


def test_equals_eager_pyro_with_several_layers_of_latents() -> None:
    torch.manual_seed(0)
    data = pv.Digits()
    vae = pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(4, 2), network=pv.MLP((8,)))
    x = data.train.batch(slice(0, 8))
    assert_flat(
        assert_equal_to_eager(TRACE, vae.model, vae.guide, [x, x.flip(0), x], lambda: list(vae.parameters()))
    )


def test_forty_steps_of_svi_equal_those_of_pyro() -> None:
    finals = []
    for objective in (TRACE, pv.CompiledELBO(TRACE)):
        pyro.clear_param_store()
        torch.manual_seed(0)
        data = pv.Digits()
        vae = pv.assemble(data, latent_dim=2, network=pv.MLP((8,)))
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), objective)
        losses = [svi.step(data.train.batch(slice(10 * i, 10 * i + 7 + i % 2))) for i in range(40)]
        finals.append((losses, [*vae.parameters()]))
    assert finals[0][0] == finals[1][0]
    assert same(finals[0][1], finals[1][1])


# Programs of other kinds


class Normals:
    """x ~ N(z, 1), z ~ N(loc, scale): parameters of the store, no module."""

    def model(self, x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.3))
        s = pyro.param("s", torch.tensor(0.7), constraint=constraints.interval(0.1, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a * x, s))


def stored() -> list[Tensor]:
    return [parameter for _, parameter in sorted(pyro.get_param_store().named_parameters())]


def assert_program_is_flat(model: Program, guide: Program, x: Tensor, elbo: ELBO = TRACE) -> pv.CompiledELBO:
    compiled = assert_equal_to_eager(elbo, model, guide, [x, x + 1, x - 1, x[:3], x, x[:3], x[:3]], stored)
    assert_flat(compiled)
    return compiled


X = torch.linspace(-1, 1, 5)


def test_parameters_with_constraints_and_batches_of_other_sizes() -> None:
    compiled = assert_program_is_flat(Normals().model, Normals().guide, X)
    assert len(steps_of(compiled)._kept) == 2


def test_pyro_modules() -> None:
    class Loc(PyroModule[nn.Module]):
        def __init__(self) -> None:
            super().__init__()
            self.loc = PyroParam(torch.tensor(0.5), constraints.positive)
            self.linear = PyroModule[nn.Linear](1, 1)

        def forward(self, x: Tensor) -> None:
            loc = self.linear(x[:, None])[:, 0] + self.loc
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    torch.manual_seed(0)
    assert_program_is_flat(Loc(), Normals().guide, X)


def test_a_discrete_site_by_its_score_function() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=a * x))

    assert_program_is_flat(model, guide, X)


def test_subsampling_inside_the_program() -> None:
    data = torch.linspace(-2, 2, 20)

    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(x.mean(), 1.0))
        with pyro.plate("data", len(data), subsample_size=6) as index:
            pyro.sample("x", dist.Normal(loc, 1.0), obs=data[index])

    def guide(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(pyro.param("a", torch.tensor(0.1)), 0.5))

    assert_program_is_flat(model, guide, X)


class Square(torch.autograd.Function):
    """x², whose backward pass is wrong on purpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 7 * x * gradient


def test_a_backward_pass_of_its_own() -> None:
    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(Square.apply(a) * x, 1.0))

    assert_program_is_flat(Normals().model, guide, X)


def test_batch_norm_and_dropout() -> None:
    def made() -> tuple[nn.Module, Program, Program]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

        def guide(x: Tensor) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.0))

        return net, Normals().model, guide

    nets = []
    for elbo in (TRACE, pv.CompiledELBO(TRACE)):
        pyro.clear_param_store()
        net, model, guide = made()
        torch.manual_seed(1)
        losses = []
        for step in range(9):
            net.train(step % 3 != 2)
            clear(net.parameters())
            losses.append(elbo.loss_and_grads(model, guide, X + step))
        nets.append((losses, [*net.state_dict().values()], gradients(net.parameters())))
    assert nets[0][0] == nets[1][0]
    assert same(nets[0][1], nets[1][1])  # running means, and the number of batches seen
    assert same(nets[0][2], nets[1][2])


def test_arguments_by_name_and_arguments_that_are_no_tensors() -> None:
    def model(x: Tensor, shift: float = 0.0, **_: Any) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(shift, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, shift: float = 0.0, *, extra: dict[str, Tensor]) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.3)) * x + extra["b"], 1.0))

    compiled = pv.CompiledELBO(TRACE)
    for step in range(8):
        kwargs = {"shift": float(step % 2), "extra": {"b": torch.tensor(0.1 * step)}}
        results = []
        for elbo in (TRACE, compiled):
            clear(stored())
            torch.manual_seed(step)
            results.append((elbo.loss_and_grads(model, guide, X, **kwargs), gradients(stored())))
        assert results[0] == results[1]
    assert len(steps_of(compiled)._kept) == 2
    assert_flat(compiled)


def test_gradients_are_added_to_those_that_are_there() -> None:
    vae, x = components.vae(), components.data_for("Bernoulli")
    compiled = pv.CompiledELBO(TRACE)
    for _ in range(4):
        torch.manual_seed(1)
        clear(vae.parameters())
        compiled.loss_and_grads(vae.model, vae.guide, x)
        once = [parameter.grad for parameter in vae.parameters() if parameter.grad is not None]
        torch.manual_seed(1)
        compiled.loss_and_grads(vae.model, vae.guide, x)
        twice = [parameter.grad for parameter in vae.parameters() if parameter.grad is not None]
        assert same(twice, [2 * gradient for gradient in once])


# Nothing is baked in


def changed_by(change: Callable[[pv.VAE], object]) -> None:
    """A change after four flat steps is seen in the next ones."""
    torch.manual_seed(0)
    vae, x = components.vae(), components.data_for("Bernoulli")

    def parameters() -> list[Tensor]:
        return list(vae.parameters())

    compiled = assert_equal_to_eager(TRACE, vae.model, vae.guide, [x] * 4, parameters)
    change(vae)
    x = x.to(vae.dtype)
    assert_equal_to_eager(TRACE, vae.model, vae.guide, [x] * 4, parameters, compiled)
    assert_flat(compiled)


def test_a_module_that_is_replaced_is_seen() -> None:
    def replace(vae: pv.VAE) -> None:
        vae.likelihood.decoder = components.SMALL.decoder(components.LATENT_DIM, components.DATA_SHAPE)
        next(vae.likelihood.decoder.parameters()).data.mul_(2)

    changed_by(replace)


def test_a_changed_dtype_is_seen() -> None:
    changed_by(lambda vae: vae.double())


def test_a_parameter_that_is_given_new_memory_is_seen() -> None:
    def move(vae: pv.VAE) -> None:
        for parameter in vae.parameters():
            parameter.data = parameter.data.clone() * 1.5

    changed_by(move)


def test_a_parameter_that_is_frozen_is_seen() -> None:
    changed_by(lambda vae: vae.posterior.requires_grad_(False))


def test_a_parameter_store_that_is_cleared_is_filled_again() -> None:
    changed_by(lambda _: pyro.clear_param_store())
    assert len(pyro.get_param_store()) > 0


def test_two_models_with_the_same_names_in_the_store_take_turns() -> None:
    torch.manual_seed(0)
    vaes = [components.vae(), components.vae()]
    x = components.data_for("Bernoulli")
    compiled = pv.CompiledELBO(TRACE)
    for _ in range(4):
        for vae in vaes:
            parameters: list[Tensor] = list(vae.parameters())
            assert_equal_to_eager(TRACE, vae.model, vae.guide, [x], lambda: parameters, compiled)  # noqa: B023
    assert len(compiled._steps) == 2


class Config:
    """Numbers in a class that is never made."""

    shift = 0.0


class Slots:
    """A number in a slot."""

    __slots__ = ("shift",)

    def __init__(self) -> None:
        self.shift = 0.0


SLOTS, ARRAY, QUEUE = Slots(), np.zeros(2), deque([0.0])


class Scaled(nn.Module):
    """x ~ N(z, 1), z ~ N(0, scale), the guide shifted by some numbers from elsewhere."""

    kind = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.options = {"shifts": [0.0, 0.0]}
        self.weight = nn.Parameter(torch.tensor(0.3))

    @property
    def more(self) -> float:
        return Config.shift + SLOTS.shift + float(ARRAY[1]) + QUEUE[0]

    def shift(self) -> float:
        return self.options["shifts"][1] + SHIFT + self.kind + self.more + ("wide" in self.options)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("scaled", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.weight * x + self.shift(), 1.0))


SHIFT = 0.0


def set_global() -> None:
    global SHIFT
    SHIFT += 1.5


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "scale", 3.0),
        lambda module: module.options["shifts"].__setitem__(1, 2.0),
        lambda module: module.options.update(shifts=[1.0, 1.0]),
        lambda module: setattr(module, "weight", nn.Parameter(torch.tensor(0.9))),
        lambda module: setattr(Scaled, "kind", Scaled.kind + 0.5),
        lambda module: module.options.setdefault("wide", []),
        lambda _: setattr(Config, "shift", Config.shift + 0.5),
        lambda _: setattr(SLOTS, "shift", SLOTS.shift + 0.5),
        lambda _: ARRAY.__setitem__(1, ARRAY[1] + 0.5),
        lambda _: QUEUE.__setitem__(0, QUEUE[0] + 0.5),
        lambda _: set_global(),
    ],
    ids=[
        *("attribute", "list", "dict", "parameter", "class", "key"),
        *("other class", "slot", "array", "deque", "global"),
    ],
)
def test_numbers_that_are_changed_are_seen(change: Callable[[Scaled], None]) -> None:
    module = Scaled()
    compiled = assert_equal_to_eager(TRACE, module.model, module.guide, [X] * 4, stored)
    losses = [TRACE.loss(module.model, module.guide, X)]
    change(module)
    if float(module.weight.detach()) > 0.5:
        pyro.clear_param_store()  # else the store's old tensor would win, in eager Pyro too
    torch.manual_seed(0)
    losses.append(TRACE.loss(module.model, module.guide, X))
    assert losses[0] != losses[1]
    assert_equal_to_eager(TRACE, module.model, module.guide, [X] * 4, stored, compiled)
    assert_flat(compiled)


def test_a_changed_choice_of_the_objective_is_seen() -> None:
    torch.manual_seed(0)
    vae, x = components.vae(), components.data_for("Bernoulli")
    elbo = pv.FreeBitsELBO(free_bits=0.0, max_plate_nesting=1)
    compiled = assert_equal_to_eager(elbo, vae.model, vae.guide, [x] * 4, lambda: list(vae.parameters()))
    elbo.free_bits = 2.0
    assert_equal_to_eager(elbo, vae.model, vae.guide, [x] * 4, lambda: list(vae.parameters()), compiled)


def test_a_kl_weight_in_a_tensor_needs_no_new_graph() -> None:
    torch.manual_seed(0)
    vae, x = components.vae(), components.data_for("Bernoulli")
    beta = pv.objectives.KLWeight(torch.tensor(0.1))
    model, guide = beta(vae.model), beta(vae.guide)
    compiled = pv.CompiledELBO(TRACE)
    for weight in (0.1, 0.2, 0.3, 0.9, 1.0):
        beta.weight.fill_(weight)
        assert_equal_to_eager(TRACE, model, guide, [x], lambda: list(vae.parameters()), compiled)
    assert steps_of(compiled)._builds == {key: 1 for key in steps_of(compiled)._kept}
    assert_flat(compiled)


def test_a_number_read_from_a_tensor_is_read_at_every_step() -> None:
    scale = torch.tensor(1.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z * scale.item(), 1.0), obs=x)

    guide = Normals().guide
    compiled = assert_equal_to_eager(TRACE, model, guide, [X] * 3, stored)
    scale.fill_(5.0)
    assert_equal_to_eager(TRACE, model, guide, [X] * 3, stored, compiled)
    assert_flat(compiled)


def test_a_store_that_another_model_has_left_is_noticed() -> None:
    x = X

    def programs() -> tuple[Program, nn.Linear]:
        net = nn.Linear(1, 1)

        def guide(x: Tensor) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(net(x[:, None])[:, 0], 1.0))

        return guide, net

    first, _ = programs()
    TRACE.loss(Normals().model, first, x)
    second, _ = programs()
    svi = SVI(Normals().model, second, pyro.optim.Adam({}), pv.CompiledELBO(TRACE))
    with pytest.warns(
        UserWarning, match="2 tensors get a gradient but are not the parameters of Pyro's store"
    ):
        svi.step(x)


# Where there is no graph, there is one warning, and eager Pyro


def falls_back(
    reason: str, model: Program, guide: Program, elbo: ELBO = TRACE, number: int = 4, x: Tensor = X
) -> None:
    compiled = pv.CompiledELBO(elbo)
    with pytest.warns(UserWarning, match=reason) as caught:
        assert_equal_to_eager(elbo, model, guide, [x] * number, stored, compiled)
    assert len(caught) == 1
    assert steps_of(compiled).eager_because


def test_a_branch_on_data() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0 if x.sum() > 0 else 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    falls_back(
        r"CompiledELBO runs as plain Pyro, not as a flat graph: it decides by a number in a tensor "
        r"\(Tensor.__bool__\)",
        model,
        Normals().guide,
    )


def test_random_numbers_of_python() -> None:
    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a * x + random.random(), 1.0))

    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="it draws random numbers that are not torch's"):
        compiled.loss_and_grads(Normals().model, guide, X)


def test_a_program_that_counts_its_runs() -> None:
    module = Scaled()

    def guide(x: Tensor) -> None:
        module.scale += 1.0
        module.guide(x)

    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="Scaled changes as it runs"):
        compiled.loss_and_grads(module.model, guide, X)


def test_a_number_that_changes_between_all_steps() -> None:
    module = Scaled()
    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="Scaled is another one at almost every run"):
        for step in range(10):
            module.scale = 1.0 + step
            assert_equal_to_eager(TRACE, module.model, module.guide, [X], stored, compiled)


@pytest.mark.parametrize("twice", [False, True])
def test_the_first_step_of_parameters_that_it_makes(twice: bool) -> None:
    finals = []
    for elbo in (TRACE, pv.CompiledELBO(TRACE)):
        for _ in range(1 + twice):
            pyro.clear_param_store()
            torch.manual_seed(0)
            programs = Normals()
            svi = SVI(programs.model, programs.guide, pyro.optim.SGD({"lr": 1e-2}), elbo)
            losses = [svi.step(X) for _ in range(5)]
        finals.append((losses, [parameter.detach().clone() for parameter in stored()]))
    assert finals[0][0] == finals[1][0]
    assert same(finals[0][1], finals[1][1])


def test_data_that_the_programs_hold_themselves() -> None:
    programs = Normals()
    model, guide = lambda: programs.model(X), lambda: programs.guide(X)
    compiled = pv.CompiledELBO(TRACE)
    for seed in range(4):
        losses = []
        for elbo in (TRACE, compiled):
            torch.manual_seed(seed)
            losses.append(elbo.loss_and_grads(model, guide))
        assert losses[0] == losses[1]
    assert_flat(compiled)


def test_runs_inside_autocast_are_eager() -> None:
    torch.manual_seed(0)
    vae, x = components.vae(), components.data_for("Bernoulli")
    parameters: list[Tensor] = list(vae.parameters())
    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="runs inside torch.autocast are eager"):
        for enabled in (False, False, False, True, True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                assert_equal_to_eager(TRACE, vae.model, vae.guide, [x], lambda: parameters, compiled)
    assert_flat(compiled)


def test_a_gradient_may_be_changed_in_place() -> None:
    def guide(x: Tensor) -> None:
        c = pyro.param("c", torch.tensor(0.5))
        pyro.factor("f", 2 * c, has_rsample=True)
        Normals().guide(x)

    model = Normals().model
    compiled = pv.CompiledELBO(TRACE)
    for seed in range(5):
        results = []
        for elbo in (TRACE, compiled):
            clear(stored())
            torch.manual_seed(seed)
            elbo.loss_and_grads(model, guide, X)
            results.append([g.clone() for g in gradients(stored()) if g is not None])
        assert same(*results)
        for gradient in gradients(stored()):
            assert gradient is not None
            gradient.mul_(0.1)  # as by clipping


def test_without_gradients_as_in_eager_pyro() -> None:
    vae, x = components.vae(), components.data_for("Bernoulli")
    compiled = pv.CompiledELBO(TRACE)
    for _ in range(3):
        clear(vae.parameters())
        with torch.no_grad():
            compiled.loss_and_grads(vae.model, vae.guide, x)
        assert gradients(vae.parameters()) == [None] * len(gradients(vae.parameters()))


READS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "numpy": (lambda t: float(np.asarray(t.detach())), "Tensor.__array__"),
    "copy": (lambda t: torch.tensor([t.item(), 1.0])[0], "it copies tensors by tensor"),
    "equal": (lambda t: float(torch.equal(t, torch.zeros(()))), "equal"),
    "text": (lambda t: float(len(str(t))), "__repr__"),
    "mask": (lambda t: float(len(X[t < X])), "a shape depends on numbers"),
}


def reads(read: Callable[[Tensor], Any]) -> Program:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(read(x), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model


@pytest.mark.parametrize("name", READS)
def test_numbers_read_from_data(name: str) -> None:
    read, reason = READS[name]
    falls_back(reason, reads(lambda x: read(x.mean())), Normals().guide)


@pytest.mark.parametrize("name", READS)
def test_numbers_read_from_what_programs_hold(name: str) -> None:
    held = torch.tensor(0.5)
    model, guide = reads(lambda _: READS[name][0](held)), Normals().guide
    compiled = assert_equal_to_eager(TRACE, model, guide, [X, X + 1, X], stored)
    held.fill_(0.0)
    assert_equal_to_eager(TRACE, model, guide, [X, X + 1, X], stored, compiled)
    assert_flat(compiled)


def test_a_generator_of_its_own() -> None:
    def read(x: Tensor) -> Tensor:
        return torch.rand((), generator=torch.Generator().manual_seed(1)) + x

    falls_back("a Generator of its own", reads(read), Normals().guide)


def test_arguments_of_other_types_are_eager() -> None:
    class Batch:
        x = X

    programs = Normals()

    def model(batch: Batch) -> None:
        programs.model(batch.x)

    def guide(batch: Batch) -> None:
        programs.guide(batch.x)

    compiled, batch = pv.CompiledELBO(TRACE), Batch()
    with pytest.warns(UserWarning, match="runs on a Batch are eager: give tensors and numbers"):
        for step in range(4):
            batch.x = X + step
            losses = []
            for elbo in (TRACE, compiled):
                torch.manual_seed(step)
                losses.append(elbo.loss_and_grads(model, guide, batch))
            assert losses[0] == losses[1]


def test_what_runs_change_is_changed_once() -> None:
    count = []

    def model(x: Tensor) -> None:
        count.append(1)
        Normals().model(x)

    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="changes as it runs"):
        compiled.loss_and_grads(model, Normals().guide, X)
    assert len(count) == 1


def test_a_copy_of_a_compiled_elbo_makes_its_own_graphs() -> None:
    compiled = assert_program_is_flat(Normals().model, Normals().guide, X)
    assert not copy.deepcopy(compiled)._steps


def test_graphs_do_not_outlive_the_model() -> None:
    vae, x = components.vae(), components.data_for("Bernoulli")
    compiled = pv.CompiledELBO(TRACE)
    for _ in range(3):
        compiled.loss_and_grads(vae.model, vae.guide, x)
    alive = weakref.ref(vae)
    del vae, compiled
    pyro.clear_param_store()
    gc.collect()
    assert alive() is None


def test_handlers_around_a_step() -> None:
    programs = Normals()
    compiled = pv.CompiledELBO(TRACE)
    with poutine.scale(scale=0.5), pytest.warns(UserWarning, match="inside ScaleMessenger are eager"):
        assert_equal_to_eager(TRACE, programs.model, programs.guide, [X] * 3, stored, compiled)
    assert_equal_to_eager(TRACE, programs.model, programs.guide, [X] * 3, stored, compiled)
    assert_flat(compiled)


def test_more_shapes_than_are_kept() -> None:
    programs = Normals()
    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="after 8 different kinds of arguments, further ones"):
        for size in range(1, 12):
            x = torch.linspace(-1, 1, size)
            assert_equal_to_eager(TRACE, programs.model, programs.guide, [x], stored, compiled)
    assert sum(map(bool, steps_of(compiled)._kept.values())) == 8


def test_new_functions_at_every_step() -> None:
    programs = Normals()
    compiled = pv.CompiledELBO(TRACE)
    with pytest.warns(UserWarning, match="there are more than 8 pairs of model and guide"):
        for _ in range(10):
            assert_equal_to_eager(TRACE, lambda x: programs.model(x), programs.guide, [X], stored, compiled)


def test_what_is_refused() -> None:
    with refused("CompiledELBO expects an ELBO as Trace_ELBO\\(\\), got ABCMeta"):
        pv.CompiledELBO(Trace_ELBO)
    with refused("backend expects 'flat' or 'inductor', got 'jit'"):
        pv.CompiledELBO(TRACE, "jit")  # type: ignore[arg-type]


def test_an_error_of_the_program_is_its_own_and_leaves_gradients() -> None:
    vae, x = components.vae(), components.data_for("Bernoulli")
    compiled = pv.CompiledELBO(TRACE)
    compiled.loss_and_grads(vae.model, vae.guide, x)
    before = gradients(vae.parameters())
    with refused("the network expects inputs of shape"):
        compiled.loss_and_grads(vae.model, vae.guide, x[:, :, :2])
    assert same(gradients(vae.parameters()), before)


# The graph itself


def test_a_graph_reads_what_it_closes_over_and_draws_anew() -> None:
    held = torch.tensor([1.0, 2.0])
    graph = FlatGraph(lambda x: (held * x, torch.rand(2), torch.ones(2) * 3), (torch.zeros(2),))
    held.mul_(10)
    first, second = graph(torch.ones(2)), graph(torch.ones(2))
    assert torch.equal(first[0], torch.tensor([10.0, 20.0]))  # type: ignore[arg-type]
    assert torch.equal(first[2], torch.full((2,), 3.0))  # type: ignore[arg-type]
    assert not torch.equal(first[1], second[1])  # type: ignore[arg-type]


def test_an_argument_that_the_function_also_closes_over_stays_two_things() -> None:
    held = torch.tensor([1.0, 2.0])
    graph = FlatGraph(lambda x: (held + x,), (held,))
    assert torch.equal(graph(torch.zeros(2))[0], held)  # type: ignore[arg-type]


def test_constants_that_are_changed_in_place_are_made_anew() -> None:
    def function(x: Tensor) -> tuple[Tensor]:
        total = torch.zeros(2)
        total += x
        total[0] += 1
        return (total.clone(),)

    graph = FlatGraph(function, (torch.zeros(2),))
    for _ in range(3):
        assert torch.equal(graph(torch.ones(2))[0], torch.tensor([2.0, 1.0]))  # type: ignore[arg-type]


def test_equal_draws_are_not_taken_for_one() -> None:
    graph = FlatGraph(lambda x: (x + torch.randn(3), x + torch.randn(3)), (torch.zeros(3),))
    one, other = graph(torch.zeros(3))
    assert not torch.equal(one, other)  # type: ignore[arg-type]


def test_what_is_drawn_and_not_used_is_drawn() -> None:
    def function(x: Tensor) -> tuple[Tensor]:
        torch.rand(3)
        torch.zeros(2).normal_()
        nn.functional.dropout(x, 0.5)
        return (x + 1,)

    graph, states = FlatGraph(function, (torch.ones(4),)), []
    for run in (function, graph):
        torch.manual_seed(0)
        run(torch.ones(4))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_computes_once_what_is_written_twice() -> None:
    graph = FlatGraph(lambda x: (x.exp() + x.exp() + torch.ones(2) * 2 - 1,), (torch.zeros(2),))
    operations = [str(node.target) for node in graph.module.graph.nodes if node.op == "call_function"]
    assert operations.count("aten.exp.default") == 1
    assert len(operations) == 4  # exp, +, + and −, the constant being an input


@pytest.mark.parametrize("function", [lambda x: (x * int(x[0] > 0),), lambda x: (torch.tensor(x.tolist()),)])
def test_a_function_that_decides_by_numbers_is_no_graph(function: Callable[..., Any]) -> None:
    with pytest.raises(Untraceable):
        FlatGraph(function, (torch.zeros(2),))


def test_large_products_go_to_onednn_and_agree() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(256, 300), torch.randn(200, 300), torch.randn(200)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        linear = nn.functional.linear(x, weight, bias)
        return linear, linear @ weight, linear.t() @ x, x @ weight[:2].t(), x.double() @ weight.double().t()

    exact, graph = FlatGraph(function, (x,)), FlatGraph(function, (x,), fast=True)
    products = [str(node.target) for node in graph.module.graph.nodes if "linear" in str(node.target)]
    assert products == ["pyro_vae.linear.default"] * 3  # not the narrow one, nor that in float64
    for new, old in zip(graph(x), exact(x), strict=True):
        assert new is not None and old is not None
        assert (new - old).abs().max() <= 1e-6 * old.abs().max()


def test_fast_softplus_and_bernoulli_density_agree_with_float64() -> None:
    x = torch.cat(
        [torch.linspace(-110, 110, 11_000), torch.tensor([0.0, -0.0, 1e-30, 88.8, -88.8, 1e30, -1e30])]
    )
    bits = (torch.arange(len(x)) % 2).float()

    def function(x: Tensor, bits: Tensor) -> tuple[Tensor, ...]:
        return nn.functional.softplus(x), dist.Bernoulli(logits=x, validate_args=False).log_prob(bits)

    exact = FlatGraph(function, (x.double(), bits.double()))(x.double(), bits.double())
    graph = FlatGraph(function, (x, bits), fast=True)
    targets = [str(node.target) for node in graph.module.graph.nodes]
    assert "aten.softplus.default" not in targets
    assert targets.count("aten.log.default") == 1  # both need the same one
    for new, old in zip(graph(x, bits), exact, strict=True):
        assert new is not None and old is not None
        error = (new.double() - old).abs()
        assert bool((error <= 1.3e-7 * (1 + old.abs())).all())


@pytest.mark.parametrize("shape", [(30, 1, 28, 28), (300, 36), (3000, 4)])
def test_a_sum_of_bernoulli_densities_takes_one_logarithm_of_a_product(shape: tuple[int, ...]) -> None:
    """In the same error of rounding as a sum of logarithms, also of logits far from 0."""
    logits = torch.randn(shape) * torch.logspace(-2, 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    bits = (torch.rand(shape[1:]) < 0.5).float()

    def density(x: Tensor) -> tuple[Tensor, ...]:
        law = dist.Bernoulli(logits=x, validate_args=False).to_event(len(shape) - 1)
        return (law.log_prob(bits.to(x.dtype)),)

    graph = FlatGraph(density, (logits,), fast=True)
    targets = [str(node.target) for node in graph.module.graph.nodes]
    assert "aten.binary_cross_entropy_with_logits.default" not in targets
    (log,) = (node for node in graph.module.graph.nodes if node.target is torch.ops.aten.log.default)
    size = math.prod(shape[1:])
    assert log.meta["val"].shape[-1] == size // math.gcd(size, 32)
    (exact,) = density(logits.double())
    (found,), (usual,) = graph(logits), density(logits)
    scale = exact.abs() + logits.double().abs().flatten(1).sum(1)
    assert ((found - exact).abs() < 3e-7 * scale).all()
    assert ((found - exact).abs() / scale).max() < 2 * ((usual - exact).abs() / scale).max() + 1e-8


def test_bernoulli_densities_of_pictures_whose_channels_are_last_in_memory() -> None:
    bits = (torch.rand(40, 3, 8, 8) < 0.5).float()
    logits = torch.randn(40, 3, 8, 8).to(memory_format=torch.channels_last)

    def density(x: Tensor) -> tuple[Tensor, ...]:
        return (dist.Bernoulli(logits=x, validate_args=False).to_event(3).log_prob(bits.to(x.dtype)),)

    (found,), (exact,) = FlatGraph(density, (logits,), fast=True)(logits), density(logits.double())
    assert found is not None and ((found - exact).abs() < 1e-6 * exact.abs()).all()


@pytest.mark.parametrize("size", [35, 34])
def test_a_sum_over_few_halves_keeps_its_logarithms(size: int) -> None:
    logits = torch.randn(400, size)
    graph = FlatGraph(
        lambda x: (dist.Bernoulli(logits=x, validate_args=False).to_event(1).log_prob(torch.ones(size)),),
        (logits,),
        fast=True,
    )
    (log,) = (node for node in graph.module.graph.nodes if node.target is torch.ops.aten.log.default)
    assert log.meta["val"].shape == logits.shape


def over(function: Callable[..., Any], *args: Tensor) -> list[str]:
    """The operations of a function that write over what nothing needs any more; it gives the same bits."""
    before = [arg.clone() for arg in args]
    graph = FlatGraph(function, args)
    for _ in range(2):
        for found, expected in zip(graph(*args), function(*args), strict=True):
            assert found is not None and torch.equal(found, expected)
    assert all(torch.equal(arg, kept) for arg, kept in zip(args, before, strict=True))
    return [str(target).split(".")[1] for target, _ in in_place(graph.module.graph).values()]


def test_results_are_written_over_what_nothing_needs() -> None:
    x, y = torch.rand(3, 4) + 0.5, torch.rand(3, 4)
    weight = torch.rand(4, 4)
    assert over(lambda x: ((x.abs().neg().exp() + 1).log(),), x) == ["neg_", "exp_", "add_", "log_"]
    assert over(lambda x, y: (y * (x @ weight),), x, y) == ["mul_"]  # over the second factor
    assert over(lambda x, y: (y - (x @ weight),), x, y) == []
    assert over(lambda x: (x.exp() ** 2,), x) == ["pow_"]


def test_what_is_needed_later_is_left() -> None:
    x, column = torch.rand(3, 4) + 0.5, torch.rand(3, 1)

    def twice(x: Tensor) -> tuple[Tensor, ...]:
        y = x.exp()
        return y, y.log(), (y + 1).sqrt() * y

    assert over(twice, x) == ["sqrt_", "mul_"]
    assert over(lambda x: (x.exp().neg(), x), x) == ["neg_"]

    def viewed(x: Tensor) -> tuple[Tensor, ...]:
        y = x.exp()
        return y.view(-1)[2:] * 1.0, y.neg()

    assert over(viewed, x) == []
    assert over(lambda x, c: (c.exp() * x, c.exp() + x), x, column) == []  # it is smaller than the result
    assert over(lambda x: (x.exp().double() + 1.0, (x.exp() > 1) * 2.0), x) == []  # of other types


def test_small_and_other_softplus_stay() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return nn.functional.softplus(x), nn.functional.softplus(x[:5]), nn.functional.softplus(x, beta=2.0)

    graph = FlatGraph(function, (torch.zeros(20_000),), fast=True)
    targets = [str(node.target) for node in graph.module.graph.nodes]
    assert targets.count("aten.softplus.default") == 2


def test_a_compiler_that_fails_leaves_the_flat_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand many more lines")

    monkeypatch.setattr("pyro_vae.compiled.graph.compiled", fail)
    vae, x = components.vae(), components.data_for("Bernoulli")
    parameters: list[Tensor] = list(vae.parameters())
    compiled = pv.CompiledELBO(TRACE, "inductor")
    with pytest.warns(
        UserWarning, match="runs the flat graph as it is, since inductor and fast failed: no C"
    ) as caught:
        assert_equal_to_eager(TRACE, vae.model, vae.guide, [x] * 4, lambda: parameters, compiled)
    assert len(caught) == 1
    assert_flat(compiled)


def test_programs_of_one_name_in_one_store_take_turns() -> None:
    """While the parameters that the store has become more from one check of a graph to the next."""

    def made(depth: int) -> tuple[Any, Any, list[Tensor]]:
        torch.manual_seed(depth)
        net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(depth)))

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(pyro.module(f"net of {depth}", net)(x), 1.0).to_event(1))

        def model(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        return model, guide, list(net.parameters())

    results = []
    for make in (lambda: TRACE, lambda: pv.CompiledELBO(TRACE)):
        pyro.clear_param_store()
        programs, x = [made(depth) for depth in range(1, 5)], torch.ones(5, 3)
        elbos = [make() for _ in programs]
        torch.manual_seed(0)
        for _ in range(4):
            for (model, guide, _), elbo in zip(programs, elbos, strict=True):
                elbo.loss_and_grads(model, guide, x)
        results.append([each.grad for *_, leaves in programs for each in leaves])
    assert all(torch.equal(old, new) for old, new in zip(*results, strict=True))
    for elbo in elbos:
        assert_flat(elbo)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_inductor_agrees_up_to_rounding_with_the_same_random_numbers() -> None:
    """Also where a gradient is zero but for its rounding, as of a bias before BatchNorm."""
    torch.manual_seed(0)
    layers = nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 9)
    decoder = pv.Network(nn.Sequential(*layers), (2,), (9,))
    x = (torch.rand(50, 9) < 0.5).float()
    likelihood = pv.BernoulliLikelihood(decoder, (9,))
    posterior = pv.DiagonalNormalPosterior(pv.MLP((8,)).encoder((9,)), 2)
    vae = pv.VAE(pv.StandardNormalPrior(2), likelihood, posterior)
    compiled = pv.CompiledELBO(TRACE, "inductor")
    for seed in range(4):
        results = []
        for elbo in (TRACE, compiled):
            clear(vae.parameters())
            torch.manual_seed(seed)
            loss = elbo.loss_and_grads(vae.model, vae.guide, x)
            results.append((loss, gradients(vae.parameters()), torch.get_rng_state()))
        (eager, eager_gradients, state), (fast, fast_gradients, fast_state) = results
        assert fast == pytest.approx(eager, rel=1e-6)
        largest = max(float(old.abs().max()) for old in eager_gradients if old is not None)
        for parameter, new, old in zip(vae.parameters(), fast_gradients, eager_gradients, strict=True):
            assert new is not None and old is not None
            zero = parameter is layers[0].bias
            assert zero == bool(old.abs().max() < 1e-5 * largest)
            assert (new - old).abs().max() <= 1e-5 * (largest if zero else old.abs().max())
        assert torch.equal(fast_state, state)
    assert_flat(compiled)
    assert steps_of(compiled).ways[0]["inductor"]


def test_graphs_that_are_written_alike_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tensors that they close over hold; those of other types or numbers are not alike."""
    made: list[str] = []

    def compile(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        made.append(module.code)
        return straight_line(module)

    monkeypatch.setattr(passes, "_by_inductor", compile)
    monkeypatch.setattr(passes, "_COMPILED", {})
    monkeypatch.setattr(passes, "_KEPT", 2)

    def scaled(scale: Tensor, x: Tensor, by: float = 2.0) -> Tensor:
        (found,) = FlatGraph(lambda x: (by * scale * x,), (x,), inductor=True)(x)
        assert found is not None
        return found

    x = torch.tensor([1.0, 2.0])
    for value in (3.0, 5.0):
        assert torch.equal(scaled(torch.tensor(value), x), 2 * value * x)
    assert len(made) == 1
    assert torch.equal(scaled(torch.tensor(3.0), x, by=4.0), 12 * x)
    assert torch.equal(scaled(torch.tensor(3.0).double(), x.double()), 6 * x.double())
    assert len(made) == 3
    assert torch.equal(scaled(torch.tensor(7.0), x), 14 * x) and len(made) == 4  # the first was left out
