"""Models whose posterior is known, with guides that are exact, or wrong where no margin shows it."""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


class Plant(NamedTuple):
    """z ~ 1/K Σ_k N(μ_k, C), x ~ N(H z, σ² I), and q(z|x) = 1/K' Σ_k N(m_k + G x, S).

    Where H μ_k = 0, the posterior is such a q with m = μ, G = C Hᵀ (H C Hᵀ + σ² I)⁻¹ and S = C − G H C
    (Tipping & Bishop 1999).
    """

    #: μ, (K, n).
    means: Tensor
    #: C, (n, n).
    covariance: Tensor
    #: H, (D, n).
    weight: Tensor
    #: σ.
    noise: float
    #: m, (K', n).
    guide_means: Tensor
    #: S, (n, n).
    guide_covariance: Tensor

    @property
    def gain(self) -> Tensor:
        """G, (n, D)."""
        cross = self.covariance @ self.weight.T
        return cross @ torch.linalg.inv(self.weight @ cross + self.noise**2 * torch.eye(len(self.weight)))

    def model(self, x: Tensor) -> None:
        """The Pyro program of p(x, z)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _mixture(self.means, self.covariance))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """The Pyro program of q(z|x)."""
        with pyro.plate("data", len(x)):
            means = self.guide_means + (x @ self.gain.T)[..., None, :]
            pyro.sample("z", _mixture(means, self.guide_covariance))

    def draw(self, number: int) -> Tensor:
        """Data from the model: (number, D)."""
        z = _mixture(self.means, self.covariance).sample((number,))
        return dist.Normal(z @ self.weight.T, self.noise).sample()


def _mixture(means: Tensor, covariance: Tensor) -> Any:
    """Of equal weights."""
    root = torch.linalg.cholesky(covariance)
    equal = dist.Categorical(logits=means.new_zeros(means.shape[:-1]))
    return dist.MixtureSameFamily(equal, dist.MultivariateNormal(means, scale_tril=root))


def modes(missing: bool) -> Plant:
    """Four modes in the corners of a square, of which q(z|x) may have two in opposite ones.

    Every margin of q is right, and so is log p(x, z): the modes have equal heights.
    """
    covariance = torch.diag(torch.tensor([0.3, 0.3, 1.0, 1.0]))
    covariance[0, 2] = covariance[2, 0] = 0.2
    covariance[1, 3] = covariance[3, 1] = -0.2
    corners = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    means = torch.cat([1.5 * corners, torch.zeros(4, 2)], dim=1)
    weight = torch.eye(4)[2:]
    exact = Plant(means, covariance, weight, 0.5, means, covariance)
    covariance = covariance - exact.gain @ weight @ covariance
    return exact._replace(guide_means=means[:2] if missing else means, guide_covariance=covariance)


def correlation(wrong: bool, size: int = 3, noise: float = 0.5) -> Plant:
    """A sum x of z, so that all pairs are correlated in p(z|x); q(z|x) may have the right margins only."""
    eye, weight = torch.eye(size), torch.ones(1, size)
    exact = Plant(torch.zeros(1, size), eye, weight, noise, torch.zeros(1, size), eye)
    covariance = eye - exact.gain @ weight
    return exact._replace(guide_covariance=torch.diag(covariance.diag()) if wrong else covariance)


PLANTS = {
    "four modes, exact": modes(False),
    "four modes, two missing": modes(True),
    "correlation, exact": correlation(False),
    "correlation, none": correlation(True),
}
