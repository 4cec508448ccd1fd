"""Components against closed forms."""

import math
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
)
from zuko.flows import MAF, NCSF, NSF

import pyro_vae as pv
from experiments.keras_conv.network import KerasConvolutional
from pyro_vae.distributions import DiagonalNormalMixture
from pyro_vae.networks import ResidualBlock, bounded, head


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
    network = KerasConvolutional((32, 64), hidden_dim=16)
    posterior = pv.DiagonalNormalPosterior(network.encoder((1, 28, 28)), 2)
    likelihood = pv.BernoulliLikelihood(network.decoder(2, (1, 28, 28)), (1, 28, 28))
    assert parameters(posterior) == 69_076
    assert parameters(likelihood) == 65_089


def test_parameter_counts_of_the_default_convolutional_network() -> None:
    """160 + 4,640 + 401,664 in the encoder with two heads, and back, with four numbers for each pixel."""
    network = pv.Convolutional()
    posterior = pv.DiagonalNormalPosterior(network.encoder((1, 28, 28)), 20)
    likelihood = pv.BernoulliLikelihood(network.decoder(20, (1, 28, 28)), (1, 28, 28))
    assert parameters(posterior) == 10 * 16 + 145 * 32 + (32 * 49 + 1) * 256 + 2 * 257 * 20
    back = 21 * 256 + 257 * 32 * 49 + (32 * 9 * 16 + 16)
    assert parameters(likelihood) == back + (16 * 9 + 1) * 4


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 2), (1, 1)])
def test_the_head_of_half_a_map_gives_four_pixels_to_each_place(size: tuple[int, int]) -> None:
    """Against the formula, y(c, 2i + a, 2j + b) = Σ w(4c + 2a + b, …) h(…, i + …, j + …) + bias."""
    rows, columns = ((side + 1) // 2 for side in size)
    features = pv.Network(nn.Identity(), (3, rows, columns), (3, rows, columns))
    made = head(features, (2, *size))
    h = torch.randn(5, 3, rows, columns)
    found = made(h)
    assert found.shape == (5, 2, *size)
    if size == (1, 1):  # the map is of the output's own size
        return
    weight, bias = made.layers[0].weight, made.layers[0].bias
    padded = nn.functional.pad(h, (1, 1, 1, 1))
    for channel in range(2):
        for row in range(size[0]):
            for column in range(size[1]):
                four = 4 * channel + 2 * (row % 2) + column % 2
                place = padded[:, :, row // 2 : row // 2 + 3, column // 2 : column // 2 + 3]
                expected = (weight[four] * place).sum((1, 2, 3)) + bias[four]
                torch.testing.assert_close(found[:, channel, row, column], expected)


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


def test_a_flow_prior_set_to_the_identity_is_its_base(float64: None) -> None:
    z = torch.randn(50, 3)
    expected = Independent(Normal(torch.zeros(3), torch.ones(3)), 1).log_prob(z)
    for flow in (MAF, NSF):
        prior = pv.FlowPrior(3, flow=flow)
        assert not torch.allclose(prior().log_prob(z), expected)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.zero_()
        torch.testing.assert_close(prior().log_prob(z), expected, rtol=1e-10, atol=1e-10)


def test_a_flow_posterior_set_to_the_identity_is_the_diagonal_normal(float64: None) -> None:
    x, z = torch.rand(4, 5), torch.randn(4, 3)
    for flow in (MAF, NSF):
        posterior = pv.FlowPosterior(pv.MLP((7,)).encoder((5,)), 3, flow=flow)
        diagonal = pv.DiagonalNormalPosterior(posterior.encoder, 3)
        diagonal.load_state_dict(posterior.state_dict(), strict=False)
        with torch.no_grad():
            for parameter in posterior.transform.parameters():
                parameter.zero_()
        torch.testing.assert_close(posterior(x).log_prob(z), diagonal(x).log_prob(z), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("flow", [MAF, NSF])
def test_a_flow_scores_its_draws_as_any_other_point(flow: type[MAF], float64: None) -> None:
    """The density that comes with a draw is the one by the inverse of the flow."""
    posterior = pv.FlowPosterior(pv.MLP((7,)).encoder((5,)), 3, flow=flow)
    qz = posterior(torch.rand(4, 5))
    z = qz.rsample((6,))
    assert z.requires_grad and not qz.sample().requires_grad
    torch.testing.assert_close(qz.log_prob(z), qz.log_prob(z.clone()), rtol=1e-9, atol=1e-9)


def test_the_mean_of_a_flow_is_that_of_its_draws(float64: None) -> None:
    qz = pv.FlowPosterior(pv.MLP((7,)).encoder((5,)), 3)(torch.rand(4, 5))
    draws = qz.sample((20_000,))
    assert ((qz.mean - draws.mean(0)).abs() < 5 * draws.std(0) / 10).all()


def test_covariances_of_correlated_posteriors(float64: None) -> None:
    """S (I + B)(I + B)ᵀ S with B strictly lower, and S (I + V Vᵀ) S."""
    x, encoder = torch.rand(4, 5), pv.MLP((7,)).encoder((5,))
    full = pv.FullNormalPosterior(encoder, 3)
    scale = (6 * (full.log_scale(encoder(x)) / 6).tanh()).exp()
    b = torch.zeros(4, 3, 3)
    assert full.correlation is not None
    b[:, 1, 0], b[:, 2, 0], b[:, 2, 1] = full.correlation(encoder(x)).unbind(-1)
    factor = scale[..., None] * (torch.eye(3) + b)
    torch.testing.assert_close(full(x).covariance_matrix, factor @ factor.mT)
    low = pv.LowRankNormalPosterior(encoder, 3, rank=2)
    scale = (6 * (low.log_scale(encoder(x)) / 6).tanh()).exp()
    v = 10 * (low.factor(encoder(x)) / 10).tanh()
    expected = scale[..., None] * (torch.eye(3) + v @ v.mT) * scale[..., None, :]
    torch.testing.assert_close(low(x).covariance_matrix, expected)


def test_laplace_and_student_t_priors_by_their_formulas(float64: None) -> None:
    z = torch.randn(50, 3) * 3
    torch.testing.assert_close(pv.LaplacePrior(3)().log_prob(z), (-z.abs() - math.log(2)).sum(-1))
    nu = 3.0
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    expected = (constant - (nu + 1) / 2 * (1 + z.square() / nu).log()).sum(-1)
    torch.testing.assert_close(pv.StudentTPrior(3, degrees_of_freedom=nu)().log_prob(z), expected)
    for bad in (0.0, -1.0, 1001, math.inf, math.nan):
        with pytest.raises(
            pv.InputError, match="degrees_of_freedom expects a positive number up to 1000, got"
        ):
            pv.StudentTPrior(3, degrees_of_freedom=bad)


def test_student_t_keeps_its_digits_in_float32() -> None:
    prior, z = pv.StudentTPrior(50, degrees_of_freedom=1000), torch.randn(100, 50)
    exact = StudentT(torch.tensor(1000.0, dtype=torch.float64)).log_prob(z.double()).sum(-1)
    torch.testing.assert_close(prior().log_prob(z).double(), exact, rtol=0, atol=0.02)


def test_a_vamp_prior_of_a_users_posterior_is_that_posterior(float64: None) -> None:
    """Also where it derives from the diagonal normal and is another density."""

    class LaplacePosterior(pv.DiagonalNormalPosterior):
        def forward(self, x: Tensor) -> Any:
            qz = super().forward(x)
            return pyro.distributions.Laplace(qz.mean, qz.stddev).to_event(1)

    posterior = LaplacePosterior(pv.MLP((7,)).encoder((5,)), 3)
    prior = pv.VampPrior(posterior, torch.rand(9, 5), components=4)
    z = torch.randn(50, 3)
    expected = torch.stack([posterior(u).log_prob(z) for u in prior.pseudo_inputs]).logsumexp(0) - math.log(4)
    torch.testing.assert_close(prior().log_prob(z), expected)


def test_flows_that_are_no_density_over_the_reals_are_refused() -> None:
    wrong: list[Any] = [NCSF, nn.Linear, "NSF"]
    for flow in wrong:
        with pytest.raises(pv.InputError, match=r"flow expects zuko.flows.MAF or zuko.flows.NSF, got"):
            pv.FlowPrior(2, flow=flow)


@pytest.mark.parametrize("size", [0.05, 1.0, 50.0])
def test_a_mixture_by_matrix_products_keeps_the_digits_of_one_by_differences(size: float) -> None:
    """In float32 against float64 differences: 300 components in 40 dimensions, scales down to e⁻⁴."""
    loc, log_scale = size * torch.randn(300, 40), torch.rand(300, 40) * 4 - 4
    logits, z = torch.randn(300), size * torch.randn(64, 40)
    z[:32] = loc[:32] + log_scale[:32].exp() * torch.randn(32, 40)  # draws, too
    components = Independent(Normal(loc.double(), log_scale.double().exp()), 1)
    expected = MixtureSameFamily(Categorical(logits=logits.double()), components).log_prob(z.double())
    found = DiagonalNormalMixture(logits, loc, log_scale.exp()).log_prob(z)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)


def test_moments_and_draws_of_a_mixture(float64: None) -> None:
    mixture = DiagonalNormalMixture(torch.randn(3), torch.randn(3, 2), torch.rand(3, 2) + 0.2)
    draws = mixture.expand((2,)).sample((50_000,))
    assert draws.shape == (50_000, 2, 2)
    errors = (draws - mixture.mean).std((0, 1)) / 100_000**0.5
    assert ((draws.mean((0, 1)) - mixture.mean).abs() < 5 * errors).all()
    torch.testing.assert_close(draws.var((0, 1)), mixture.variance, rtol=0.03, atol=0)


def test_a_gated_layer_is_the_product_of_a_line_and_a_gate(float64: None) -> None:
    network = pv.GatedMLP((7,)).encoder((5,))
    x, linear = torch.randn(4, 5), network.layers[1]
    line, gate = linear(x).chunk(2, dim=-1)
    torch.testing.assert_close(network(x), line * gate.sigmoid())


def test_parameter_counts_of_the_vamp_prior_papers_network() -> None:
    """Dense gated 784-300-300-40: two layers of twice 300 and two heads; 40-300-300-784: two and one head."""
    network = pv.GatedMLP((300, 300))
    posterior = pv.DiagonalNormalPosterior(network.encoder((784,)), 40)
    likelihood = pv.BernoulliLikelihood(network.decoder(40, (784,)), (784,))
    assert parameters(posterior) == 2 * 785 * 300 + 2 * 301 * 300 + 2 * 301 * 40
    assert parameters(likelihood) == 2 * 41 * 300 + 2 * 301 * 300 + 301 * 784


def test_a_residual_network_treats_each_datum_on_its_own(float64: None) -> None:
    network = pv.ResidualConvolutional((4, 6), hidden_dim=5, groups=2).encoder((1, 8, 8))
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(network(x)[2], network(x[2:3])[0])
    block = ResidualBlock(4, 2, nn.SiLU)
    with torch.no_grad():
        block.layers[-1].weight.zero_()
        block.layers[-1].bias.zero_()
    h = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(h), h)


def test_training_probabilistic_pca_reaches_the_maximum_likelihood(float64: None) -> None:
    """Tipping & Bishop (1999): of N data in D dimensions, with the D − L smallest eigenvalues of the data's
    covariance averaged into σ², log p = −½ Σ_d log λ_d − ½ (D − L) log σ² − ½ D (1 + log 2π) in the mean.
    """
    dim, latent = 6, 2
    x = torch.randn(400, latent) @ torch.randn(latent, dim) + 0.4 * torch.randn(400, dim) + torch.randn(dim)
    covariance = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    values = torch.linalg.eigvalsh(covariance).flip(0)
    logs = values[:latent].log().sum() + (dim - latent) * values[latent:].mean().log()
    best = -0.5 * float(logs + dim * (1 + math.log(2 * math.pi)))

    flat = pv.MLP(())
    vae = pv.VAE(
        pv.StandardNormalPrior(latent),
        pv.NormalLikelihood(flat.decoder(latent, (dim,)), (dim,), scale="shared"),
        pv.DiagonalNormalPosterior(flat.encoder((dim,)), latent),
    )
    pv.fit(
        vae,
        pv.Dataset(x.float()),
        epochs=800,
        batch_size=100,
        objective=TraceMeanField_ELBO,
        num_particles=4,
        optimiser=partial(torch.optim.Adam, lr=0.1),
        schedule=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.994),
    )
    weight, bias = vae.likelihood.loc.layers[1].weight, vae.likelihood.loc.layers[1].bias
    noise = vae.likelihood(torch.zeros(latent)).stddev.square().diag()
    exact = MultivariateNormal(bias, weight @ weight.T + noise).log_prob(x).mean().item()
    assert best - 0.01 < exact <= best + 1e-9
