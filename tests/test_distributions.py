"""Our distributions, and the likelihoods made of them, against closed forms and brute force."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_vae as pv
from pyro_vae.distributions import Lattice
from pyro_vae.likelihoods.counts import NegativeBinomial, Poisson

LOGITS = [0.0, 1e-6, 1e-3, 0.0999, 0.1001, 0.4999, 0.5, 3.0, 20.0, 100.0, 1000.0]


def by_quadrature(logit: float) -> tuple[float, float, float]:
    """log ∫₀¹ e^{lx} dx, mean and variance, each integral scaled so that nothing overflows."""
    top, width = max(logit, 0.0), 40 / max(abs(logit), 40.0)
    ends = (1 - width, 1) if logit > 0 else (0, width)  # beyond, the integrand is below e⁻⁴⁰ of its top

    def moment(power: int, centre: float = 0.0) -> float:
        return float(
            integrate.quad(
                lambda x: (x - centre) ** power * math.exp(x * logit - top), *ends, epsabs=0, epsrel=1e-13
            )[0]
        )

    total = moment(0)
    mean = moment(1) / total
    return math.log(total) + top, mean, moment(2, mean) / total


@pytest.mark.parametrize("logit", [sign * size for size in LOGITS for sign in (1, -1)])
def test_continuous_bernoulli_against_quadrature(logit: float, float64: None) -> None:
    log_total, mean, variance = by_quadrature(logit)
    logits = torch.tensor(logit, requires_grad=True)
    px = pv.ContinuousBernoulli(logits)
    for x in (0.0, 0.3, 1.0):
        log_prob = px.log_prob(torch.tensor(x))
        assert log_prob.item() == pytest.approx(x * logit - log_total, rel=1e-12, abs=1e-11)
        (slope,) = torch.autograd.grad(log_prob, logits)
        assert slope.item() == pytest.approx(x - mean, abs=2e-10)
    assert px.mean.item() == pytest.approx(mean, rel=1e-11)
    assert px.variance.item() == pytest.approx(variance, rel=2e-10)
    assert torch.isfinite(torch.autograd.grad(px.mean + px.variance, logits)[0])


@pytest.mark.parametrize("logit", [sign * size for size in LOGITS for sign in (1, -1)])
def test_continuous_bernoulli_in_float32(logit: float) -> None:
    log_total, mean, variance = by_quadrature(logit)
    logits = torch.tensor(logit, requires_grad=True)
    px = pv.ContinuousBernoulli(logits)
    log_prob = px.log_prob(torch.tensor(0.25))
    assert log_prob.item() == pytest.approx(0.25 * logit - log_total, rel=2e-6, abs=1e-6)
    assert torch.autograd.grad(log_prob, logits)[0].item() == pytest.approx(0.25 - mean, abs=1e-5)
    assert px.mean.item() == pytest.approx(mean, rel=1e-3, abs=1e-6)
    assert px.variance.item() == pytest.approx(variance, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("logit", [0.0, 5e-5, -5e-5, 2.0, -2.0, 200.0, -200.0])
def test_continuous_bernoulli_draws_by_its_inverse_cdf(logit: float, float64: None) -> None:
    logits = torch.tensor(logit, requires_grad=True)
    draws = pv.ContinuousBernoulli(logits).rsample((20_000,))
    assert draws.min() >= 0 and draws.max() <= 1

    def cdf(x: NDArray[Any]) -> NDArray[Any]:
        if abs(logit) < 1e-3:
            return x
        end = logit > 0  # the same by reflection, without overflow
        below = np.expm1(-abs(logit) * (1 - x if end else x)) / math.expm1(-abs(logit))
        return 1 - below if end else below

    assert stats.kstest(draws.detach().numpy(), cdf).pvalue > 1e-3
    # d E[x] / dl is the variance
    (slope,) = torch.autograd.grad(draws.mean(), logits)
    assert slope.item() == pytest.approx(by_quadrature(logit)[2], rel=0.05)


def brute_force(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Probabilities of all levels, last axis, as differences of CDFs on the side where they are small."""
    edges = (torch.arange(levels - 1, dtype=torch.float64) + 0.5) / (levels - 1)
    standard = (edges - loc.double()[..., None]) / scale.double()[..., None]
    infinity = torch.full_like(standard[..., :1], math.inf)
    low, high = torch.cat([-infinity, standard], -1), torch.cat([standard, infinity], -1)
    mirrored = low > 0
    return torch.where(
        mirrored, torch.sigmoid(-low) - torch.sigmoid(-high), torch.sigmoid(high) - torch.sigmoid(low)
    )


LOCS, SCALES = torch.meshgrid(
    torch.tensor([-30.0, -0.5, 0.0, 0.1234, 0.5, 0.999, 1.5, 30.0]),
    10 ** torch.arange(-3.0, 3),
    indexing="ij",
)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_discretized_logistic_against_brute_force(levels: int, float64: None) -> None:
    px = pv.DiscretizedLogistic(LOCS.double(), SCALES.double(), levels)
    values = torch.arange(levels) / (levels - 1)
    log_probs = px.log_prob(values[:, None, None])
    expected = brute_force(LOCS, SCALES, levels).movedim(-1, 0)
    assert (log_probs.exp().sum(0) - 1).abs().max() < 1e-12
    seen = expected > 1e-280
    assert seen.float().mean() > 0.5
    torch.testing.assert_close(log_probs[seen], expected[seen].log(), rtol=1e-9, atol=1e-9)
    mean = (values[:, None, None] * expected).sum(0)
    torch.testing.assert_close(px.mean, mean, rtol=1e-10, atol=1e-12)
    variance = ((values[:, None, None] - mean).square() * expected).sum(0)
    torch.testing.assert_close(px.variance, variance, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("levels", [64, 100, 256, 4096])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mean_of_a_discretized_logistic_is_its_sum_at_every_scale(levels: int, dtype: torch.dtype) -> None:
    """Also where another formula takes over: about two bins, and where one scale spans all."""
    bins = torch.tensor([1e-9, 1e-3, 0.1, 0.5, 1.0, 1.9, 1.999, 2.0, 2.001, 2.1, 3.0, 7.0, 20.0])
    scales = torch.cat([bins.double() / (levels - 1), 10.0 ** torch.arange(-2.0, 12, dtype=torch.float64)])
    locs = torch.tensor([-1e6, -2.0, -0.01, 0.0, 0.003, 0.31, 0.5, 0.77, 0.999, 1.0, 1.04, 5.0, 1e6]).double()
    loc, scale = torch.meshgrid(locs.to(dtype).double(), scales.to(dtype).double(), indexing="ij")
    edges = (torch.arange(1, levels, dtype=torch.float64) - 0.5) / (levels - 1)
    expected = torch.sigmoid((loc[..., None] - edges) / scale[..., None]).mean(-1)
    mean = pv.DiscretizedLogistic(loc.to(dtype), scale.to(dtype), levels).mean
    assert mean.dtype == dtype
    rtol, atol = (1e-10, 1e-12) if dtype == torch.float64 else (2e-6, 1e-6)
    torch.testing.assert_close(mean.double(), expected, rtol=rtol, atol=atol)


def test_mean_of_a_discretized_logistic_has_the_gradient_of_its_sum(float64: None) -> None:
    scales = torch.tensor([1e-4, 1e-3, 0.0078, 0.0079, 0.05, 0.2, 3.0]).requires_grad_()
    locs = torch.tensor([-0.2, 0.3, 0.9]).requires_grad_()
    loc, scale = torch.meshgrid(locs, scales, indexing="ij")
    edges = (torch.arange(1, 256) - 0.5) / 255
    expected = torch.sigmoid((loc[..., None] - edges) / scale[..., None]).mean(-1)
    mean = pv.DiscretizedLogistic(loc, scale, 256).mean
    weights = torch.rand(mean.shape)
    for parameter in (locs, scales):
        ours, theirs = (
            torch.autograd.grad((weights * each).sum(), parameter, retain_graph=True)[0]
            for each in (mean, expected)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_mean_takes_no_more_operations_for_more_levels() -> None:
    class Counted(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.number += 1
            return function(*args, **(kwargs or {}))

    numbers = []
    for levels in (256, 4096):
        px = pv.DiscretizedLogistic(torch.rand(10), torch.full((10,), 0.05), levels)
        with Counted() as counted:
            assert px.mean.shape == (10,)
        numbers.append(counted.number)
    assert numbers[0] == numbers[1] < 250


def test_discretized_logistic_in_float32() -> None:
    values = (torch.arange(256) / 255)[:, None, None]
    log_probs = pv.DiscretizedLogistic(LOCS, SCALES, 256).log_prob(values)
    expected = pv.DiscretizedLogistic(LOCS.double(), SCALES.double(), 256).log_prob(values.double())
    torch.testing.assert_close(log_probs.double(), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [2, 256])
def test_discretized_logistic_stays_finite_where_a_difference_of_cdfs_does_not(levels: int) -> None:
    locs, scales = torch.meshgrid(
        torch.tensor([-1e3, 0.0, 0.5, 1e3]), 10 ** torch.tensor([-12.0, -6, 0, 6, 12]), indexing="ij"
    )
    parameters = locs.clone().requires_grad_(), scales.clone().requires_grad_()
    log_probs = pv.DiscretizedLogistic(*parameters, levels).log_prob(
        torch.linspace(0, 1, levels)[:, None, None]
    )
    assert torch.isfinite(log_probs).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(log_probs.sum(), parameters))


def test_discretized_logistic_draws_by_its_masses(float64: None) -> None:
    px = pv.DiscretizedLogistic(torch.tensor(0.2), torch.tensor(0.15), 17)
    counts = torch.bincount((px.sample((20_000,)) * 16).round().long(), minlength=17)
    expected = px.log_prob(torch.arange(17) / 16).exp() * 20_000
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_lattice_of_a_categorical(float64: None) -> None:
    logits = torch.randn(3, 256)
    grey = pv.Lattice(dist.Categorical(logits=logits), 1 / 255)
    data = torch.randint(256, (5, 3))
    expected = torch.log_softmax(logits, -1).expand(5, 3, 256).gather(-1, data[..., None]).squeeze(-1)
    torch.testing.assert_close(grey.log_prob(data / 255), expected)
    levels = torch.arange(256) / 255
    mean = (logits.softmax(-1) * levels).sum(-1)
    torch.testing.assert_close(grey.mean, mean)
    variance = (logits.softmax(-1) * levels.square()).sum(-1) - mean.square()
    torch.testing.assert_close(grey.variance, variance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("maximum", [1, 16, 49, 255])
def test_lattice_takes_the_levels_in_every_type_and_nothing_between(dtype: torch.dtype, maximum: int) -> None:
    grey = pv.Lattice(dist.Categorical(logits=torch.zeros(maximum + 1)), 1 / maximum)
    levels = torch.arange(maximum + 1).to(dtype) / maximum
    assert grey.support.check(levels).all()
    assert not grey.support.check(torch.tensor([-1 / maximum, 1 + 1 / maximum, math.nan, math.inf])).any()
    if dtype != torch.bfloat16:
        assert torch.equal((levels * maximum).round(), torch.arange(maximum + 1).to(dtype))
        assert not grey.support.check(levels + 0.01 / maximum).any()


def test_lattice_of_large_counts() -> None:
    support = pv.Lattice(dist.Poisson(torch.tensor(1e6)), 0.1).support
    assert support.check(torch.tensor([1e5, 99_999.9, 12_345.6])).all()
    assert not support.check(torch.tensor([1e3 + 0.03, -0.1])).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: pv.ContinuousBernoulli(torch.randn(3, 1)),
        lambda: pv.Lattice(dist.Poisson(torch.rand(3, 1) + 1), 0.5),
        lambda: pv.Lattice(dist.Categorical(torch.rand(3, 1, 4)), 1 / 3),
        lambda: pv.DiscretizedLogistic(torch.rand(3, 1), torch.rand(3, 1), 4),
    ],
    ids=["ContinuousBernoulli", "Lattice of Poisson", "Lattice of Categorical", "DiscretizedLogistic"],
)
def test_expand(make: Callable[[], dist.TorchDistribution]) -> None:
    px = make()
    wide = px.expand((2, 3, 5))
    assert wide.batch_shape == (2, 3, 5)
    assert type(wide) is type(px)
    x = wide.sample((4,))
    assert x.shape == (4, 2, 3, 5)
    assert len(x[:, :, 0].unique()) > 1
    # processors round differently by where in a row a number stands
    torch.testing.assert_close(wide.log_prob(x), px.log_prob(x))
    torch.testing.assert_close(wide.mean, px.mean.expand(2, 3, 5))
    torch.testing.assert_close(wide.variance, px.variance.expand(2, 3, 5))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_outside_the_support_are_refused(value: float) -> None:
    for px in (
        pv.ContinuousBernoulli(torch.zeros(())),
        pv.Lattice(dist.Categorical(torch.ones(5)), 0.25),
        pv.DiscretizedLogistic(torch.zeros(()), torch.ones(()), 5),
    ):
        with pytest.raises(ValueError, match="support"):
            px.log_prob(torch.tensor(value))
    with pytest.raises(ValueError, match="scale"):
        pv.DiscretizedLogistic(torch.zeros(()), torch.zeros(()), 5)


def decoder(network: pv.Architecture | None = None, shape: tuple[int, ...] = (2, 6, 5)) -> pv.Network:
    return (network or pv.MLP((7,))).decoder(3, shape)


def test_mixture_of_one_logistic_is_the_logistic(float64: None) -> None:
    network = decoder()
    single = pv.DiscretizedLogisticLikelihood(network, (2, 6, 5), 17)
    mixture = pv.DiscretizedLogisticMixtureLikelihood(network, (2, 6, 5), 17, components=1)
    mixture.loc.layers.load_state_dict(single.loc.state_dict())
    mixture.log_scale.layers.load_state_dict(single.log_scale.state_dict())
    z, x = torch.randn(4, 3), torch.randint(17, (4, 2, 6, 5)) / 16
    torch.testing.assert_close(mixture(z).log_prob(x), single(z).log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture(z).variance, single(z).variance)


def test_mixture_components_start_spread_over_the_levels(float64: None) -> None:
    mixture = pv.DiscretizedLogisticMixtureLikelihood(decoder(), (2, 6, 5), 17, components=4)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.zero_()
    x = torch.randint(17, (2, 6, 5)) / 16
    scale = torch.tensor(-2.5 + 4.5 * math.tanh((-2 + 2.5) / 4.5)).exp()
    parts = [
        pv.DiscretizedLogistic(torch.tensor(m), scale, 17).log_prob(x).exp()
        for m in (1 / 8, 3 / 8, 5 / 8, 7 / 8)
    ]
    expected = torch.stack(parts).mean(0).log().sum()
    assert mixture(torch.zeros(3)).log_prob(x).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("network", [pv.MLP((7,)), pv.Convolutional((3,))])
def test_the_numbers_of_a_pixel_are_channels_of_the_head(network: pv.Architecture) -> None:
    likelihood = pv.CategoricalLikelihood(decoder(network), (2, 6, 5), 4)
    if isinstance(network, pv.Convolutional):
        assert likelihood.logits.layers.layers[0].weight.shape == (4 * 4 * 2, 3, 3, 3)
    features = likelihood.decoder(torch.randn(3))
    raw, logits = likelihood.logits.layers(features), likelihood.logits(features)
    assert raw.shape == (8, 6, 5)
    assert logits.shape == (2, 6, 5, 4)
    for level in range(4):
        assert torch.equal(logits[..., level], raw[2 * level : 2 * level + 2])


def test_negative_binomial_has_the_variance_of_scvi(float64: None) -> None:
    likelihood = pv.NegativeBinomialLikelihood(decoder(), (2, 6, 5), unit=0.5)
    with torch.no_grad():
        likelihood.log_dispersion.raw.copy_(torch.randn(2, 6, 5) / 10)
    z = torch.randn(4, 3)
    mu = likelihood.log_means(z).exp()
    theta = (6 * (likelihood.log_dispersion() / 6).tanh()).exp()
    px = likelihood(z)
    torch.testing.assert_close(px.mean, 0.5 * mu)
    torch.testing.assert_close(px.variance, 0.25 * (mu + mu.square() / theta))
    counts = torch.randint(9, (4, 2, 6, 5))
    expected = stats.nbinom.logpmf(counts, theta.detach(), (theta / (theta + mu)).detach()).sum((1, 2, 3))
    torch.testing.assert_close(px.log_prob(counts / 2).detach(), torch.as_tensor(expected))


def test_poisson_counts_are_in_units(float64: None) -> None:
    likelihood = pv.PoissonLikelihood(decoder(), (2, 6, 5), unit=1 / 16)
    z, counts = torch.randn(4, 3), torch.randint(17, (4, 2, 6, 5))
    expected = stats.poisson.logpmf(counts, likelihood.log_means(z).exp().detach()).sum((1, 2, 3))
    torch.testing.assert_close(likelihood(z).log_prob(counts / 16).detach(), torch.as_tensor(expected))


@pytest.mark.parametrize(("scale", "expected"), [(0.3, 0.3), ("shared", 1.0)])
def test_laplace_scale_is_a_standard_deviation(scale: float | str, expected: float) -> None:
    likelihood = pv.LaplaceLikelihood(decoder(), (2, 6, 5), scale=scale)  # type: ignore[arg-type]
    px = likelihood(torch.zeros(3))
    torch.testing.assert_close(px.stddev, torch.full((2, 6, 5), expected))
    x = torch.randn(2, 6, 5)
    b = expected / math.sqrt(2)
    log_prob = (-(x - px.mean).abs() / b - math.log(2 * b)).sum()
    torch.testing.assert_close(px.log_prob(x), log_prob)


def test_a_uniform_categorical_over_bytes_costs_eight_bits() -> None:
    likelihood = pv.CategoricalLikelihood(decoder(), (2, 6, 5), 256)
    with torch.no_grad():
        for parameter in likelihood.logits.parameters():
            parameter.zero_()
    log_px = likelihood(torch.randn(10, 3)).log_prob(torch.randint(256, (10, 2, 6, 5)) / 255)
    torch.testing.assert_close(pv.bits_per_dim(log_px, (2, 6, 5)), torch.full((10,), 8.0))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_of_dequantised_levels_costs_all_their_bits(levels: int) -> None:
    grey = torch.arange(levels, dtype=torch.uint8)[:, None]
    data = pv.Dataset(grey, form=pv.Dequantised(), maximum=levels - 1)
    assert data.bin_width is not None
    log_px = pv.ContinuousBernoulli(torch.zeros(1)).log_prob(data.train.batch()).sum(-1)
    bits = pv.bits_per_dim(log_px, data.data_shape, bin_width=data.bin_width)
    torch.testing.assert_close(bits, torch.full((levels,), math.log2(levels)))


def test_bits_of_a_density_bound_those_of_the_levels_from_above(float64: None) -> None:
    """A normal density averaged over a bin, against the mass that it gives the bin."""
    px, width = dist.Normal(0.3, 0.1), 1 / 16
    u = torch.linspace(0, width, 10_001)
    for low in (0.0, 0.25, 0.5):
        x = low + u
        average = pv.bits_per_dim(px.log_prob(x).mean().item(), (1,), bin_width=width)
        mass = (px.cdf(torch.tensor(low + width)) - px.cdf(torch.tensor(low))).log().item()
        assert average > pv.bits_per_dim(mass, (1,))
        assert average == pytest.approx(pv.bits_per_dim(mass, (1,)), abs=0.4)


@pytest.mark.parametrize("bin_width", [0.0, -1.0, math.inf])
def test_bits_refuse_a_bin_of_no_width(bin_width: float) -> None:
    with pytest.raises(pv.InputError, match="bin_width expects a positive number, got"):
        pv.bits_per_dim(-1.0, (3,), bin_width=bin_width)


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dispersion", [0.01, 400.0])
def test_counts_keep_their_digits_in_float32(size: float, dispersion: float) -> None:
    """Against float64 at the same parameters: 784 counts, to the rounding of their sum."""
    mean = torch.rand(784) * size + 0.5
    k, theta = torch.poisson(mean), torch.full((784,), dispersion)
    logits = mean.log() - theta.log()
    for ours, exact in [
        (Poisson(mean), torch.distributions.Poisson(mean.double())),
        (
            NegativeBinomial(theta, logits=logits),
            torch.distributions.NegativeBinomial(theta.double(), logits=logits.double()),
        ),
    ]:
        difference = Lattice(ours, 1.0).log_prob(k).double() - exact.log_prob(k.double())
        assert difference.sum().abs() < 1e-4


@pytest.mark.parametrize("logit", [300.0, 3e4])
def test_continuous_bernoulli_is_the_same_from_both_ends(logit: float) -> None:
    x = torch.tensor([0.0, 1e-4, 0.25, 0.5])
    from_above = pv.ContinuousBernoulli(torch.tensor(logit)).log_prob(1 - x)
    from_below = pv.ContinuousBernoulli(torch.tensor(-logit)).log_prob(1 - (1 - x))
    torch.testing.assert_close(from_above, from_below, rtol=0, atol=1e-7 * logit)
