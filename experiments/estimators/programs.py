"""Pyro programs whose log p(x) is known: in closed form, by a sum over what is discrete, or by quadrature."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

_HIDDEN = {"enumerate": "parallel"}


class Known(NamedTuple):
    """A model and a guide, data drawn from the model, and their log p(x)."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Tensor
    #: (B,), float64.
    log_px: Tensor


class Linear(NamedTuple):
    """z ~ N(0, I), x ~ N(H z, σ² I), whose p(z|x) is N(G x, S) with one S for all x."""

    #: H, (D, n).
    weight: Tensor
    #: σ.
    noise: float

    @property
    def covariance(self) -> Tensor:
        """S, (n, n)."""
        eye = torch.eye(self.weight.shape[1]).to(self.weight)
        return torch.linalg.inv(eye + self.weight.T @ self.weight / self.noise**2)

    @property
    def gain(self) -> Tensor:
        """G, (n, D)."""
        return self.covariance @ self.weight.T / self.noise**2

    @property
    def px(self) -> dist.MultivariateNormal:
        """p(x)."""
        size = len(self.weight)
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(size).to(self.weight)
        return dist.MultivariateNormal(torch.zeros(size).to(self.weight), covariance)

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        size = self.weight.shape[1]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(size).to(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.noise).to_event(1), obs=x)

    def known(self, num: int, *, covariance: Tensor, shift: float = 0.0) -> Known:
        """With q(z|x) = N(G x + shift · √diag S, covariance)."""
        root = torch.linalg.cholesky(covariance)
        offset = shift * self.covariance.diagonal().sqrt()

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                mean = x @ self.gain.T + offset
                pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=root))

        x = self.px.sample((num,))
        return Known(self.model, guide, x, self.px.log_prob(x))


def linear(size: int = 8) -> Linear:
    """With D = 12 and random loadings."""
    generator = torch.Generator().manual_seed(0)
    return Linear(torch.randn(12, size, generator=generator).double() / 2, 0.7)


def good_guide(num: int) -> Known:
    """q(z|x) with the right mean, and deviations of 1.15 times the right ones."""
    made = linear()
    return made.known(num, covariance=made.covariance * 1.15**2)


def narrow_guide(num: int) -> Known:
    """q(z|x) with half the deviations, half of one beside the mean."""
    made = linear()
    return made.known(num, covariance=made.covariance / 4, shift=0.5)


def mean_field(num: int) -> Known:
    """Data tell sums of z only, so that p(z|x) is strongly correlated; q(z|x) is the best without."""
    made = Linear(torch.ones(8, 8).double() + 0.4 * torch.eye(8).double(), 0.7)
    best = torch.diag(1 / torch.linalg.inv(made.covariance).diagonal())
    return made.known(num, covariance=best)


def two_modes(num: int) -> Known:
    """Of z₁ the square is told, so that p(z|x) has a mode on either side of 0; q(z|x) has one."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
            mean = torch.stack([z[..., 0] ** 2, z[..., 1] + 0.5 * z[..., 0]], dim=-1)
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            first = x[:, 0].clamp(min=0.25).sqrt()
            scale = torch.stack([0.25 / first.clamp(max=1.0), torch.full_like(first, 0.45)], dim=-1)
            mean = torch.stack([first, 0.8 * (x[:, 1] - 0.5 * first)], dim=-1)
            pyro.sample("z", dist.Normal(mean, scale).to_event(1))

    # where the square is well above its noise, that the modes are apart
    z = torch.randn(num, 2).double()
    z[:, 0] = z[:, 0].sign() * (1 + z[:, 0].abs())
    mean = torch.stack([z[:, 0] ** 2, z[:, 1] + 0.5 * z[:, 0]], dim=-1)
    x = mean + 0.5 * torch.randn(num, 2).double()
    return Known(model, guide, x, _over_plane(x))


def _over_plane(x: Tensor, limit: float = 8.0, points: int = 1601) -> Tensor:
    """∫ p(x|z) p(z) dz of two modes, z₂ in closed form and z₁ by the trapezoidal rule."""
    z = torch.linspace(-limit, limit, points, dtype=torch.float64)[:, None]
    second = dist.Normal(0.5 * z, math.sqrt(1.25)).log_prob(x[:, 1])
    values = dist.Normal(z**2, 0.5).log_prob(x[:, 0]) + second + dist.Normal(0.0, 1.0).log_prob(z)
    return values.logsumexp(0) + math.log(2 * limit / (points - 1))


def funnel(num: int, size: int = 6) -> Known:
    """θ_j ~ N(0, τ), x_j ~ N(θ_j, 1), with a scale τ > 0 of each datum: the schools of Rubin (1981).

    q(τ, θ|x) = q(τ|x) Π_j q(θ_j|x), as a guide without correlations has it.
    """

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            tau = pyro.sample("tau", dist.LogNormal(torch.zeros(()).to(x), 1.5))
            theta = pyro.sample(
                "theta", dist.Normal(0.0, tau[..., None].expand(*tau.shape, size)).to_event(1)
            )
            pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = (x.square().mean(-1) - 1).clamp(min=0.3).sqrt()
            pyro.sample("tau", dist.LogNormal(scale.log(), 0.7))
            share = (scale**2 / (1 + scale**2))[..., None]
            pyro.sample("theta", dist.Normal(share * x, share.sqrt().expand_as(x)).to_event(1))

    tau = torch.exp(1.5 * torch.randn(num, 1).double()).clamp(0.2, 4.0)
    x = tau * torch.randn(num, size).double() + torch.randn(num, size).double()
    return Known(model, guide, x, _over_scales(x))


def _over_scales(x: Tensor, limit: float = 12.0, points: int = 4001) -> Tensor:
    """∫ N(x; 0, (1 + τ²) I) p(τ) dτ over log τ, by the trapezoidal rule."""
    log_tau = torch.linspace(-limit, limit, points, dtype=torch.float64)
    scale = (1 + (2 * log_tau).exp()).sqrt()[:, None, None]
    values = dist.Normal(0.0, scale).log_prob(x).sum(-1)
    weights = dist.Normal(0.0, 1.5).log_prob(log_tau) + math.log(2 * limit / (points - 1))
    return (values + weights[:, None]).logsumexp(0)


def enumerated(num: int) -> Known:
    """One of three kinds, summed out, says where z lies: p(z|x) has up to three modes. x = H z + noise."""
    generator = torch.Generator().manual_seed(0)
    made = Linear(torch.randn(6, 4, generator=generator).double() / 2, 1.0)
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    centres = 2 * torch.randn(3, 4, generator=generator).double()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(shares), infer=_HIDDEN)
            z = pyro.sample("z", dist.Normal(centres[kind], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ made.weight.T, made.noise).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        """One normal of the moments of p(z|x)."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(*_moments(made, shares, centres, x)))

    kinds = dist.Categorical(shares).sample((num,))
    noise = made.px.sample((num,))
    x = centres[kinds] @ made.weight.T + noise
    return Known(model, guide, x, _log_joint(made, shares, centres, x).logsumexp(-1))


def _log_joint(made: Linear, shares: Tensor, centres: Tensor, x: Tensor) -> Tensor:
    """Log p(x, kind): (B, 3)."""
    return made.px.log_prob(x[:, None] - centres @ made.weight.T) + shares.log()


def _moments(made: Linear, shares: Tensor, centres: Tensor, x: Tensor) -> Sequence[Tensor]:
    """Mean (B, n) and covariance (B, n, n) of p(z|x)."""
    weights = _log_joint(made, shares, centres, x).softmax(-1)
    means = centres + (x[:, None] - centres @ made.weight.T) @ made.gain.T  # (B, 3, n)
    mean = (weights[..., None] * means).sum(1)
    apart = means - mean[:, None]
    return mean, made.covariance + torch.einsum("bk,bki,bkj->bij", weights, apart, apart)
