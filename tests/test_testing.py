"""The laws for a user's own components hold for right ones, and name what is wrong with others."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.testing import check_likelihood, check_posterior, check_prior
from tests.components import DATA_SHAPE, LATENT_DIM, LIKELIHOODS, POSTERIORS, PRIORS, SMALL, data_for


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_passes(name: str) -> None:
    check_prior(PRIORS[name](LATENT_DIM))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_passes(name: str) -> None:
    check_likelihood(LIKELIHOODS[name](DATA_SHAPE, LATENT_DIM), data_for(name))


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior_passes(name: str) -> None:
    check_posterior(POSTERIORS[name](DATA_SHAPE, LATENT_DIM), torch.rand(5, *DATA_SHAPE))


class Wrong(pv.Prior):
    """N(m, e^2s) of two coordinates, with one fault by name."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.latent_dim, self.fault = 2, fault
        self.loc = nn.Parameter(torch.zeros(2))
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.constant = torch.ones(2)  # no buffer

    def forward(self) -> dist.TorchDistribution:
        loc: Tensor = self.loc
        scale = self.log_scale.exp()
        if self.fault == "detached":
            loc = loc.detach()
        if self.fault == "constant":
            return dist.Normal(self.constant, self.constant).to_event(1)
        if self.fault == "infinite":
            return Infinite(loc, scale).to_event(1)
        return dist.Normal(loc, scale) if self.fault == "event" else dist.Normal(loc, scale).to_event(1)


class Infinite(dist.Normal):
    """Draws are at infinity."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return super().sample(sample_shape) / 0.0


def test_a_right_prior_passes() -> None:
    check_prior(Wrong("none"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("event", r"expected \(\) as the batch shape of Wrong, got \(2,\)"),
        ("detached", "got none for loc: is a tensor detached"),
        ("constant", "expected a gradient .* got none for loc, log_scale"),
    ],
)
def test_a_wrong_prior_is_told_its_fault(fault: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_prior(Wrong(fault))


def test_infinite_draws_are_found() -> None:
    with pytest.raises(
        AssertionError, match="expected finite draws from Wrong, got 200 of 200 NaN or infinite"
    ):
        check_prior(Wrong("infinite"))


class Frozen(pv.Prior):
    """A constant that does not move with the module."""

    latent_dim = 2

    def forward(self) -> dist.TorchDistribution:
        return dist.Normal(torch.zeros(2), 1.0).to_event(1)


def test_constants_that_are_no_buffers_are_found() -> None:
    with pytest.raises(AssertionError, match=r"expected torch\.float64 as the type of draws from Frozen"):
        check_prior(Frozen())


class Mixing(pv.DiagonalNormalPosterior):
    """Centres a batch, so that one datum depends on the others."""

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        return super().forward(x - x.mean(0) if x.ndim > len(DATA_SHAPE) else x)


def test_data_that_depend_on_one_another_are_found() -> None:
    with pytest.raises(AssertionError, match="log p under Mixing of many at once to be that of each alone"):
        check_posterior(Mixing(SMALL.encoder(DATA_SHAPE), 3), torch.rand(5, *DATA_SHAPE))


class Flattened(pv.NormalLikelihood):
    """Loses the leading axes."""

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return super().forward(z.flatten(0, -2) if z.ndim > 1 else z)


def test_lost_axes_are_found() -> None:
    with pytest.raises(
        AssertionError, match=r"expected \(2, 6\) as the batch shape of Flattened, got \(12,\)"
    ):
        check_likelihood(Flattened(SMALL.decoder(3, DATA_SHAPE), DATA_SHAPE), torch.rand(4, *DATA_SHAPE))


def test_what_is_no_prior_and_data_outside_the_support_are_refused() -> None:
    with pytest.raises(pv.InputError, match="the prior expects a Prior, got Linear"):
        check_prior(nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(pv.InputError, match=r"expects the values 0 and 1, got 0\.5"):
        check_likelihood(
            pv.BernoulliLikelihood(SMALL.decoder(3, DATA_SHAPE), DATA_SHAPE),
            torch.full((4, *DATA_SHAPE), 0.5),
        )
