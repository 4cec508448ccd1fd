"""log p(x) by annealing, against closed forms, sums and integrals."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.annealing.chains import anneal, begin
from pyro_vae.annealing.hmc import transition
from pyro_vae.annealing.kernels import scales, tune
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.schedules import equal_steps, interpolate, schedule
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.programs import Latents, simulate
from tests.components import PRIORS, refused, vae
from tests.test_importance import PPCA, two_sites, two_sites_guide

Program = Callable[[Tensor], Any]


def made(**options: Any) -> AnnealingOptions:
    """Options of few chains and temperatures."""
    few: dict[str, Any] = {"num_chains": 2, "num_temperatures": 5, "start": "prior", "schedule": "sigmoid"}
    rest: dict[str, Any] = {"leapfrog_steps": 10, "target_acceptance": 0.65, "rows": None, "compile": "off"}
    return AnnealingOptions(**{**few, **rest, **options})


def densities(latents: Latents, x: Tensor, **options: Any) -> AnnealingPath:
    return AnnealingPath(latents, pv.Batch(x), made(**options), gradients=1)


def wide(ppca: PPCA) -> Program:
    """A guide twice as wide as the posterior."""
    return lambda x: ppca.guide(x, 2.0)


def agrees(result: pv.AnnealedEvidence, exact: Tensor, most: float = 0.3) -> bool:
    """Whether the estimates lie within four standard errors, which are small."""
    close = (result.estimate - exact).abs() < 4 * result.standard_error
    return bool(close.all()) and float(result.standard_error.max()) < most


@pytest.mark.parametrize("start", ["prior", "guide"])
@pytest.mark.parametrize("name", ["sigmoid", "linear", "adaptive"])
def test_a_linear_gaussian_against_its_closed_form(start: Any, name: Any, float64: None) -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(
        ppca.model, wide(ppca), ppca.x, num_chains=64, num_temperatures=60, start=start, schedule=name
    )
    assert agrees(result, ppca.evidence())
    assert ((result.acceptance - 0.65).abs() < 0.1).all()


def test_from_the_exact_posterior_there_is_no_variance(float64: None) -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(
        ppca.model, ppca.guide, ppca.x, num_chains=3, num_temperatures=7, start="guide"
    )
    torch.testing.assert_close(result.estimate, ppca.evidence(), rtol=0, atol=1e-9)
    assert result.standard_error.max() < 1e-6
    torch.testing.assert_close(result.effective_sample_size, torch.full((7,), 3.0))
    torch.testing.assert_close(result.largest_share, torch.full((7,), 1 / 3))


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_one_temperature_is_importance_sampling(start: Any, float64: None) -> None:
    ppca = PPCA()

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    guide = wide(ppca) if start == "guide" else prior
    result = pv.annealed_log_evidence(
        ppca.model, guide, ppca.x, num_chains=3000, num_temperatures=1, start=start, rows=3000 * 4
    )
    sampled = pv.log_evidence(ppca.model, guide, ppca.x, num_particles=3000)
    error = (result.standard_error**2 + sampled.standard_error**2).sqrt()
    assert ((result.estimate - sampled.estimate).abs() < 4 * error).all()
    assert error.max() < (0.1 if start == "guide" else 0.6)
    assert result.acceptance.isnan().all()


def test_weights_are_unbiased_for_the_evidence(float64: None) -> None:
    """2000 chains at few temperatures: E[w] = p(x), though each log w is far too low."""
    ppca = PPCA()
    x = ppca.x[:1].expand(2000, -1).contiguous()
    result = pv.annealed_log_evidence(ppca.model, wide(ppca), x, num_chains=1, num_temperatures=10, rows=2000)
    ratio = (result.estimate - ppca.evidence()[0]).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(2000)
    assert result.estimate.mean() < ppca.evidence()[0] - 0.1


def test_a_latent_of_two_dimensions_against_a_grid(float64: None) -> None:
    x = torch.tensor([[1.5], [-0.3], [2.5]])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = (z[..., 0] * z[..., 1] + (2 * z[..., 0]).sin())[..., None]
            pyro.sample("x", dist.Normal(mean, 0.3).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    axis = torch.linspace(-7, 7, 400)
    z = torch.cartesian_prod(axis, axis)
    log_pz = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_px = dist.Normal(z.prod(-1) + (2 * z[:, 0]).sin(), 0.3).log_prob(x)
    exact = (log_pz + log_px).logsumexp(-1) + 2 * (axis[1] - axis[0]).log()
    result = pv.annealed_log_evidence(model, guide, x, num_chains=200, num_temperatures=60)
    assert agrees(result, exact)
    sampled = pv.log_evidence(model, guide, x, num_particles=20_000)
    assert ((sampled.estimate - exact).abs() < 4 * sampled.standard_error).all()


def constrained(x: Tensor) -> None:
    """A Gamma rate, a simplex, and an interval whose end is drawn; x counts."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        share = pyro.sample("share", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        pyro.sample("below", dist.Uniform(0.0, rate))
        pyro.sample("x", dist.Poisson(rate[..., None] * 10 * share).to_event(1), obs=x)


def constrained_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
        pyro.sample("share", dist.Dirichlet(torch.ones(3) + x))
        pyro.sample("below", dist.Uniform(0.0, rate))


def constrained_evidence(x: Tensor) -> Tensor:
    """Of a Gamma-Poisson total and Dirichlet-multinomial shares."""
    total, alpha = x.sum(-1), torch.tensor([1.0, 2.0, 3.0])
    counted = dist.GammaPoisson(3.0, 2.0 / 10).log_prob(total)
    choose = (total + 1).lgamma() - (x + 1).lgamma().sum(-1)
    shares = (alpha + x).lgamma().sum(-1) - alpha.lgamma().sum()
    return counted + choose + shares + alpha.sum().lgamma() - (alpha.sum() + total).lgamma()


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_constrained_sites_against_conjugacy(start: Any, float64: None) -> None:
    x = torch.tensor([[1.0, 4.0, 6.0], [0.0, 0.0, 3.0], [9.0, 2.0, 7.0]])
    result = pv.annealed_log_evidence(
        constrained, constrained_guide, x, num_chains=200, num_temperatures=40, start=start
    )
    assert agrees(result, constrained_evidence(x))
    sampled = pv.log_evidence(constrained, constrained_guide, x, num_particles=20_000)
    assert ((sampled.estimate - constrained_evidence(x)).abs() < 4 * sampled.standard_error).all()


def test_two_sites_and_a_plate_of_pixels(float64: None) -> None:
    x = torch.randn(6, 4)
    covariance = 5 * torch.ones(4, 4) + 0.25 * torch.eye(4)
    exact = dist.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)
    result = pv.annealed_log_evidence(two_sites, two_sites_guide, x, num_chains=100, num_temperatures=50)
    assert agrees(result, exact)
    result = pv.annealed_log_evidence(
        two_sites, two_sites_guide, x, num_chains=2, num_temperatures=4, start="guide"
    )
    torch.testing.assert_close(result.estimate, exact, rtol=0, atol=1e-9)


def test_reverse_chains_are_unbiased_for_the_inverse_of_the_evidence(float64: None) -> None:
    """From exact draws of the posterior, E[1/w] = 1/p(x), over 3000 chains at few temperatures."""
    ppca = PPCA()
    x = ppca.x[:1].expand(3000, -1).contiguous()
    latents = Latents(ppca.model, wide(ppca), pv.Batch(x))
    path = densities(latents, x, start="prior", compile="off", num_chains=1)
    options = made(num_chains=1, num_temperatures=40, leapfrog_steps=4)
    kernels = tune(path, options)
    ends = ppca.posterior(x[:1]).sample((3000,)).transpose(0, 1)
    log_weights = anneal(path, kernels, begin(ends), reverse=True).log_weights[0]
    ratio = (ppca.evidence()[0] - log_weights).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(3000)
    assert log_weights.mean() > ppca.evidence()[0] + 0.1


def test_bounds_bracket_the_evidence_and_close_with_the_temperatures(float64: None) -> None:
    ppca = PPCA()
    gaps = []
    for num_temperatures in (10, 40, 160):
        torch.manual_seed(3)
        found = pv.bidirectional_gap(
            ppca.model,
            wide(ppca),
            60,
            like=ppca.x,
            num_chains=8,
            num_temperatures=num_temperatures,
        )
        covariance = ppca.weight @ ppca.weight.T + ppca.sigma**2 * torch.eye(5)
        exact = dist.MultivariateNormal(ppca.shift, covariance).log_prob(found.x)
        for bound, sign in ((found.lower, 1), (found.upper, -1)):
            excess = sign * (exact - bound)
            assert excess.mean() > -3 * excess.std() / math.sqrt(60)
        torch.testing.assert_close(found.gap, found.upper - found.lower)
        assert found.mean == pytest.approx(found.gap.mean().item())
        gaps.append(found.mean)
    assert gaps[0] > 3 * gaps[1] > 0.1
    assert abs(gaps[2]) < 0.1


@pytest.mark.parametrize(("start", "name"), [("prior", "sigmoid"), ("guide", "adaptive")])
def test_bounds_of_several_batches_are_those_of_their_data(start: Any, name: Any, float64: None) -> None:
    """Seven data in four batches: each upper bound belongs to its own datum and exact draw."""
    ppca = PPCA()
    found = pv.bidirectional_gap(
        ppca.model,
        wide(ppca),
        7,
        like=ppca.x,
        num_chains=30,
        num_temperatures=60,
        start=start,
        schedule=name,
        rows=60,
        compile="flat",
    )
    covariance = ppca.weight @ ppca.weight.T + ppca.sigma**2 * torch.eye(5)
    exact = dist.MultivariateNormal(ppca.shift, covariance).log_prob(found.x)
    assert exact.std() > 1
    for bound in (found.lower, found.upper):
        torch.testing.assert_close(bound, exact, rtol=0, atol=1)
    assert not torch.equal(found.lower_error, found.upper_error)
    assert ((found.acceptance - 0.65).abs() < 0.1).all()


def test_simulated_data_come_with_draws_of_their_posterior(float64: None) -> None:
    """z − E[z|x] has mean 0 and the posterior's covariance, whitened."""
    ppca = PPCA()
    latents = Latents(ppca.model, ppca.guide, pv.Batch(ppca.x))
    drawn = simulate(latents, pv.Batch(ppca.x), 20_000)
    exact = ppca.posterior(drawn.batch.x)
    white = torch.linalg.solve_triangular(
        exact.scale_tril, (drawn.u - exact.mean)[..., None], upper=False
    ).squeeze(-1)
    torch.testing.assert_close(white.mean(0), torch.zeros(3), rtol=0, atol=0.03)
    torch.testing.assert_close(white.T.cov(), torch.eye(3), rtol=0, atol=0.05)


def test_a_transition_leaves_the_density_as_it_is(float64: None) -> None:
    """From exact draws at β = 1, moments stay; and it moves."""
    ppca = PPCA()
    x = ppca.x[:2]
    latents = Latents(ppca.model, ppca.guide, pv.Batch(x))
    path = densities(latents, x, start="prior", compile="off", num_chains=20_000)
    exact = ppca.posterior(x)
    u = exact.sample((20_000,))
    point = path.point(u)
    for _ in range(3):
        moved = transition(path, point, torch.ones(2), torch.tensor([0.4, 0.6]), torch.ones(2, 3), 3)
        point = moved.point
    assert 0.3 < moved.acceptance.mean() < 0.95
    white = torch.linalg.solve_triangular(exact.scale_tril, (point.u - exact.mean)[..., None], upper=False)
    white = white.squeeze(-1)
    torch.testing.assert_close(white.mean(0), torch.zeros(2, 3), rtol=0, atol=0.03)
    for number in range(2):
        torch.testing.assert_close(white[:, number].T.cov(), torch.eye(3), rtol=0, atol=0.05)
    assert (point.u - u).abs().mean() > 0.1 * u.std()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_proposal_of_a_density_that_is_no_number_is_taken(value: float, float64: None) -> None:
    """A likelihood that is NaN, or +∞, where z > 1."""
    x = torch.zeros(2)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(1.0))
            pyro.factor("x", torch.where(z > 1, value, -z))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x * 0, 0.9))

    path = densities(Latents(model, guide, pv.Batch(x)), x, num_chains=50)
    point = path.point(torch.rand(50, 2, 1) - 2)
    moved = transition(path, point, torch.ones(2), torch.full((2,), 2.0), torch.ones(2, 1), 5)
    assert torch.isfinite(moved.point.log_ratio).all()
    assert ((moved.acceptance == 0) & (moved.point.u == point.u)[..., 0]).any()
    assert (moved.point.u != point.u).any()


def cut(x: Tensor) -> None:
    """z ~ N(0, I), of likelihood zero where z_0 < 0.5; log p(x) in closed form along z_1."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.factor("cut", torch.where(z[..., 0] > 0.5, 0.0, -torch.inf))
        pyro.sample("x", dist.Normal(z[..., 1], 0.3), obs=x)


def test_chains_of_likelihood_zero_leave_the_step_sizes_of_the_others(float64: None) -> None:
    x = torch.tensor([1.0, -0.5])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    exact = math.log(0.3085375387259869) + dist.Normal(0.0, 1.09**0.5).log_prob(x)
    result = pv.annealed_log_evidence(
        cut, guide, x, num_chains=300, num_temperatures=40, schedule="adaptive", compile="off"
    )
    assert agrees(result, exact, 0.3)
    path = densities(Latents(cut, guide, pv.Batch(x)), x, num_chains=60)
    kernels = tune(path, made(num_chains=60, num_temperatures=40, schedule="adaptive"))
    assert kernels.step_sizes.min() > 0.05
    fixed = schedule("sigmoid", 40)[:, None]
    assert (kernels.betas - fixed).abs().max() > 0.05

    def never(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.factor("x", torch.full_like(x, -torch.inf))

    with pytest.warns(UserWarning, match="log p.x. is −inf for 2 of 2 data, first x.0.: all"):
        none = pv.annealed_log_evidence(never, guide, x, num_chains=3, num_temperatures=2, compile="off")
    assert (none.estimate == -torch.inf).all()


def test_what_the_pilot_run_finds(float64: None) -> None:
    """Masses from the variances of start and guide; lengths from the acceptance; none for one temperature."""
    ppca = PPCA()
    path = densities(Latents(ppca.model, wide(ppca), pv.Batch(ppca.x)), ppca.x, num_chains=16)
    kernels = tune(path, made(num_chains=16, num_temperatures=30))
    start, end = kernels.variances
    torch.testing.assert_close(start.mean(), torch.tensor(1.0), rtol=0.1, atol=0)
    diagonal = 2 * ppca.posterior(ppca.x).covariance_matrix.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(end.mean(0), diagonal.expand(7, 3).mean(0), rtol=0.2, atol=0)
    beta = torch.full((7,), 0.25)
    expected = (0.75 / start + 0.25 / end).rsqrt()
    torch.testing.assert_close(scales(beta, kernels.variances), expected)
    assert kernels.betas.shape == (31, 7) and kernels.step_sizes.shape == (30, 7)
    calls = 0

    def counted() -> None:
        nonlocal calls
        calls += 1

    tune(path, made(num_chains=16, num_temperatures=1), after=counted)
    assert calls == 0


def test_steps_have_different_lengths(float64: None) -> None:
    """Without noise in the momentum's direction the trajectories of one chain still end apart."""
    ppca = PPCA()
    x = ppca.x[:1]
    path = densities(Latents(ppca.model, ppca.guide, pv.Batch(x)), x, num_chains=400)
    u = torch.zeros(400, 1, 3)
    torch.manual_seed(0)
    with mock.patch("torch.randn_like", lambda tensor: torch.ones_like(tensor)):
        moved = transition(path, path.point(u), torch.ones(1), torch.tensor([0.05]), torch.ones(1, 3), 3)
    taken = moved.point.u[(moved.point.u != 0).any(-1)]
    distance = taken.norm(dim=-1)
    assert 1.3 < distance.max() / distance.min() < 2


def test_summary_of_log_weights(float64: None) -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    found = estimate_of(weights.log())
    torch.testing.assert_close(found.estimate, torch.tensor([3.0, 2.0]).log())
    expected = torch.tensor([2 / 3 / math.sqrt(3), 0.0])
    torch.testing.assert_close(found.standard_error, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.effective_sample_size, torch.tensor([81 / 35, 3.0]))
    torch.testing.assert_close(found.largest_share, torch.tensor([5 / 9, 1 / 3]))


@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "Flow, neural spline"])
def test_every_prior_is_annealed_and_agrees_with_importance_sampling(prior: str) -> None:
    program = vae(prior)
    x = torch.randint(2, (3, 1, 5, 4)).float()
    result = pv.annealed_log_evidence(
        program.model, program.guide, x, num_chains=100, num_temperatures=30, leapfrog_steps=5
    )
    sampled = pv.log_evidence(program.model, program.guide, x, num_particles=20_000)
    error = (result.standard_error**2 + sampled.standard_error**2).sqrt()
    difference = result.estimate - sampled.estimate
    # where the prior has heavier tails than q, k̂ says that importance sampling is too low
    assert ((difference.abs() < 4 * error) | ((sampled.pareto_k > 0.5) & (difference > 0))).all()
    assert difference.abs().max() < 0.3 and error.median() < 0.25


def test_all_layers_of_a_hierarchy_are_annealed_at_once() -> None:
    program = pv.assemble(pv.Digits(), program=pv.HierarchicalVAE, latent_dim=(4, 2))
    x = pv.Digits().test.batch(slice(0, 4))
    result = pv.annealed_log_evidence(
        program.model, program.guide, x, num_chains=30, num_temperatures=40, start="guide"
    )
    sampled = pv.log_evidence(program.model, program.guide, x, num_particles=4000)
    error = (result.standard_error**2 + sampled.standard_error**2).sqrt()
    assert ((result.estimate - sampled.estimate).abs() < 4 * error).all()
    assert error.max() < 0.2


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_a_flat_graph_anneals_as_the_programs_do(start: Any, float64: None) -> None:
    program, x = pv.assemble(pv.Digits()).double(), pv.Digits().test.batch(slice(0, 7)).double()

    def measured(compile: Any) -> pv.AnnealedEvidence:
        torch.manual_seed(1)
        return pv.annealed_log_evidence(
            program.model,
            program.guide,
            x,
            num_chains=4,
            num_temperatures=3,
            leapfrog_steps=2,  # each of them is by the same graph
            start=start,
            rows=12,
            compile=compile,
        )

    off, flat = measured("off"), measured("flat")
    torch.testing.assert_close(off.estimate, flat.estimate, rtol=0, atol=1e-9)
    torch.testing.assert_close(off.acceptance, flat.acceptance, rtol=0, atol=1e-9)


def test_a_path_takes_new_data_and_new_parameters(float64: None) -> None:
    """What was computed once for a batch, as its encoding, is computed anew for the next."""
    program, x = pv.assemble(pv.Digits()).double(), pv.Digits().test.batch(slice(0, 6)).double()
    latents = Latents(program.model, program.guide, pv.Batch(x))
    path = densities(latents, x[:3], start="guide", compile="flat", num_chains=2)
    eager = densities(latents, x[:3], start="guide", compile="off", num_chains=2)
    u, beta = torch.randn(2, 3, 8), torch.tensor([0.1, 0.5, 0.9])
    for part in (x[:3], x[3:]):
        for each in (path, eager):
            each.place(pv.Batch(part))
        torch.testing.assert_close(path.force(u, beta), eager.force(u, beta))
        for new, old in zip(path.point(u), eager.point(u), strict=True):
            torch.testing.assert_close(new, old)
    with torch.no_grad():
        next(program.posterior.parameters()).add_(0.1)
    path.place(pv.Batch(x[3:]))
    torch.testing.assert_close(path.point(u).log_start, eager.point(u).log_start)


def test_gradients_along_the_path_against_differences(float64: None) -> None:
    x = torch.tensor([[1.0, 4.0, 6.0]])
    latents = Latents(constrained, constrained_guide, pv.Batch(x))
    assert latents.size == 4 and latents.columns() == ["rate", "share[0]", "share[1]", "below"]
    path = densities(latents, x, start="guide", compile="off", num_chains=2)
    u, beta, h = torch.randn(2, 1, 4), torch.tensor([0.3]), 1e-5
    gradient = path.force(u, beta)
    torch.testing.assert_close(gradient, path.point(u).gradient(beta))
    for number, direction in enumerate(torch.eye(4)):
        high, low = (path.point(u + sign * h * direction).log_density(beta) for sign in (1, -1))
        torch.testing.assert_close(gradient[..., number], (high - low) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "linear", "adaptive"])
@pytest.mark.parametrize("number", [1, 2, 7, 1000])
def test_schedules_rise_from_0_to_1(name: Any, number: int) -> None:
    betas = schedule(name, number)
    assert betas[0] == 0 and betas[-1] == 1 and len(betas) == number + 1
    assert (betas.diff() > 0).all()
    if name != "linear" and number == 1000:
        t = torch.linspace(0, 1, 1001, dtype=torch.float64)
        low, high = (torch.sigmoid(torch.tensor(end, dtype=torch.float64)) for end in (-4.0, 4.0))
        torch.testing.assert_close(betas, (torch.sigmoid(8 * t - 4) - low) / (high - low))


def test_adaptive_steps_have_equal_length() -> None:
    """A deviation of c/(β + a) has length c log((β + a)/a): equal steps are geometric."""
    betas = schedule("sigmoid", 400)
    a = 0.2
    deviation = torch.stack([1 / (betas + a), torch.ones_like(betas)], dim=1)
    found = equal_steps(betas, deviation, 10)
    expected = a * ((1 + a) / a) ** (torch.arange(11) / 10) - a
    torch.testing.assert_close(found[:, 0], expected.double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(found[:, 1], torch.arange(11).double() / 10, rtol=0, atol=1e-6)
    never = equal_steps(betas, torch.zeros(401, 1), 5)
    assert (never.diff(dim=0) > 0).all()


def test_interpolation_is_linear_between_points() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 3.0]])
    values = torch.tensor([[0.0, 5.0], [10.0, 7.0], [30.0, 0.0]])
    wanted = torch.tensor([[0.5, 1.0], [2.0, 2.5], [9.0, -1.0]])
    expected = torch.tensor([[5.0, 6.0], [20.0, 3.5], [30.0, 5.0]])
    torch.testing.assert_close(interpolate(wanted, points, values), expected)


class Stopped(BaseException):
    """What stops a run."""


def stopping_after(program: Program, calls: int) -> Program:
    """A program that stops at a call."""
    made = 0

    def run(x: Tensor) -> None:
        nonlocal made
        made += 1
        if made > calls:
            raise Stopped
        program(x)

    return run


def stoppable(model: Program, ppca: PPCA, checkpoint: Path | None) -> pv.BidirectionalGap:
    """A run of some batches."""
    return pv.bidirectional_gap(
        model,
        wide(ppca),
        5,
        like=ppca.x,
        num_chains=2,
        num_temperatures=30,
        leapfrog_steps=5,
        rows=6,
        compile="off",
        checkpoint=checkpoint,
    )


def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    tmp_path: Path, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the pilot, in forward chains, in reverse chains of a later batch."""
    monkeypatch.setattr("pyro_vae.storage.resumable.Resumable.interval", 0.0)
    ppca = PPCA()
    kept = tmp_path / "annealing.pt"
    torch.manual_seed(5)
    expected = stoppable(ppca.model, ppca, None)
    stages = []
    for calls in (90, 400, 900):
        torch.manual_seed(5)
        with pytest.raises(Stopped):
            stoppable(stopping_after(ppca.model, calls), ppca, kept)
        state = torch.load(kept)["state"]
        stages.append((state["kernels"] is not None, state["batch"], state["way"]))
    assert stages == [(False, 0, 0), (True, 0, 0), (True, 1, 1)]
    torch.manual_seed(6)
    found = stoppable(ppca.model, ppca, kept)
    pairs = zip(vars(found).values(), vars(expected).values(), strict=True)
    for new, old in pairs:
        assert new == old if isinstance(new, int) else torch.equal(new, old)
    assert not kept.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.storage.resumable.Resumable.interval", 0.0)
    ppca = PPCA()
    kept = tmp_path / "annealing.pt"
    options: dict[str, Any] = {"num_chains": 2, "num_temperatures": 9, "compile": "off", "checkpoint": kept}
    with pytest.raises(Stopped):
        pv.annealed_log_evidence(stopping_after(ppca.model, 750), ppca.guide, ppca.x, **options)
    with refused("num_temperatures"):
        pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, **{**options, "num_temperatures": 10})
    with refused("data"):
        pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x + 1, **options)
    ppca.sigma = 0.7
    with refused("log weights"):
        pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, **options)


def test_refusals() -> None:
    ppca = PPCA()

    def run(model: Program = ppca.model, guide: Program = ppca.guide, **options: Any) -> None:
        pv.annealed_log_evidence(model, guide, ppca.x, **{"num_chains": 2, "num_temperatures": 2, **options})

    for name in ("num_chains", "num_temperatures", "leapfrog_steps", "rows"):
        wrong: Any = {name: 0}
        with refused(f"{name} expects a positive whole number, got 0"):
            run(**wrong)
    with refused("target_acceptance expects a number between 0 and 1, got 1.5"):
        run(target_acceptance=1.5)
    with refused("start expects 'prior' or 'guide', got 'posterior'"):
        run(start="posterior")
    with refused("schedule expects 'sigmoid', 'linear' or 'adaptive', got 'cosine'"):
        run(schedule="cosine")
    with refused("compile expects 'auto', 'flat', 'inductor' or 'off', got 'on'"):
        run(compile="on")

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(k[..., None] + x.new_zeros(5), 1.0).to_event(1), obs=x)

    def discrete_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))

    with refused("expected continuous latent sites, got the discrete site 'k': mark it by infer="):
        run(discrete, discrete_guide)

    def broken(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.factor("x", torch.where((x == ppca.x[2]).all(-1), torch.nan, z.sum(-1)))

    program, x = vae(), torch.randint(2, (9, 1, 5, 4)).float()
    x[4, 0, 0, 0] = 0.5
    with refused("within the support"):
        pv.annealed_log_evidence(program.model, program.guide, x, num_chains=2, num_temperatures=2)

    with refused(
        "expected weights that are finite numbers, got NaN or .inf at 1 of the data 0 to 6, the first being 2"
    ):
        run(broken)
    with refused("expected a model that observes its argument as it is, got one that changes it at the site"):
        pv.bidirectional_gap(lambda x: ppca.model(x / 2), ppca.guide, 3, like=ppca.x)


def test_results_read_like_sentences() -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, num_chains=2, num_temperatures=3)
    assert repr(result).startswith(f"log p(x) = {result.mean:.3f} ± ")
    assert "mean of 7 data by annealing (chains each: 2, temperatures: 3; Monte Carlo error 0." in repr(
        result
    )
    poor = int((result.effective_sample_size < 2).sum())
    assert poor > 0 and repr(result).endswith(f"with less than two effective chains for {poor} of the data")
    found = pv.bidirectional_gap(ppca.model, ppca.guide, 4, like=ppca.x, num_chains=2, num_temperatures=3)
    assert repr(found).startswith("log p(x) of 4 simulated data lies between ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compile", ["off", "flat"])
def test_on_a_gpu_all_estimates_agree_with_those_of_the_cpu(compile: Any) -> None:
    data = pv.Digits()
    program = pv.assemble(data)
    pv.fit(program, data, epochs=5, device="cpu")
    x = data.test.batch(slice(0, 20))

    def measured(device: str) -> tuple[pv.AnnealedEvidence, pv.LogEvidence, pv.BidirectionalGap]:
        model, there = program.to(device), x.to(device)
        options: dict[str, Any] = {"num_temperatures": 60, "compile": compile}
        return (
            pv.annealed_log_evidence(model.model, model.guide, there, **options),
            pv.log_evidence(model.model, model.guide, there, num_particles=2000, compile=compile),
            pv.bidirectional_gap(model.model, model.guide, 20, like=there, **options),
        )

    pairs: Any = zip(measured("cuda")[:2], measured("cpu")[:2], strict=True)
    for new, old in pairs:
        error = (new.standard_error.cpu() ** 2 + old.standard_error**2).sqrt()
        assert new.estimate.is_cuda
        assert ((new.estimate.cpu() - old.estimate).abs() < 5 * error).all()
    assert measured("cuda")[2].gap.is_cuda
