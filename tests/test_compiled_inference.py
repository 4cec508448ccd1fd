"""Pyro's own guides and objectives as flat graphs."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGaussian,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints

import pyro_vae as pv
from tests.plain_pyro import X, trains_as_plain_pyro

Program = Callable[..., Any]


def is_flat(make: Callable[[], tuple[Program, Program]], elbo: Callable[[], Any] = Trace_ELBO) -> None:
    eager_because, _ = trains_as_plain_pyro(lambda: (*make(), lambda _: None), elbo, 7)
    assert not eager_because


def enum_elbo() -> TraceEnum_ELBO:
    return TraceEnum_ELBO(max_plate_nesting=1)


def nothing(x: Tensor) -> None:
    pass


# Autoguides


def regression(x: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a + b.sum() * x, s), obs=x)


def hierarchy(x: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(a, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def by_parts() -> AutoGuideList:
    guide = AutoGuideList(hierarchy)
    guide.append(AutoDelta(poutine.block(hierarchy, expose=["a"])))
    guide.append(AutoNormal(poutine.block(hierarchy, expose=["z"])))
    return guide


def structured() -> AutoStructured:
    conditionals = {"a": "normal", "b": "mvn", "s": "normal"}
    return AutoStructured(regression, conditionals=conditionals, dependencies={"s": {"a": "linear"}})


AUTOGUIDES: dict[str, Callable[[], tuple[Program, Program]]] = {
    "Normal": lambda: (regression, AutoNormal(regression)),
    "Normal in plates": lambda: (hierarchy, AutoNormal(hierarchy)),
    "DiagonalNormal": lambda: (regression, AutoDiagonalNormal(regression)),
    "MultivariateNormal": lambda: (regression, AutoMultivariateNormal(regression)),
    "LowRank": lambda: (regression, AutoLowRankMultivariateNormal(regression)),
    "Delta": lambda: (regression, AutoDelta(regression)),
    "Laplace": lambda: (regression, AutoLaplaceApproximation(regression)),
    "Gaussian": lambda: (regression, AutoGaussian(regression)),
    "IAF": lambda: (regression, AutoIAFNormal(regression, hidden_dim=[8])),
    "Structured": lambda: (regression, structured()),
    "list": lambda: (hierarchy, by_parts()),
}


@pytest.mark.parametrize("name", AUTOGUIDES)
def test_autoguides(name: str) -> None:
    is_flat(AUTOGUIDES[name])


def test_an_analytic_divergence() -> None:
    is_flat(AUTOGUIDES["Normal in plates"], TraceMeanField_ELBO)


class Network(PyroModule[nn.Module]):
    """A Bayesian network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = PyroModule[nn.Linear](1, 4)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 1]).to_event(2))
        self.second = PyroModule[nn.Linear](4, 1)
        self.scale = PyroParam(torch.tensor(1.0), constraints.positive)

    def forward(self, x: Tensor) -> None:
        mean = self.second(torch.tanh(self.first(x[:, None])))[:, 0]
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, self.scale), obs=x)


def test_a_bayesian_network() -> None:
    def programs() -> tuple[Program, Program]:
        network = Network()
        return network, AutoNormal(network)

    is_flat(programs)


# Discrete latents


def mixture(x: Tensor) -> None:
    weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(means[k], 1.0), obs=x)


def labels(x: Tensor) -> None:
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.OneHotCategorical(torch.tensor([0.5, 0.5])))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal((means * k).sum(-1) + z, 1.0), obs=x)


def labels_guide(x: Tensor) -> None:
    weights = pyro.param("weights", torch.tensor([0.3, 0.7]))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.OneHotCategorical(logits=weights * x[:, None]))
        pyro.sample("z", dist.Normal(x + k[..., 0], 1.0))


def hidden_markov(x: Tensor) -> None:
    moves = pyro.param("moves", torch.tensor([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex)
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    k: Any = 0
    for t in pyro.markov(range(4)):
        k = pyro.sample(f"k{t}", dist.Categorical(moves[k]), infer={"enumerate": "parallel"})
        pyro.sample(f"x{t}", dist.Normal(means[k], 1.0), obs=x[t])


DISCRETE: dict[str, tuple[Program, Program, Callable[[], Any]]] = {
    "summed in the model": (mixture, nothing, enum_elbo),
    "unknown nesting": (mixture, nothing, TraceEnum_ELBO),
    "hidden Markov": (hidden_markov, nothing, lambda: TraceEnum_ELBO(max_plate_nesting=0)),
    "summed in the guide": (labels, config_enumerate(labels_guide), enum_elbo),
    "one after the other": (labels, config_enumerate(labels_guide, "sequential"), enum_elbo),
    "one-hot": (labels, labels_guide, Trace_ELBO),
    "one-hot with a graph of costs": (labels, labels_guide, TraceGraph_ELBO),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_latents(name: str) -> None:
    model, guide, elbo = DISCRETE[name]
    is_flat(lambda: (model, guide), elbo)


def test_terms_of_probability_zero_are_left_out() -> None:
    def guide(x: Tensor) -> None:
        weight = pyro.param("weight", torch.tensor(0.3))
        logits = torch.stack([weight * x, torch.where(x > 0, -1e4, 0.0)], -1)
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(k.to(x), 1.0), obs=x)

    trains_as_plain_pyro(lambda: (model, guide, lambda _: None), enum_elbo, 7)


# Baselines


def coin(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


@pytest.mark.parametrize("kind", ["average", "network", "value"])
def test_baselines(kind: str) -> None:
    def programs() -> tuple[Program, Program, Callable[[int], None]]:
        net = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
        baselines: dict[str, Callable[[Tensor], dict[str, Any]]] = {
            "average": lambda x: {"use_decaying_avg_baseline": True},
            "network": lambda x: {"nn_baseline": net, "nn_baseline_input": x[:, None]},
            "value": lambda x: {"baseline_value": 0.5 * x},
        }

        def guide(x: Tensor) -> None:
            pyro.module("net", net)
            logits = pyro.param("a", torch.tensor(0.3)) * x
            with pyro.plate("data", len(x)):
                pyro.sample("k", dist.Bernoulli(logits=logits), infer={"baseline": baselines[kind](x)})

        return coin, guide, lambda _: None

    eager_because, _ = trains_as_plain_pyro(programs, TraceGraph_ELBO)
    assert ("of Pyro's store changes as it runs" in eager_because) == (kind == "average")


# What the objectives have besides


@pytest.mark.parametrize("insomnia", [0.0, 0.5, 1.0])
def test_wake_and_sleep_have_a_loss_each(insomnia: float) -> None:
    def model(x: Tensor, observations: Any = None) -> None:
        loc = pyro.param("loc", torch.tensor(0.2))
        with pyro.plate("data", len(X)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, observations: Any = None) -> None:
        x = x if observations is None else observations["x"]
        slope = pyro.param("slope", torch.tensor(0.2))
        with pyro.plate("data", len(X)):
            pyro.sample("z", dist.Normal(slope * x, 1.0))

    def elbo() -> ReweightedWakeSleep:
        return ReweightedWakeSleep(3, insomnia=insomnia, max_plate_nesting=1, vectorize_particles=False)

    is_flat(lambda: (model, guide), elbo)


def test_marginals_and_draws_of_what_is_summed() -> None:
    compiled = pv.CompiledELBO(enum_elbo())
    marginals = [elbo.compute_marginals(mixture, nothing, X) for elbo in (enum_elbo(), compiled)]
    assert torch.equal(*[marginal["k"].logits for marginal in marginals])
    assert compiled.sample_posterior(mixture, nothing, X) is None
    with pytest.raises(AttributeError, match="compute_marginals"):
        pv.CompiledELBO(Trace_ELBO()).compute_marginals  # noqa: B018
