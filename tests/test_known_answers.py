"""Components against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import pyro_vae as pv
from pyro_vae.networks import bounded


def parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_mixture_of_one_component_is_a_normal(float64: None) -> None:
    prior = pv.MixturePrior(3, components=1)
    with torch.no_grad():
        prior.log_scale.copy_(torch.tensor([[-1.0, 0.0, 2.0]]))
    normal = Independent(Normal(prior.loc[0], (6 * (prior.log_scale[0] / 6).tanh()).exp()), 1)
    z = torch.randn(50, 3)
    torch.testing.assert_close(prior().log_prob(z), normal.log_prob(z), rtol=1e-12, atol=1e-12)


def test_mixture_mixes_whole_vectors(float64: None) -> None:
    """Two components far apart on the diagonal: the off-diagonal corner has no mass."""
    prior = pv.MixturePrior(2, components=2)
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-5.0, -5.0], [5.0, 5.0]]))
    corner, diagonal = prior().log_prob(torch.tensor([[-5.0, 5.0], [5.0, 5.0]]))
    assert diagonal.item() == pytest.approx(math.log(0.5) - math.log(2 * math.pi), abs=1e-12)
    assert corner.item() == pytest.approx(-50 - math.log(2 * math.pi), abs=1e-9)


def test_vamp_prior_with_one_pseudo_input_is_the_posterior_there(float64: None) -> None:
    posterior = pv.DiagonalNormalPosterior(pv.MLP((7,)).encoder((5,)), 3)
    examples = torch.rand(1, 5)
    prior = pv.VampPrior(posterior, examples, components=1)
    z = torch.randn(50, 3)
    expected = posterior(examples[0]).log_prob(z)
    torch.testing.assert_close(prior().log_prob(z), expected, rtol=1e-12, atol=1e-12)


def test_vamp_prior_is_the_mean_over_pseudo_inputs(float64: None) -> None:
    posterior = pv.DiagonalNormalPosterior(pv.MLP((7,)).encoder((5,)), 3)
    prior = pv.VampPrior(posterior, torch.rand(20, 5), components=6)
    z = torch.randn(50, 3)
    density = torch.stack([posterior(u).log_prob(z).exp() for u in prior.pseudo_inputs]).mean(0)
    torch.testing.assert_close(prior().log_prob(z).exp(), density, rtol=1e-10, atol=1e-15)


def test_vamp_pseudo_inputs_start_as_different_data() -> None:
    examples = torch.arange(20.0)[:, None]
    posterior = pv.DiagonalNormalPosterior(pv.MLP((7,)).encoder((1,)), 3)
    start = pv.VampPrior(posterior, examples, components=20).pseudo_inputs
    assert sorted(start.flatten().tolist()) == examples.flatten().tolist()
    examples.zero_()
    assert start.sum().item() == 190


@pytest.mark.parametrize(("scale", "expected"), [(0.3, 0.3), ("shared", 1.0)])
def test_normal_scale_is_a_standard_deviation(scale: float | str, expected: float) -> None:
    likelihood = pv.NormalLikelihood(pv.MLP().decoder(2, (4,)), (4,), scale=scale)  # type: ignore[arg-type]
    px = likelihood(torch.zeros(2))
    torch.testing.assert_close(px.stddev, torch.full((4,), expected))


def test_bernoulli_log_density_is_the_sum_over_pixels(float64: None) -> None:
    likelihood = pv.BernoulliLikelihood(pv.MLP().decoder(2, (1, 3, 3)), (1, 3, 3))
    z, x = torch.randn(4, 2), torch.rand(4, 1, 3, 3).round()
    p = likelihood(z).mean
    expected = torch.where(x == 1, p, 1 - p).log().sum((1, 2, 3))
    torch.testing.assert_close(likelihood(z).log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_bounded_is_the_identity_in_the_middle_and_keeps_the_bounds() -> None:
    values = torch.tensor([-1e6, -2.0, 1e6], requires_grad=True)
    out = bounded(values, (-7.0, 3.0))
    torch.testing.assert_close(out, torch.tensor([-7.0, -2.0, 3.0]))
    (slope,) = torch.autograd.grad(out[1], values)
    assert slope[1].item() == 1


def test_parameter_counts_of_the_convolutional_keras_example() -> None:
    """320 + 18,496 + 50,192 + 34 + 34 in the encoder, 9,408 + 36,928 + 18,464 + 289 in the decoder."""
    network = pv.Convolutional((32, 64), hidden_dim=16)
    posterior = pv.DiagonalNormalPosterior(network.encoder((1, 28, 28)), 2)
    likelihood = pv.BernoulliLikelihood(network.decoder(2, (1, 28, 28)), (1, 28, 28))
    assert parameters(posterior) == 69_076
    assert parameters(likelihood) == 65_089


def test_parameter_counts_of_burda() -> None:
    """784-200-200-50: two hidden layers and two heads; 50-200-200-784: two hidden layers and one head."""
    network = pv.MLP((200, 200))
    posterior = pv.DiagonalNormalPosterior(network.encoder((1, 28, 28)), 50)
    likelihood = pv.BernoulliLikelihood(network.decoder(50, (1, 28, 28)), (1, 28, 28))
    assert parameters(posterior) == 785 * 200 + 201 * 200 + 2 * 201 * 50
    assert parameters(likelihood) == 51 * 200 + 201 * 200 + 201 * 784


def test_the_latent_plane_is_the_inverse_cdf_of_a_normal_prior(float64: None) -> None:
    data = pv.Digits()
    z, across, down = pv.assemble(data, latent_dim=3).latent_plane((2, 0), num=5)
    expected = Normal(0, 1).icdf(torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(across, expected)
    torch.testing.assert_close(down, expected.flip(0))
    assert z.shape == (25, 3)
    torch.testing.assert_close(z[:5, 2], expected)  # top row, from left to right
    torch.testing.assert_close(z[:5, 0], expected[-1].expand(5))
    assert z[:, 1].abs().max() == 0


def test_the_latent_plane_of_a_mixture_lies_at_its_quantiles() -> None:
    vae = pv.assemble(pv.Digits(), latent_dim=2, prior=pv.MixturePrior)
    with torch.no_grad():
        vae.prior.loc.fill_(3.0)
    _, across, down = vae.latent_plane(num=3)
    torch.testing.assert_close(
        across, 3 + Normal(0, 1).icdf(torch.tensor([1 / 6, 0.5, 5 / 6])), atol=0.05, rtol=0
    )
    torch.testing.assert_close(down, across.flip(0), atol=0.1, rtol=0)
