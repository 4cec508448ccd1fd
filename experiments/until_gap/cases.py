"""Models, guides and data whose log p(x) is known."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import Tensor


class Case(NamedTuple):
    """A model with a guide, and what is known of it."""

    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    #: log p(x), (B,).
    evidence: Callable[[Tensor], Tensor]
    #: Data drawn from the model.
    draw: Callable[[int], Tensor]
    start: Literal["prior", "guide"]


def linear(data_dim: int, latent_dim: int, noise: float, widened: float, start: Any) -> Case:
    """X = W z + noise ε; the guide is p(z|x) with its covariance times `widened`."""
    generator = torch.Generator().manual_seed(latent_dim)
    weight = torch.randn(data_dim, latent_dim, generator=generator, dtype=torch.float64)
    precision = weight.T @ weight / noise**2 + torch.eye(latent_dim)
    marginal = dist.MultivariateNormal(
        torch.zeros(data_dim), weight @ weight.T + noise**2 * torch.eye(data_dim)
    )

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, noise).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        mean = torch.linalg.solve(precision, weight.T @ x.T / noise**2).T
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean, precision_matrix=precision / widened))

    return Case(model, guide, marginal.log_prob, lambda num: marginal.sample((num,)), start)


def _in_one_dimension(x: Tensor, joint: Callable[[Tensor], Tensor]) -> Tensor:
    """Log ∫ p(x, z) dz by a grid; `joint` maps z (G, 1) to (G, B)."""
    z = torch.linspace(-14, 14, 14_001)
    return joint(z[:, None]).logsumexp(0) + math.log(28 / 14_000) + 0 * x


def two_modes(start: Any) -> Case:
    """X = |z| + 0.3 ε, z from two normals far apart: a mode of p(z|x) in each; the guide has both."""

    def prior() -> Any:
        return dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2) / 2), dist.Normal(torch.tensor([-6.0, 6.0]), 1.0)
        )

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            modes = dist.Normal(torch.stack([-x, x], -1), 0.6)
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(x.new_ones(len(x), 2) / 2), modes))

    def evidence(x: Tensor) -> Tensor:
        return _in_one_dimension(x, lambda z: prior().log_prob(z) + dist.Normal(z.abs(), 0.3).log_prob(x))

    def draw(num: int) -> Tensor:
        return prior().sample((num,)).abs() + 0.3 * torch.randn(num)

    return Case(model, guide, evidence, draw, start)


def wave(start: Any) -> Case:
    """X = z + 2 sin 2z + 0.3 ε: up to three modes of unequal size; the guide is the prior, wider."""

    def mean(z: Tensor) -> Tensor:
        return z + (2 * z).sin()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.5))
            pyro.sample("x", dist.Normal(mean(z), 0.4), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 2.0))

    def evidence(x: Tensor) -> Tensor:
        return _in_one_dimension(
            x, lambda z: dist.Normal(0.0, 1.5).log_prob(z) + dist.Normal(mean(z), 0.4).log_prob(x)
        )

    def draw(num: int) -> Tensor:
        return mean(1.5 * torch.randn(num)) + 0.4 * torch.randn(num)

    return Case(model, guide, evidence, draw, start)


def components(start: Any) -> Case:
    """X = z + c_k + 0.4 ε in the plane, k one of four: k is summed out while z moves."""
    centres = torch.tensor([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]])
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4])
    scale = math.sqrt(1 + 0.4**2)
    marginal = dist.MixtureSameFamily(dist.Categorical(shares), dist.Normal(centres, scale).to_event(1))

    @config_enumerate
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            k = pyro.sample("k", dist.Categorical(shares))
            pyro.sample("x", dist.Normal(z + centres[k], 0.4).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.2).to_event(1))

    return Case(model, guide, marginal.log_prob, lambda num: marginal.sample((num,)), start)


#: Each with data of the model, and with data 1.3 times as spread.
CASES: dict[str, Callable[[], Case]] = {
    "linear, 2 in 5, noise 0.5, prior": lambda: linear(5, 2, 0.5, 2.0, "prior"),
    "linear, 1 in 3, noise 0.1, prior": lambda: linear(3, 1, 0.1, 2.0, "prior"),
    "linear, 3 in 4, noise 0.7, prior": lambda: linear(4, 3, 0.7, 2.0, "prior"),
    "linear, 5 in 10, noise 0.5, wide guide": lambda: linear(10, 5, 0.5, 4.0, "guide"),
    "linear, 10 in 20, noise 0.3, wide guide": lambda: linear(20, 10, 0.3, 2.0, "guide"),
    "linear, 3 in 6, noise 0.2, narrow guide": lambda: linear(6, 3, 0.2, 0.4, "guide"),
    "two modes, prior": lambda: two_modes("prior"),
    "two modes, guide": lambda: two_modes("guide"),
    "wave, prior": lambda: wave("prior"),
    "four components, prior": lambda: components("prior"),
}
SPREADS = (1.0, 1.3)
