"""`fit` on any Pyro programs: the parameters of plain SVI, to the last bit, in the user's own store."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    SVI,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, pyro_method
from torch import Tensor, nn
from torch.distributions import constraints

import pyro_vae as pv
from pyro_vae.data import Split, batches
from tests.components import refused

N = 73
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
COUNTS = torch.randint(0, 6, (N, 4), generator=torch.Generator().manual_seed(1))

Program = Callable[..., Any]
Pair = tuple[Program, Program]


def networks() -> Pair:
    """Closures over modules, registered by `pyro.module`."""
    torch.manual_seed(1)
    encoder, decoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), nn.Linear(2, 4)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def lazy() -> Pair:
    """Parameters with constraints, drawn when they are first named."""

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", lambda: torch.rand(4) + 0.5, constraint=constraints.positive)
        weight = pyro.param("weight", lambda: torch.randn(2, 4))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", lambda: 0.1 * torch.randn(4, 2))
        width = pyro.param("width", torch.tensor(0.9), constraint=constraints.interval(0.01, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ slope, width).to_event(1))

    return model, guide


class Modular(PyroModule):
    """Model and guide as methods, parameters with constraints, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.decoder = PyroModule[nn.Linear](2, 4)
        self.encoder = PyroModule[nn.Linear](4, 2)
        self.dropout = nn.Dropout(0.2)
        self.scale = PyroParam(torch.tensor(0.7), constraint=constraints.positive)

    @pyro_method
    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.scale).to_event(1), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(self.dropout(x)), 0.8).to_event(1))


def modular() -> Pair:
    module = Modular()
    return module.model, module.guide


def automatic() -> Pair:
    """A latent of each datum by its place, and a global one, with the guide that Pyro makes."""

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 0.5).expand(x.shape).to_event(1), obs=x)

    return model, AutoNormal(model)


def mixture() -> Pair:
    """Labels that are summed out."""

    @config_enumerate
    def model(x: Tensor) -> None:
        weights = pyro.param("weights", torch.ones(3) / 3, constraint=constraints.simplex)
        locs = pyro.param("locs", lambda: torch.randn(3, 4))
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[label], 1.0).to_event(1), obs=x)

    return model, lambda x: None


def score() -> Pair:
    """A discrete latent without reparameterisation, with a baseline that is a running average."""

    def model(x: Tensor) -> None:
        locs = pyro.param("locs", lambda: torch.randn(2, 4))
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(locs[label.long()], 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", torch.zeros(4))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "label",
                dist.Bernoulli(logits=x @ slope),
                infer={"baseline": {"use_decaying_avg_baseline": True}},
            )

    return model, guide


def counts() -> Pair:
    """Whole numbers that index."""
    torch.manual_seed(4)
    embedding = nn.Embedding(6, 2)

    def model(x: Tensor) -> None:
        rate = pyro.param("rate", torch.ones(4), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(rate * z.exp()[:, None]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        assert x.dtype == torch.int64
        pyro.module("embedding", embedding)
        loc, log_scale = embedding(x).mean(1).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    return model, guide


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def stored() -> dict[str, Tensor]:
    """What is in the store, unconstrained, but for running averages."""
    store = pyro.get_param_store().named_parameters()
    return {name: p.detach().clone() for name, p in store if not name.startswith("__baseline")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain_svi(programs: Pair, objective: Any, x: Tensor, batch_size: int, epochs: int) -> list[float]:
    """The loop that a user writes; the mean ELBO of each epoch."""
    svi = SVI(*programs, pyro.optim.Adam({"lr": 0.02}), objective)
    torch.manual_seed(0)
    elbos = []
    for epoch in range(1, epochs + 1):
        whole = batch_size == len(x)
        parts = (
            [x] if whole else batches(Split(torch.arange(len(x))[:, None]), batch_size, seed=0, epoch=epoch)
        )
        elbos.append(-sum(svi.step(x if whole else x[part[:, 0].long()]) for part in parts) / len(x))
    return elbos


PROGRAMS: dict[str, tuple[Callable[[], Pair], Any, Tensor, int]] = {
    "networks": (networks, Trace_ELBO, X, 30),
    "lazy parameters": (lazy, Trace_ELBO, X, 30),
    "PyroModule": (modular, Trace_ELBO, X, 30),
    "autoguide": (automatic, Trace_ELBO, X, N),
    "mixture": (mixture, TraceEnum_ELBO, X, 30),
    "score function": (score, TraceGraph_ELBO, X[:60], 30),
    "whole numbers": (counts, Trace_ELBO, COUNTS, 30),
}


@pytest.mark.filterwarnings("ignore:fit runs as plain Pyro")  # the running average of a baseline
@pytest.mark.parametrize("compile", ["off", "flat"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_a_plain_svi_loop_to_the_last_bit(name: str, compile: Literal["off", "flat"]) -> None:
    make, objective, x, batch_size = PROGRAMS[name]
    elbos = plain_svi(make(), objective(), x, batch_size, 4)
    expected = stored()
    pyro.clear_param_store()
    history = pv.fit(
        make(), x, epochs=4, batch_size=batch_size, optimiser=adam, objective=objective, compile=compile
    )
    assert equal(stored(), expected)
    assert history.column("train_elbo") == pytest.approx(elbos, rel=1e-6)
    assert all(p.grad is None for _, p in pyro.get_param_store().named_parameters())


def test_several_particles_follow_one_another_as_in_pyro() -> None:
    plain_svi(lazy(), Trace_ELBO(num_particles=3), X, 30, 2)
    expected = stored()
    pyro.clear_param_store()
    pv.fit(lazy(), X, epochs=2, batch_size=30, optimiser=adam, num_particles=3)
    assert equal(stored(), expected)


@pytest.mark.parametrize("name", ["networks", "lazy parameters", "autoguide", "score function"])
def test_resumed_training_ends_as_if_never_stopped(name: str, tmp_path: Path) -> None:
    make, objective, x, batch_size = PROGRAMS[name]
    options: dict[str, Any] = {"batch_size": batch_size, "optimiser": adam, "objective": objective}
    options |= {"compile": "off", "schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5)}
    pv.fit(make(), x, epochs=5, **options)
    expected = stored()
    pyro.clear_param_store()
    pv.fit(make(), x, epochs=3, **options, checkpoints=tmp_path)
    pyro.clear_param_store()
    torch.manual_seed(99)
    history = pv.fit(make(), x, epochs=5, **options, checkpoints=tmp_path, resume=True)
    assert history.column("epoch") == [1, 2, 3, 4, 5]
    assert equal(stored(), expected)


def test_buffers_are_resumed(tmp_path: Path) -> None:
    def make() -> tuple[Pair, nn.BatchNorm1d]:
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(4)
        model, guide = lazy()

        def normed(x: Tensor) -> None:
            pyro.module("norm", norm)
            guide(norm(x))

        return (model, normed), norm

    options: dict[str, Any] = {"batch_size": 30, "optimiser": adam}
    whole, norm = make()
    pv.fit(whole, X, epochs=4, **options)
    pyro.clear_param_store()
    pv.fit(make()[0], X, epochs=2, **options, checkpoints=tmp_path)
    pyro.clear_param_store()
    again, resumed = make()
    pv.fit(again, X, epochs=4, **options, checkpoints=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), resumed.buffers(), strict=True))
    assert not norm.training
    with refused("BatchNorm1d needs two data or more, but the last of the batches of 36 from 73 has one"):
        pv.fit(make()[0], X, batch_size=36)


def test_a_second_training_goes_on_from_the_store_and_leaves_the_rest_alone() -> None:
    other = pyro.param("other", torch.tensor(3.0), constraint=constraints.positive).unconstrained()
    other.grad = torch.tensor(7.0)
    pv.fit(lazy(), X, epochs=1, batch_size=30, optimiser=adam)
    plain = {name: tensor.clone() for name, tensor in stored().items()}
    history = pv.fit(lazy(), X, epochs=1, batch_size=30, optimiser=adam)
    ours = stored()
    pyro.clear_param_store()
    model, guide = lazy()
    pyro.param("other", torch.tensor(3.0), constraint=constraints.positive)
    plain_svi((model, guide), Trace_ELBO(), X, 30, 1)
    assert equal(stored(), plain)
    plain_svi((model, guide), Trace_ELBO(), X, 30, 1)
    assert equal(stored(), ours)
    assert history.best_epoch == 0
    assert other.grad == 7.0


def test_a_module_and_its_programs_train_alike() -> None:
    class Plain:
        """An object that is no module."""

        def __init__(self) -> None:
            self.model, self.guide = networks()

    seen: list[object] = []
    results = []
    for program in (Plain(), networks()):
        pyro.clear_param_store()
        pv.fit(
            program=program, data=X, epochs=1, batch_size=30, callbacks=[lambda given, _: seen.append(given)]
        )
        results.append(stored())
    assert equal(*results)
    assert isinstance(seen[0], Plain)
    assert isinstance(seen[1], tuple)


def test_the_best_epoch_is_kept_and_modes_are_set() -> None:
    modes: list[bool] = []

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(self.training if torch.is_grad_enabled() else not self.training)
            return super().forward(x)

    torch.manual_seed(0)
    model, guide = lazy()
    layer = Noting(4, 4)

    def through(x: Tensor) -> None:
        pyro.module("layer", layer)
        guide(layer(x))

    seen: list[dict[str, Tensor]] = []
    data = pv.Dataset(X[:60], X[60:])
    history = pv.fit(
        (model, through),
        data,
        epochs=6,
        batch_size=20,
        optimiser=lambda p: torch.optim.SGD(p, lr=3e-3, momentum=0.95),
        callbacks=[lambda *_: seen.append(stored())],
    )
    assert all(modes)
    assert not layer.training
    assert equal(stored(), seen[history.best_epoch - 1])
    terms = pv.elbo(model, through, X[60:], num_particles=2000)
    assert float(terms.elbo.mean()) == pytest.approx(history.best_valid_elbo, abs=1.0)


def test_validation_changes_nothing() -> None:
    pv.fit(lazy(), X, epochs=2, batch_size=30, compile="off")
    expected = stored()
    pyro.clear_param_store()
    pv.fit(lazy(), pv.Dataset(X, X[:9]), epochs=2, batch_size=30, compile="off", keep="last")
    assert equal(stored(), expected)


def test_analytic_kl_and_importance_weights() -> None:
    for objective in (TraceMeanField_ELBO, pv.ImportanceWeightedELBO):
        pyro.clear_param_store()
        history = pv.fit(networks(), X, epochs=8, batch_size=30, objective=objective, optimiser=adam)
        assert history.epochs[-1].train_elbo > history.epochs[0].train_elbo + 1


def test_float64_programs_train_in_float64() -> None:
    encoder = nn.Linear(4, 2).double()

    def model(x: Tensor) -> None:
        assert x.dtype == torch.float64
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat(1, 2), 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    pv.fit((model, guide), pv.Dataset(X), epochs=1, batch_size=30)
    pv.fit((model, guide), X.double(), epochs=1, batch_size=30)


def without_validation() -> Pair:
    """No plate of data, so that the ELBO of a datum has no meaning."""

    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).expand(x.shape).to_event(2), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.1))

    return model, guide


def test_what_has_no_elbo_of_each_datum_trains_without_validation_and_is_refused_before_a_step() -> None:
    with refused(
        "there is no validation ELBO of these programs: .*'z'.*; to train without it, give no valid"
    ):
        pv.fit(without_validation(), pv.Dataset(X, X[:5]), epochs=1, batch_size=30)
    assert pyro.param("loc").item() == 0.0
    pv.fit(without_validation(), X, epochs=1, batch_size=30)
    assert pyro.param("loc").item() != 0.0


def test_data_at_other_places_in_each_batch_are_refused_for_an_autoguide() -> None:
    with refused("AutoNormal holds 'z' of 30 data by their places in a batch, .*: give batch_size=73"):
        pv.fit(automatic(), X, epochs=1, batch_size=30)


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_what_gets_a_gradient_and_is_not_optimised_is_refused(compile: Literal["off", "flat"]) -> None:
    model, guide = lazy()
    layer = nn.Linear(4, 4)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 30, "compile": compile}
    text = "2 parameters get a gradient but are not being optimised: a tensor of shape .4"
    with refused(text):
        pv.fit((model, lambda x: guide(layer(x))), X, **options)
    layer.requires_grad_(False)
    pv.fit((model, lambda x: guide(layer(x))), X, **options)
    pyro.clear_param_store()
    pv.fit(networks(), X, **options)
    with refused("not being optimised: a tensor of shape"):  # another network under the names of the first
        pv.fit(networks(), X, **options)
    pyro.clear_param_store()
    with refused("parameters get a gradient but are not being optimised: 'scale'"):
        pv.fit(lazy(), X, **options, optimiser=lambda p: torch.optim.Adam(list(p)[1:]))


@pytest.mark.filterwarnings("ignore:fit runs as plain Pyro")
@pytest.mark.parametrize("compile", ["off", "flat"])
def test_a_parameter_that_comes_later_is_refused(compile: Literal["off", "flat"]) -> None:
    model, guide = lazy()
    runs: list[int] = []

    def growing(x: Tensor) -> None:
        runs.append(1)
        guide(x + pyro.param("late", torch.zeros(())) if len(runs) > 4 else x)

    with refused("1 parameters get a gradient but are not being optimised: 'late'"):
        pv.fit((model, growing), X, epochs=3, batch_size=30, compile=compile)


def test_a_tensor_is_training_data_for_a_vae() -> None:
    data, models = pv.Digits(), []
    bits = data.valid.batch()
    for each in (bits, pv.Dataset(bits), (bits > 0.5).long()):
        torch.manual_seed(0)
        models.append(pv.assemble(data, latent_dim=2, network=pv.MLP((8,))))
        pv.fit(models[-1], each, epochs=2)
    assert equal(models[0].state_dict(), models[1].state_dict())
    assert equal(models[0].state_dict(), models[2].state_dict())


class Empty(pv.JointProgram):
    """Has no parameters."""

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        return x


def test_what_cannot_be_trained() -> None:
    with refused("expected a model with parameters to train, got none: give Empty its networks"):
        pv.fit(Empty(), X)
    empty = Empty()
    with refused("expected a model with parameters to train, got none: all are frozen, or none is named"):
        pv.fit((empty.model, empty.guide), X, batch_size=30)
    with refused("fit expects a module with a Pyro model and guide, .* got the class VAE"):
        pv.fit(pv.VAE, X)  # type: ignore[arg-type]
    with refused("fit expects a Pyro program as guide, got int"):
        pv.fit((lazy()[0], 3), X)  # type: ignore[arg-type]
    with refused("fit expects data as a Dataset, or as a tensor or an array .N, .data_shape., got list"):
        pv.fit(lazy(), X.tolist())  # type: ignore[arg-type]
    with refused("the model takes .x, y., got x alone"):
        pv.fit((lambda x, y: None, lazy()[1]), X, batch_size=30)
    with refused("precision 'bfloat16' is that of networks made by an Architecture"):
        pv.fit(networks(), X, batch_size=30, precision="bfloat16")
    with refused("the model or guide cannot be evaluated on these data: .*shape"):
        pv.fit(lazy(), X[:, :3], batch_size=30)
    with refused("fit trains Pyro programs where they are, on cpu, got device 'meta'|got 'meta'"):
        pv.fit(networks(), X, batch_size=30, device="meta")


def test_what_is_to_be_summed_out_is_refused_under_an_objective_that_draws_it() -> None:
    """Trace_ELBO draws it from its prior; TraceEnum_ELBO finds both modes."""
    x = torch.cat([torch.randn(100) - 3, torch.randn(100) + 3])

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.tensor([-0.5, 0.5]))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc[kind] + z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 0.9))

    rate: dict[str, Any] = {"epochs": 40, "optimiser": partial(torch.optim.Adam, lr=0.05), "compile": "off"}
    refused = (
        "sums out 'kind', which .* the guide lacks, got Trace_ELBO, .* objective=pyro.infer.TraceEnum_ELBO"
    )
    with warnings.catch_warnings(), pytest.raises(pv.InputError, match=refused):
        warnings.simplefilter("ignore")  # Pyro's own word of it
        pv.fit((model, guide), x, **rate)
    assert torch.equal(pyro.param("loc"), torch.tensor([-0.5, 0.5]))
    pv.fit((model, guide), x, objective=TraceEnum_ELBO, **rate)
    assert pyro.param("loc").sort().values.tolist() == pytest.approx([-3, 3], abs=0.6)


def test_another_habit_of_optimisers_and_arguments_is_told_what_to_give() -> None:
    with pytest.raises(
        pv.InputError, match=r"got one of pyro.optim, or one that gives none: give functools.part"
    ):
        pv.fit(pv.assemble(pv.Digits()), pv.Digits(), epochs=1, optimiser=pyro.optim.ClippedAdam({"lr": 0.1}))
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'given': give data=Batch\(x, {'y': y}\)"
    ):
        pv.fit(pv.assemble(pv.Digits()), pv.Digits(), given={"y": 1})  # type: ignore[call-arg]
