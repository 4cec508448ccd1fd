"""Where the nats go, against closed forms."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.diagnosis import (
    Information,
    Mean,
    Units,
    latent_units,
    mutual_information,
    optimise_locally,
    prior_gap,
)
from pyro_vae.diagnosis.verdict import Loss, collapse_in_words, generalisation, largest_loss, notes
from pyro_vae.programs import Latents, Pair
from pyro_vae.proposals.fitting import start
from pyro_vae.randomness import own_draws
from tests.components import data_for, refused, vae
from tests.test_importance import PPCA, L, N, two_sites

Program = Callable[[Tensor], Any]


def normal_guide(mean: Tensor, scale: Tensor, like: Tensor) -> Program:
    """A diagonal normal with a row of `mean` and `scale` for each datum, found by its first number."""

    def guide(x: Tensor) -> None:
        index = (x[:, :1] == like[:, 0]).double().argmax(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean[index], scale[index]).to_event(1))

    return guide


def close(values: Tensor, expected: Tensor, error: Tensor, atol: float = 0.01) -> bool:
    """Within 4.5 standard errors and what the search leaves."""
    return bool(((values - expected).abs() < 4.5 * error + atol).all())


def test_with_a_shifted_guide_the_amortisation_gap_is_its_kl(float64: None) -> None:
    """A full covariance reaches the exact posterior, so that all that is lost is the encoder's."""
    ppca = PPCA()

    def guide(x: Tensor, shift: Tensor, scale: Tensor) -> None:
        exact = ppca.posterior(x)
        factor = exact.scale_tril * scale[:, None, None]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(exact.mean + shift[:, None], scale_tril=factor))

    def model(x: Tensor, **_: Tensor) -> None:
        ppca.model(x)

    exact = ppca.posterior(ppca.x)
    given = {"shift": torch.linspace(-0.5, 0.7, N), "scale": torch.linspace(0.6, 1.4, N)}
    factor = exact.scale_tril * torch.linspace(0.6, 1.4, N)[:, None, None]
    q = dist.MultivariateNormal(exact.mean + torch.linspace(-0.5, 0.7, N)[:, None], scale_tril=factor)
    found = optimise_locally(model, guide, ppca.x, given=given, num_steps=300)
    assert found.whole
    assert close(found.gap, kl_divergence(q, exact), found.errors.gap)
    assert close(found.elbo, ppca.evidence(), found.errors.elbo)
    amortised = found.amortised
    assert close(amortised.elbo, ppca.evidence() - kl_divergence(q, exact), found.errors.amortised, 0)
    prior = dist.MultivariateNormal(torch.zeros(L), torch.eye(L))
    assert close(amortised.kl, kl_divergence(q, prior), found.errors.rate, 0)
    torch.testing.assert_close(amortised.reconstruction - amortised.kl, amortised.elbo)


def diagonal_case(ppca: PPCA) -> tuple[Program, Tensor, Tensor]:
    """A diagonal guide, off its optimum; its amortisation and approximation gaps."""
    exact = ppca.posterior(ppca.x)
    mean, scale = exact.mean - 0.3, 1.5 * exact.stddev
    best_scale = exact.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
    q, best = (
        dist.MultivariateNormal(loc, scale_tril=torch.diag_embed(scales))
        for loc, scales in ((mean, scale), (exact.mean, best_scale))
    )
    approximation = kl_divergence(best, exact)
    return normal_guide(mean, scale, ppca.x), kl_divergence(q, exact) - approximation, approximation


def test_a_diagonal_guide_has_both_gaps_in_closed_form(float64: None) -> None:
    ppca = PPCA()
    guide, amortisation, approximation = diagonal_case(ppca)
    found = optimise_locally(ppca.model, guide, ppca.x, num_steps=300, num_particles=4000)
    assert close(found.gap, amortisation, found.errors.gap)
    assert close(ppca.evidence() - found.elbo, approximation, found.errors.elbo, atol=0.02)
    assert found.errors.elbo.max() < 0.05


def test_the_best_guide_has_no_gap_and_none_is_made_up(float64: None) -> None:
    """The exact posterior: the search can only lose, and the start is kept, or nothing is gained."""
    ppca = PPCA()
    found = optimise_locally(ppca.model, ppca.guide, ppca.x, num_steps=50, num_particles=200)
    assert found.gap.abs().max() < 1e-3
    assert found.elbo.max() <= ppca.evidence().max() + 1e-9


def test_the_search_does_not_depend_on_the_units_of_z(float64: None) -> None:
    """Latents a thousand times as large: the same gap, since a location moves in standard deviations."""
    x = torch.tensor([-1.0, 0.5, 2.0])
    for unit in (1e-3, 1.0, 1e3):

        def model(x: Tensor, unit: float = unit) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), unit))
                pyro.sample("x", dist.Normal(z / unit, 0.5), obs=x)

        def guide(x: Tensor, unit: float = unit) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0 * x, unit))

        found = optimise_locally(model, guide, x, num_steps=200, num_particles=2000)
        exact = dist.Normal(0.0, math.sqrt(1.25)).log_prob(x)
        assert close(found.elbo, exact, found.errors.elbo)


def test_positive_sites_against_the_conjugate_posterior(float64: None) -> None:
    """Gamma and Poisson: a Gamma guide reaches the posterior; a lognormal mixture's draws are only moved."""
    x = torch.tensor([0.0, 1.0, 3.0, 9.0, 30.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_full((), 2.0), 1.0))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def gamma(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(1 + x, 1.7))

    def mixture(x: Tensor) -> None:
        weights = dist.Categorical(x.new_ones(len(x), 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MixtureSameFamily(weights, dist.LogNormal(x.new_zeros(len(x), 2), 1.0)))

    exact = dist.NegativeBinomial(2.0, probs=torch.tensor(0.5)).log_prob(x)
    gap = kl_divergence(dist.Gamma(1 + x, torch.tensor(1.7)), dist.Gamma(2 + x, torch.tensor(2.0)))
    found = optimise_locally(model, gamma, x, num_particles=4000)
    assert found.whole
    assert close(found.gap, gap, found.errors.gap)
    assert close(found.elbo, exact, found.errors.elbo)
    moved = optimise_locally(model, mixture, x, num_particles=4000)
    assert not moved.whole
    # the best lognormal, by a grid over its two parameters
    best = torch.stack([_best_lognormal(datum) for datum in x])
    assert close(moved.elbo, best, moved.errors.elbo)


def _best_lognormal(x: Tensor) -> Tensor:
    """The largest ELBO for log z ~ N(m, s²), p(x, z) being z^(x+1) e^(−2z) / x!."""
    m, s = torch.linspace(-3, 4, 1401)[:, None], torch.linspace(0.05, 2, 400)
    expected = (x + 1) * m - 2 * (m + s.square() / 2).exp() - torch.lgamma(x + 1)
    entropy = m + s.log() + 0.5 * math.log(2 * math.pi * math.e)
    return (expected + entropy).max()


def test_two_sites_of_which_one_depends_on_the_other(float64: None) -> None:
    """The right family along a chain: shared offsets are enough where the conditional is right."""
    x = torch.randn(6, 4)

    def guide(x: Tensor) -> None:
        precision = x.shape[1] / 0.25 + 1 / 5
        with pyro.plate("data", len(x), dim=-1):
            shift = pyro.sample("shift", dist.Normal(x.sum(1) / 0.25 / precision + 0.2, precision**-0.5))
            pyro.sample("mean", dist.Normal(shift * 0.8 + 0.5, 0.8**0.5))

    exact = dist.MultivariateNormal(torch.zeros(4), 5 * torch.ones(4, 4) + 0.25 * torch.eye(4)).log_prob(x)
    found = optimise_locally(two_sites, guide, x, num_steps=300)
    assert not found.whole
    assert close(found.elbo, exact, found.errors.elbo)
    assert "at least" in repr(found)


def test_the_data_plate_may_lie_left_of_another(float64: None) -> None:
    x = torch.randn(6, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("pixels", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("pixels", x.shape[1], dim=-1):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    found = optimise_locally(model, guide, x, num_steps=300)
    assert found.whole
    assert close(found.elbo, dist.Normal(0.0, 2**0.5).log_prob(x).sum(1), found.errors.elbo)
    units = latent_units(model, guide, x)
    assert units.names == ("z[0]", "z[1]", "z[2]", "z[3]")
    information = mutual_information(model, guide, x)
    assert information.information.abs().max() < 1e-12


@pytest.mark.parametrize(
    "posterior", ["LowRankNormal", "Flow, inverse autoregressive", "Flow, neural spline"]
)
def test_zero_offsets_are_the_guide_itself_and_steps_gain(float64: None, posterior: str) -> None:
    program, x = vae(posterior=posterior), data_for("Bernoulli", 5).double()
    _check_start_and_gain(program, x, whole=posterior == "LowRankNormal")


def test_a_hierarchy_starts_at_the_guide_and_gains(float64: None) -> None:
    data = pv.Digits()
    program = pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(4, 2), network=pv.MLP((8,)))
    _check_start_and_gain(program, data.test.batch()[:5].double(), whole=False)


def _check_start_and_gain(program: pv.JointProgram, x: Tensor, *, whole: bool) -> None:
    batch = pv.Batch(x)
    pair = Pair(program.model, program.guide, batch)
    free = start(pair, batch)
    with own_draws(x.device):
        expected = pair.log_weights(batch, 6, validate=False)
    moved = pair.with_guide_in(free)
    torch.testing.assert_close(moved.log_weights(batch, 6, validate=False), expected, rtol=0, atol=1e-9)
    assert free.offsets and free.whole == whole
    found = optimise_locally(program.model, program.guide, x, num_steps=60, num_particles=300)
    assert (found.gap > 4 * found.errors.gap).all()


def test_the_parameters_of_the_programs_are_left_alone() -> None:
    program, x = vae(), data_for("Bernoulli", 5)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    found = optimise_locally(
        program.model, program.guide, x, num_steps=3, num_particles=100, learning_rate=1e-3
    )
    assert found.errors.gap.mean() < 0.1 * found.errors.elbo.mean()  # of common random numbers
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    assert all(parameter.grad is None for parameter in program.parameters())


def line(x: Tensor) -> None:
    """z ~ N(0, 1), x ~ N(z, 1)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def line_guide(spread: float, scale: float) -> Program:
    """q(z|x) = N(spread · x, scale²)."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(spread * x[:, None], scale).to_event(1))

    return guide


def test_mutual_information_against_a_grid(float64: None) -> None:
    x = torch.tensor([-2.0, -0.7, 0.1, 0.4, 2.5])
    grid = torch.linspace(-12, 12, 4001)
    each = dist.Normal(0.8 * x[:, None], 0.6).log_prob(grid)
    mixture = each.logsumexp(0) - math.log(5)
    exact = (each.exp() * (each - mixture)).sum(1) * (grid[1] - grid[0])
    found = mutual_information(line, line_guide(0.8, 0.6), x, num_draws=4000)
    assert close(found.information, exact, found.standard_error, atol=0)
    assert found.standard_error.max() < 0.02
    pieces = mutual_information(line, line_guide(0.8, 0.6), x, num_draws=4001, rows=70)
    assert close(pieces.information, exact, pieces.standard_error, atol=0)


def test_information_is_none_of_equal_codes_and_all_of_distant_ones(float64: None) -> None:
    x = torch.arange(6.0)
    equal = mutual_information(line, line_guide(0.0, 0.6), x)
    assert equal.information.abs().max() < 1e-12
    distant = mutual_information(line, line_guide(100.0, 0.6), x)
    torch.testing.assert_close(distant.information, torch.full((6,), math.log(6)), rtol=0, atol=1e-12)
    assert repr(distant) == (
        "mutual information = 1.792 nats of at most log 6 = 1.792, by 10 draws per datum"
    )


def test_information_of_several_sites_and_of_a_flow(float64: None) -> None:
    """Each draw against each datum, by one loop over pairs."""
    data = pv.Digits()
    programs: list[tuple[pv.JointProgram, Tensor]] = [
        (vae(posterior="Flow, inverse autoregressive"), data_for("Bernoulli", 4).double()),
        (
            pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(4, 2), network=pv.MLP((8,))),
            data.test.batch()[:4].double(),
        ),
    ]
    for program, x in programs:
        torch.manual_seed(1)
        found = mutual_information(program.model, program.guide, x, num_draws=3)
        torch.manual_seed(1)
        batch = pv.Batch(x)
        latents = Latents(program.model, program.guide, batch)
        drawn = latents.draws(batch, 3)
        expected = torch.empty(3, 4)
        for draw in range(3):
            for own in range(4):
                values = {name: value[draw, own] for name, value in drawn.items()}
                log_q = torch.cat(
                    [
                        latents.log_guide(batch[j : j + 1], {n: v[None, None] for n, v in values.items()})[0]
                        for j in range(4)
                    ]
                )
                expected[draw, own] = log_q[own] - log_q.logsumexp(0) + math.log(4)
        torch.testing.assert_close(found.information, expected.mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_prior_gap_of_a_prior_of_another_scale(float64: None, scale: float) -> None:
    """Codes of x ~ N(0, 2) under the exact posterior N(x/2, 1/2) are N(0, 1); so is the best prior."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), scale).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    x = 2**0.5 * torch.randn(600)
    exact = kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(0.0, scale))
    for train in (None, 2**0.5 * torch.randn(600)):
        found = prior_gap(model, line_guide(0.5, 0.5**0.5), x, train=train)
        error = found.gap.std() / 600**0.5
        assert abs(found.gap.mean() - exact) < 4 * error + 0.01
        assert error < 0.03
        assert len(found.components) == (2 if train is None else 1)


def test_the_prior_gap_of_positive_codes_counts_the_volume(float64: None) -> None:
    """The codes are lognormal, the prior another lognormal: the KL of the normals of their logarithms."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(x.new_full((), 1.0), 2.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(0.5 * x - 1, 0.5**0.5))

    x = 2**0.5 * torch.randn(600)
    found = prior_gap(model, guide, x)
    exact = kl_divergence(dist.Normal(-1.0, 1.0), dist.Normal(1.0, 2.0))
    assert abs(found.gap.mean() - exact) < 4 * found.gap.std() / 600**0.5 + 0.01


def test_no_prior_learns_codes_that_do_not_come_again(float64: None) -> None:
    """Narrow codes of 40 data: the marginal KL counts each of them, the prior gap does not."""
    x = torch.randn(40)
    found = prior_gap(line, line_guide(1.0, 1e-3), x)
    assert found.gap.mean() < 0.1


def wide_guide(x: Tensor) -> None:
    """Three numbers of which the second is as the prior has it."""
    mean = torch.stack([x, 0 * x, 0.05 * x], -1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mean, torch.tensor([0.3, 1.0, 0.9])).to_event(1))


def three(x: Tensor) -> None:
    """Three standard normal numbers, the first of them observed."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 0.3), obs=x)


def test_active_units_and_their_kl_in_closed_form(float64: None) -> None:
    x = torch.randn(300)
    units = latent_units(three, wide_guide, x, num_draws=400)
    scale = torch.tensor([0.3, 1.0, 0.9])
    mean = torch.stack([x, 0 * x, 0.05 * x], -1)
    kl = kl_divergence(dist.Normal(mean, scale), dist.Normal(0.0, 1.0)).mean(0)
    expected = mean.var(0)
    assert (units.activity - expected).abs().max() < 0.01
    assert units.activity[1].abs() < 0.001
    assert units.active.tolist() == [True, False, False]
    assert units.kl is not None and (units.kl - kl).abs().max() < 0.02
    assert repr(units) == "1 of 3 latent units active, inactive: z[1], z[2]"
    few = latent_units(three, wide_guide, x, num_draws=3, rows=50)  # the bias of a mean of three is taken off
    assert (few.activity - expected).abs().max() < 0.1
    assert few.activity[1].abs() < 0.1


def test_the_kl_of_what_does_not_factorise_is_none_with_the_reason() -> None:
    x = data_for("Bernoulli", 5)
    for program, reason in (
        (vae(prior="Mixture"), "the prior of z is a DiagonalNormalMixture, which is not independent"),
        (vae(posterior="FullNormal"), "the guide of z is a MultivariateNormal, which is not independent"),
    ):
        units = latent_units(program.model, program.guide, x, num_draws=3)
        assert units.kl is None and units.kl_error is None
        assert units.reason.startswith(reason)


class Exact(NamedTuple):
    """log p(x) by a closed form."""

    estimate: Tensor
    standard_error: Tensor


def exact(values: Tensor) -> Exact:
    return Exact(values, torch.zeros_like(values))


def case(part: str) -> tuple[Program, Program, Tensor, Exact]:
    """A model, its guide, data and their log p(x), the named part losing the most."""
    torch.manual_seed(2)
    if part == "encoder":  # a shift of √2 standard deviations
        x = 2**0.5 * torch.randn(150)

        def off(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0.5 * x[:, None] + 1, 0.5**0.5).to_event(1))

        return line, off, x, exact(dist.Normal(0.0, 2**0.5).log_prob(x))
    if part == "posterior":  # of two modes, one is followed, whose sign is the data's third decimal's
        x = torch.randn(150).abs() + 0.5
        scale = (0.01 / 1.01) ** 0.5

        def folded(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., 0].abs(), 0.1), obs=x)

        def one_mode(x: Tensor) -> None:
            sign = 1 - 2 * ((x * 1000).floor() % 2)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((sign * x / 1.01)[:, None], scale).to_event(1))

        inside = dist.Normal(0.0, 1.0).cdf(x / 1.01 / scale)
        return folded, one_mode, x, exact((2 * inside).log() + dist.Normal(0.0, 1.01**0.5).log_prob(x))
    x = 0.5 * torch.randn(150)

    def wide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 3.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    return wide, line_guide(0.9, 0.9**0.5), x, exact(dist.Normal(0.0, 10**0.5).log_prob(x))


@pytest.mark.parametrize(
    ("part", "gaps", "remedy"),
    [
        ("encoder", (1.0, 0.0, None), "a larger encoder (--network) or longer training"),
        ("posterior", (0.0, math.log(2), None), "FullNormalPosterior or FlowPosterior"),
        ("prior", (0.0, 0.0, 0.61), "VampPrior, MixturePrior or FlowPrior"),
    ],
)
def test_the_verdict_names_the_part_that_loses_most(
    float64: None, part: str, gaps: tuple[float, float, float | None], remedy: str
) -> None:
    model, guide, x, evidence = case(part)
    found = pv.diagnose(model, guide, x, evidence=evidence, num_steps=150, num_particles=400)
    assert found.largest == part
    assert f"Largest loss: the {part}, " in found.verdict and f"To swap: {remedy}." in found.verdict
    for term, expected in zip((found.amortisation, found.approximation, found.prior_gap), gaps, strict=True):
        assert expected is None or term.mean == pytest.approx(expected, abs=0.06)
    # every nat is accounted for
    losses = found.distortion.mean + found.mutual_information.mean + found.marginal_kl.mean
    assert found.elbo.mean == pytest.approx(-losses, abs=1e-9)
    assert found.rate.mean == pytest.approx(found.mutual_information.mean + found.marginal_kl.mean, abs=1e-9)
    total = found.elbo.mean + found.amortisation.mean + found.approximation.mean
    assert found.log_evidence.mean == pytest.approx(total, abs=1e-9)
    assert found.log_evidence.mean == pytest.approx(float(evidence.estimate.mean()), abs=1e-12)
    assert not found.collapse and found.train_test_gap is None


def test_by_default_log_px_is_estimated_and_the_training_data_are_compared(float64: None) -> None:
    x = torch.randn(30)
    guide = line_guide(0.5, 0.5**0.5)
    closed = dist.Normal(0.0, 2**0.5).log_prob
    train = torch.linspace(-1, 1, 5000)  # of which every third counts
    found = pv.diagnose(line, guide, x, train=train, num_steps=5, num_particles=20)
    torch.testing.assert_close(found.per_datum()["log_evidence"], closed(x), rtol=0, atol=1e-9)
    assert found.amortisation.mean < 1e-3
    assert found.approximation.mean == pytest.approx(-found.amortisation.mean, abs=1e-9)
    seen, test = closed(train[::3]), closed(x)
    assert found.train_test_gap is not None
    assert found.train_test_gap.mean == pytest.approx(float(seen.mean() - test.mean()), abs=1e-9)
    error = math.hypot(seen.std() / len(seen) ** 0.5, test.std() / 30**0.5)
    assert found.train_test_gap.standard_error == pytest.approx(error, abs=1e-6)
    for name, values in found.per_datum().items():
        assert values.shape == (30,) and values.dtype == torch.float64, name
        if hasattr(found, name):
            assert float(values.mean()) == pytest.approx(getattr(found, name).mean, abs=1e-12)


def test_results_are_plain_numbers_and_a_table(float64: None) -> None:
    model, guide, x, evidence = case("encoder")
    found = pv.diagnose(
        model, guide, x[:9], evidence=exact(evidence.estimate[:9]), num_steps=5, num_particles=9
    )
    content = json.loads(json.dumps(found.content(), allow_nan=False))
    assert content["elbo"]["mean"] == found.elbo.mean
    assert content["units"] == "nats per datum" and content["num_data"] == 9
    assert content["latent_units"]["names"] == ["z"]
    assert "train_test_gap" not in content
    lines = repr(found).split("\n")
    assert lines[0] == "nats per datum, means of 9 data ± standard error over data"
    assert lines[1].split() == [
        *("distortion", f"{found.distortion.mean:.3f}", "±", f"{found.distortion.standard_error:.3f}"),
        *("−E", "log", "p(x|z)"),
    ]
    assert "1 of 1 latent units active" in lines


def test_posterior_collapse_is_named_when_it_is_there(float64: None) -> None:
    x = torch.randn(40)
    silent = pv.diagnose(line, line_guide(0.0, 1.0), x, num_steps=5, num_particles=50)
    assert silent.collapse == (
        "Posterior collapse: no latent unit is active, and the codes do not tell the data apart. "
        "Against it: kl_warm_up or FreeBitsELBO."
    )
    assert silent.verdict.startswith(silent.collapse)
    partial = pv.diagnose(three, wide_guide, x, num_steps=5, num_particles=50)
    assert partial.collapse.startswith(
        "Partial posterior collapse: 2 of 3 latent units inactive (z[1], z[2]). Against it: kl_warm_up"
    )


def test_collapse_needs_silence(float64: None) -> None:
    """Codes that differ by their spread alone have no active unit, and yet tell the data apart."""
    units = Units(("z",), torch.zeros(1), torch.zeros(1, dtype=torch.bool), None, None, "")
    for information, words in ((0.5, "Partial"), (0.01, "Posterior collapse")):
        told = Information(torch.full((9,), information), torch.full((9,), 0.01), 10)
        assert collapse_in_words(units, told).startswith(words)


def loss(mean: float, spread: float = 0.3, shift: float = 0.0) -> Loss:
    values = mean + spread * torch.linspace(-1, 1, 101).roll(int(shift))
    return Loss(Mean(float(values.mean()), float(values.std() / 101**0.5), 0.0), values)


def test_the_largest_loss_and_what_is_within_noise() -> None:
    assert largest_loss({"encoder": loss(1.0), "posterior": loss(0.5), "prior": loss(0.2)}) == (
        "encoder",
        "Largest loss: the encoder, the amortisation gap of 1.00 nats. To swap: a larger encoder (--network) "
        "or longer training.",
    )
    name, words = largest_loss({"encoder": loss(1.0), "posterior": loss(0.2), "prior": loss(1.02, shift=50)})
    assert name == "prior or encoder"
    assert "the prior gap of 1.02 and the amortisation gap of 1.00 nats, which these data" in words
    # the same difference, but the same in every datum
    assert largest_loss({"encoder": loss(1.0), "prior": loss(1.02)})[0] == "prior"
    for small in (loss(0.09, 0.01), loss(1.0, 20.0), loss(-3.0)):
        name, words = largest_loss({"encoder": small, "posterior": loss(0.0), "prior": loss(0.05)})
        assert name == "none" and words.startswith("No loss stands out")


def test_doubt_is_said() -> None:
    class WithK(NamedTuple):
        pareto_k: Tensor

    told, fine = Information(torch.full((100,), 2.0), torch.zeros(100), 10), Mean(0.1, 0.05, 0.05)
    k = torch.linspace(0, 1, 100)
    assert notes(WithK(k * 0.7), True, fine, told) == []
    assert (
        "(Pareto k-hat is above 0.7 or unknown for 30% of the data)" in notes(WithK(k), True, fine, told)[0]
    )
    assert "(it is below an ELBO)" in notes(None, True, Mean(-0.2, 0.5, 0.05), told)[0]
    assert "lower bound, and the approximation gap an upper" in notes(None, False, fine, told)[0]
    full = Information(torch.full((100,), 4.5), torch.zeros(100), 10)
    assert notes(None, True, fine, full)[0].startswith("The mutual information is near its limit")
    assert generalisation(Mean(3.0, 0.5, 0.0))[0].startswith("The ELBO of the training data is 3.00 nats")
    assert generalisation(Mean(3.0, 2.0, 0.0)) == generalisation(None) == []


def test_refusals() -> None:
    x = torch.randn(20)
    guide = line_guide(0.5, 0.7)

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))

    with refused(r"x expects 8 data at least, got shape \(7,\)"):
        pv.diagnose(line, guide, x[:7])
    with refused(r"train expects 8 data at least, got shape \(3,\)"):
        pv.diagnose(line, guide, x, train=x[:3])
    with refused(r"evidence expects a result with estimate of shape \(20,\).*, got \(7,\)"):
        pv.diagnose(line, guide, x, evidence=exact(x[:7]))
    with refused("expected continuous latent sites, got the discrete site 'k'"):
        pv.diagnose(discrete, discrete, x)
    with refused("expected a model with a latent site, got none"):
        pv.diagnose(lambda x: None, lambda x: None, x)
    with refused("num_steps expects a positive whole number, got 0"):
        optimise_locally(line, guide, x, num_steps=0)
    with refused("num_draws expects 2 at least, got 1"):
        prior_gap(line, guide, x, num_draws=1)
    with refused("expected two data and two draws at least, got 1 and 100"):
        latent_units(line, guide, x[:1])


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.fine_pictures
def test_the_waterfall_ends_where_the_sums_do(tmp_path: Path) -> None:
    steps = [("− distortion", -80.0, 2.0), ("− information", -15.0, 0.5), ("+ gap", 2.0, math.nan)]
    totals = [(2, "ELBO", -95.0, 2.0), (3, "log p(x)", -93.0, 2.0)]
    figure = plots.waterfall(steps, totals=totals, saved=(1, 4.0, "saved"))
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["− distortion", "− information", "ELBO", "+ gap", "log p(x)"]
    bars = [
        (bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2)) for bar in rectangles(axes)
    ]
    assert bars == [(-80, -15, 1), (-95, 4, 1), (-95, 2, 3)]
    diamonds = [tuple(np.concatenate(line.get_data())) for line in axes.lines]
    assert diamonds == [(-80, 0), (-95, 2), (-93, 4)]
    assert [text.get_text() for text in axes.texts] == ["-80.00", "-15.00", "-95.00", "+2.00", "-93.00"]
    plots.save(figure, tmp_path / "waterfall.png")
    with Image.open(tmp_path / "waterfall.png") as picture:
        assert picture.size[0] > 500


def test_units_stand_by_size(tmp_path: Path) -> None:
    activity, kl = torch.tensor([0.5, 0.001, 2.0]), torch.tensor([0.4, -0.01, 3.0])
    figure = plots.latent_units(["a", "b", "c"], activity, kl=kl, kl_error=kl.abs() / 10)
    upper, lower = figure.axes
    assert [label.get_text() for label in lower.get_xticklabels()] == ["c", "a", "b"]
    assert np.allclose([bar.get_height() for bar in rectangles(upper)], [3.0, 0.4, -0.01])
    tops = [bar.get_y() + bar.get_height() for bar in rectangles(lower)]
    assert np.allclose(tops, [2.0, 0.5, 0.001])
    assert lower.patches[2].get_facecolor() != lower.patches[1].get_facecolor()
    assert lower.get_xlabel() == "latent units, largest first; 2 of 3 active, the others grey"
    plots.save(figure, tmp_path / "units.png")
    assert len(plots.latent_units(["a", "b", "c"], activity - 0.001).axes) == 1  # none of them below 0


def test_the_waterfall_of_a_diagnosis_ends_at_log_px(float64: None) -> None:
    model, guide, x, evidence = case("encoder")
    found = pv.diagnose(model, guide, x, evidence=evidence, num_steps=5, num_particles=50)
    drawn = found.waterfall()
    ends = np.cumsum([change for _, change, _ in drawn["steps"]])
    for after, _, value, _ in drawn["totals"]:
        assert ends[after - 1] == pytest.approx(value, abs=1e-9)
    assert drawn["saved"][:2] == (2, min(found.prior_gap.mean, found.marginal_kl.mean))
    assert f"{found.prior_gap.mean:.2f} at least" in drawn["saved"][2]
    assert drawn["totals"][-1][2] == pytest.approx(float(evidence.estimate.mean()))
