"""Numbers that move ten times as far, from the same start and to the same end."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.networks import Amplified, FreeNumbers, head

SMALL = pv.MLP((7,))


def trained(likelihood: pv.Likelihood, x: torch.Tensor) -> torch.Tensor:
    """1000 steps of the default size, with codes that say nothing; returns these."""
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=1e-3)
    z = torch.randn(len(x), 2)
    for _ in range(1000):
        optimiser.zero_grad()
        (-likelihood(z).log_prob(x).mean()).backward()
        optimiser.step()
    return z


def test_outputs_start_as_those_of_the_head() -> None:
    decoder = SMALL.decoder(3, (2, 4))
    torch.manual_seed(1)
    plain = head(decoder, (2, 4))
    torch.manual_seed(1)
    amplified = Amplified(head(decoder, (2, 4)))
    features = torch.randn(5, 7)
    torch.testing.assert_close(amplified(features), plain(features))
    assert amplified.output_shape == plain.output_shape
    start = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(FreeNumbers(start)().detach(), start)


def test_one_step_of_adam_is_ten_times_as_far() -> None:
    numbers = FreeNumbers(torch.tensor([0.5, -1.0]))
    optimiser = torch.optim.Adam(numbers.parameters(), lr=1e-3)
    (numbers() * torch.tensor([1.0, -3.0])).sum().backward()
    optimiser.step()
    torch.testing.assert_close(numbers().detach(), torch.tensor([0.49, -0.99]))


@pytest.mark.parametrize("density", [pv.NormalLikelihood, pv.LaplaceLikelihood])
def test_one_scale_of_all_pixels_arrives_within_the_default_training(density: type[pv.Likelihood]) -> None:
    """Of constants with noise of a known size: log s has to go by −3 in 1000 steps at 1e-3."""
    noise = {pv.NormalLikelihood: torch.randn(1000, 1, 2, 2), pv.LaplaceLikelihood: laplace(1000)}[density]
    x = 0.5 + 0.05 * noise
    likelihood = density(SMALL.decoder(2, (1, 2, 2)), (1, 2, 2))
    z = trained(likelihood, x)
    assert float(likelihood(z).stddev.detach().mean()) == pytest.approx(0.05, rel=0.1)


def laplace(num: int) -> torch.Tensor:
    """Draws of standard deviation 1."""
    return torch.distributions.Laplace(0.0, 1 / math.sqrt(2)).sample((num, 1, 2, 2))


def test_the_continuous_bernoulli_reaches_dark_pixels() -> None:
    """Levels 0 of 17, dequantised, have a mean of 1/34, for which its logit is about −34."""
    x = torch.rand(500, 1, 2, 2) / 17
    best = -34.0
    for _ in range(20):  # of 1/(1 − exp(−l)) − 1/l, the mean, by Newton's steps
        mean = 1 / -math.expm1(-best) - 1 / best
        slope = 1 / best**2 - math.exp(-best) / math.expm1(-best) ** 2
        best -= (mean - float(x.mean())) / slope
    assert best == pytest.approx(-34, abs=2)
    likelihood = pv.ContinuousBernoulliLikelihood(SMALL.decoder(2, (1, 2, 2)), (1, 2, 2))
    z = trained(likelihood, x)
    logits = likelihood.logits(likelihood.decoder(z)).detach()
    assert float(logits.mean()) == pytest.approx(best, rel=0.25)


def test_a_dispersion_becomes_that_of_a_poisson() -> None:
    """Counts without more spread than a Poisson's: θ has to grow, from 1."""
    x = torch.poisson(torch.full((500, 6), 4.0))
    likelihood = pv.NegativeBinomialLikelihood(SMALL.decoder(2, (6,)), (6,))
    z = trained(likelihood, x)
    px = likelihood(z)
    assert float((px.variance / px.mean).detach().mean()) == pytest.approx(1, abs=0.2)  # 4.5 without


@pytest.mark.parametrize(
    ("likelihood", "name"),
    [
        (pv.NormalLikelihood, "log_scale"),
        (pv.ContinuousBernoulliLikelihood, "logits"),
        (pv.NegativeBinomialLikelihood, "log_dispersion"),
    ],
)
def test_parameters_without_the_gain_are_not_taken_for_those_with_it(
    likelihood: type[pv.Likelihood], name: str
) -> None:
    make = partial(likelihood, SMALL.decoder(2, (6,)), (6,))
    before = {key.replace(f"{name}.raw", name): value for key, value in make().state_dict().items()}
    with pytest.raises(RuntimeError, match=rf"Missing key.*{name}\.raw"):
        make().load_state_dict(before)


def test_a_scale_by_the_network_is_a_plain_head() -> None:
    likelihood = pv.NormalLikelihood(SMALL.decoder(2, (6,)), (6,), scale="per_pixel")
    assert not any(isinstance(each, Amplified | FreeNumbers) for each in likelihood.modules())
    assert isinstance(likelihood.log_scale, nn.Module)
