"""Laws that hold for every component of the registry."""

import itertools
from collections.abc import Collection
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI
from scipy import stats
from torch import Tensor, nn

from pyro_vae import testing
from pyro_vae.networks import MLP, in_bfloat16
from pyro_vae.objectives import make_objective
from tests.components import (
    ARCHITECTURES,
    DATA_SHAPE,
    DISCRETE,
    LATENT_DIM,
    LIKELIHOODS,
    OBJECTIVES,
    POSTERIORS,
    PRIORS,
    data_for,
    vae,
)

ALL = [
    *(pytest.param("prior", name, id=f"prior {name}") for name in PRIORS),
    *(pytest.param("likelihood", name, id=f"likelihood {name}") for name in LIKELIHOODS),
    *(pytest.param("posterior", name, id=f"posterior {name}") for name in POSTERIORS),
]


def make(role: str, name: str) -> nn.Module:
    if role == "prior":
        return PRIORS[name](LATENT_DIM)
    return {"likelihood": LIKELIHOODS, "posterior": POSTERIORS}[role][name](DATA_SHAPE, LATENT_DIM)


def condition(role: str, *leading: int) -> tuple[Tensor, ...]:
    """What the component is called with."""
    if role == "prior":
        return ()
    return (torch.randn(*leading, LATENT_DIM) if role == "likelihood" else torch.rand(*leading, *DATA_SHAPE),)


def value(role: str, name: str, num: int = 6) -> Tensor:
    """What its distribution is over."""
    return data_for(name, num) if role == "likelihood" else torch.randn(num, LATENT_DIM)


@pytest.mark.parametrize(("role", "name"), ALL)
@pytest.mark.parametrize("leading", [(), (6,), (2, 6)])
def test_batch_and_event_shapes(role: str, name: str, leading: tuple[int, ...]) -> None:
    event = DATA_SHAPE if role == "likelihood" else (LATENT_DIM,)
    batch = () if role == "prior" else leading
    testing.shapes_are_right(make(role, name), condition(role, *leading), batch, event)


@pytest.mark.parametrize(("role", "name"), ALL)
def test_gradient_reaches_every_parameter(role: str, name: str) -> None:
    testing.gradients_reach_parameters(make(role, name), condition(role, 6), value(role, name))


@pytest.mark.parametrize(("role", "name"), [p for p in ALL if p.values[0] != "prior"])
def test_leading_axes_equal_a_loop(role: str, name: str, float64: None) -> None:
    (given,), x = condition(role, 2, 6), value(role, name)
    testing.leading_axes_equal_a_loop(make(role, name), given, x)


@pytest.mark.parametrize(("role", "name"), ALL)
def test_state_dict_and_deep_copy(role: str, name: str) -> None:
    module, given, x = make(role, name), condition(role, 6), value(role, name)
    expected = module(*given).log_prob(x)
    other = make(role, name)
    if list(module.parameters()) and any(p.numel() > 1 for p in module.parameters()):
        assert not torch.equal(other(*given).log_prob(x), expected)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(*given).log_prob(x), expected)
    testing.survives_a_copy(module, given, x)


@pytest.mark.parametrize(("role", "name"), ALL)
def test_moves_to_another_dtype(role: str, name: str) -> None:
    testing.moves_to_float64(make(role, name), condition(role, 6), value(role, name))


@pytest.mark.parametrize(("role", "name"), ALL)
def test_draws_are_finite(role: str, name: str) -> None:
    testing.draws_are_finite(make(role, name), condition(role, 6))


def one_dimensional(role: str, name: str) -> Any:
    """The component over one real number, as a distribution of batch shape ()."""
    if role == "prior":
        return PRIORS[name](1)()
    if role == "likelihood":
        return LIKELIHOODS[name]((1,), LATENT_DIM)(torch.randn(LATENT_DIM))
    return POSTERIORS[name](DATA_SHAPE, 1)(torch.rand(DATA_SHAPE))


CONTINUOUS = [p for p in ALL if p.values[1] not in DISCRETE]
# equal steps of arsinh z reach out to 1e9 for heavy tails; equal steps of z resolve the knots of splines
GRID = torch.cat(
    [torch.linspace(-21, 21, 200_001).double().sinh(), torch.linspace(-8, 8, 400_000, dtype=torch.float64)]
).sort()[0]


def grid(name: str) -> Tensor:
    """Points so wide and so dense that a trapezoid integrates the density to 1e-6."""
    return torch.linspace(0, 1, 20_001, dtype=torch.float64) if name == "ContinuousBernoulli" else GRID


@pytest.mark.parametrize(("role", "name"), CONTINUOUS)
def test_continuous_density_integrates_to_one(role: str, name: str, float64: None) -> None:
    points = grid(name)
    density = one_dimensional(role, name).log_prob(points[:, None]).exp().detach()
    assert torch.trapezoid(density, points).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("role", "name"), CONTINUOUS)
def test_samples_follow_the_density(role: str, name: str, float64: None) -> None:
    distribution, points = one_dimensional(role, name), grid(name)
    density = distribution.log_prob(points[:, None]).exp().detach()
    cdf = torch.cumulative_trapezoid(density, points)

    def below(draws: Any) -> Any:
        return cdf[torch.searchsorted(points[1:], torch.as_tensor(draws)).clamp(max=len(cdf) - 1)].numpy()

    draws = distribution.sample((5000,)).squeeze(-1).numpy()
    assert stats.kstest(draws, below).pvalue > 1e-3


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_density_sums_to_one_and_is_sampled(name: str, float64: None) -> None:
    """Over all patterns of two numbers; those of fewer than ten expected draws are counted together."""
    px, values = LIKELIHOODS[name]((1, 1, 2), LATENT_DIM)(torch.randn(LATENT_DIM)), DISCRETE[name].double()
    patterns = torch.cartesian_prod(values, values)[:, None, None]
    probabilities = px.log_prob(patterns).exp().detach()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    places = (px.sample((4000,))[..., None] - values).abs()
    assert places.amin(-1).max() < 1e-12
    first, second = places.argmin(-1).flatten(1).T
    counts = torch.bincount(first * len(values) + second, minlength=len(patterns))
    often = probabilities > 10 / 4000
    assert often.sum() >= 4
    found, expected = (torch.cat([n[often], n[~often].sum()[None]]) for n in (counts, probabilities * 4000))
    some = expected > 0
    assert stats.chisquare(found[some], expected[some]).pvalue > 1e-3


def atoms(name: str, px: Any) -> tuple[Tensor, Tensor]:
    """Values of one number under a likelihood, and their probabilities, by the trapezoid rule if need be."""
    if name in DISCRETE:
        values = DISCRETE[name].double()
        return values, px.log_prob(values[:, None]).exp()
    points = grid(name)
    ends = torch.cat([points[:1], points, points[-1:]])
    weights = (ends[2:] - ends[:-2]) / 2
    return points, px.log_prob(points[:, None]).exp() * weights


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_mean_and_variance_are_those_of_the_density(name: str, float64: None) -> None:
    px = one_dimensional("likelihood", name)
    values, probabilities = atoms(name, px)
    mean = (values * probabilities).sum()
    variance = ((values - mean).square() * probabilities).sum()
    assert px.mean.item() == pytest.approx(mean.item(), abs=1e-5)
    assert px.variance.item() == pytest.approx(variance.item(), abs=1e-4)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_support_says_whether_p_is_a_mass(name: str) -> None:
    px = one_dimensional("likelihood", name)
    assert px.support.is_discrete == (name in DISCRETE)
    if name in DISCRETE:
        assert px.support.check(DISCRETE[name][:, None]).all()
        assert not px.support.check(DISCRETE[name][1:2] - 0.1).any()
        assert not px.support.check(torch.tensor([[-1.0], [0.013], [float("nan")]])).any()


#: Every prior with every posterior and objective, which take part in each other: a VampPrior shares the
#: posterior, and an objective has the KL in closed form or by draws. A likelihood takes no part but by its
#: log p(x|z), so there is one for each of these, in turn: each meets every other component.
TOGETHER = [
    (*others, [*LIKELIHOODS][(number + number // len(LIKELIHOODS)) % len(LIKELIHOODS)])
    for number, others in enumerate(itertools.product(PRIORS, POSTERIORS, OBJECTIVES))
]


def test_every_likelihood_meets_every_other_component() -> None:
    others: tuple[Collection[str], ...] = (PRIORS, POSTERIORS, OBJECTIVES)
    for number, registry in enumerate(others):
        met = {(each[number], each[3]) for each in TOGETHER}
        assert met == {*itertools.product(registry, LIKELIHOODS)}


@pytest.mark.parametrize(("prior", "posterior", "objective", "likelihood"), TOGETHER)
def test_one_step_moves_every_parameter(prior: str, posterior: str, objective: str, likelihood: str) -> None:
    """By several draws for all but the first objective."""
    model = vae(prior, likelihood, posterior)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    loss = make_objective(OBJECTIVES[objective], 1 if objective == "Trace" else 2)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.01}), loss)
    # where the KL of a group is below its free bits, a step leaves it alone
    for _ in range(10 if objective == "FreeBits" else 1):
        assert torch.isfinite(torch.tensor(svi.step(data_for(likelihood))))
    stuck = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert stuck == []
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


AXIS = torch.linspace(-9, 9, 601, dtype=torch.float64).sinh()
PLANE = torch.cartesian_prod(AXIS, AXIS)


@pytest.mark.parametrize(("role", "name"), [p for p in ALL if p.values[0] != "likelihood"])
def test_density_of_two_coordinates(role: str, name: str, float64: None) -> None:
    """It integrates to 1 over the plane, and its moments are those of its draws, within 5 standard errors."""
    module = PRIORS[name](2) if role == "prior" else POSTERIORS[name](DATA_SHAPE, 2)
    distribution = module(*condition(role))
    with torch.no_grad():
        density = distribution.log_prob(PLANE).exp()

    def integral(values: Tensor) -> Tensor:
        inner = torch.trapezoid(values.reshape(601, 601), AXIS, dim=1)
        return torch.trapezoid(inner, AXIS, dim=0)

    assert integral(density).item() == pytest.approx(1, abs=1e-3)
    draws = distribution.sample((20_000,))
    for moment in (lambda z: z[:, 0], lambda z: z[:, 1], lambda z: (z[:, 0] * z[:, 1]).tanh()):
        error = moment(draws).std() / 20_000**0.5
        assert abs(moment(draws).mean() - integral(density * moment(PLANE))) < 5 * error + 1e-3


@pytest.mark.parametrize(("role", "name"), [p for p in ALL if p.values[0] != "prior"])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_network_outputs_stay_finite(role: str, name: str, size: float) -> None:
    module, (given,) = make(role, name), condition(role, 6)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if not key.startswith("transform."):  # a flow's own networks are not bounded
                parameter.mul_(size)
    log_prob = module(given).log_prob(value(role, name))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 5), (2, 1, 7), (1, 28, 20)])
def test_encoder_and_decoder_fit_any_picture(name: str, shape: tuple[int, ...]) -> None:
    architecture = ARCHITECTURES[name]()
    encoder, decoder = architecture.encoder(shape), architecture.decoder(2, shape)
    assert encoder(torch.rand(2, 4, *shape)).shape == (2, 4, *encoder.output_shape)
    assert decoder(torch.rand(2, 4, 2)).shape == (2, 4, *decoder.output_shape)
    assert encoder.input_shape == shape
    assert decoder.input_shape == (2,)


def test_bfloat16_networks_round_to_eight_bits_and_keep_their_type() -> None:
    torch.manual_seed(0)
    network = MLP((300, 300)).encoder((50,))
    x = torch.randn(40, 50)
    exact = network(x)
    with in_bfloat16(network):
        rounded = network(x)
        with in_bfloat16(network, enabled=False):
            assert network.in_bfloat16
    assert rounded.dtype == torch.float32
    assert torch.equal(network(x), exact)
    error = (rounded - exact).abs().max()
    assert 2**-11 < error < 2**-4
