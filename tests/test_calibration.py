"""Calibration of q(z|x), and exact posteriors by NUTS, against closed forms."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.patches import StepPatch
from pyro import poutine
from scipy import stats
from torch import Tensor

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.compiled import Untraceable
from pyro_vae.diagnosis.calibration import _tested
from pyro_vae.diagnosis.common import JOINT, prior_of
from pyro_vae.programs import Latents, simulate
from pyro_vae.randomness import own_randomness
from tests.components import refused
from tests.test_importance import PPCA, L, Numbered

Program = Callable[[Tensor], Any]
COORDINATES = ("z[0]", "z[1]", "z[2]")


def moved(ppca: PPCA, shift: float, scale: float = 1.0) -> Program:
    """The exact posterior, shifted and scaled by standard deviations."""

    def guide(x: Tensor) -> None:
        exact = ppca.posterior(x)
        with pyro.plate("data", len(x)):
            loc = exact.mean + shift * exact.stddev
            pyro.sample("z", dist.MultivariateNormal(loc, exact.covariance_matrix * scale**2))

    return guide


def counts(x: Tensor) -> None:
    """Poisson counts of three kinds, by their sum's rate and their shares: both conjugate."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), 0.5))
        shares = pyro.sample("shares", dist.Dirichlet(x.new_tensor([1.0, 2.0, 3.0])))
        pyro.sample("x", dist.Poisson(rate[..., None] * shares).to_event(1), obs=x)


def counts_guide(x: Tensor, weight: float = 1.0) -> None:
    """The exact posterior; with `weight` as if there were more data and more prior."""
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma((3 + x.sum(-1)) * weight, x.new_tensor(1.5 * weight)))
        pyro.sample("shares", dist.Dirichlet((x.new_tensor([1.0, 2.0, 3.0]) + x) * weight))


def test_ranks_of_the_exact_posterior_are_uniform(float64: None) -> None:
    ppca = PPCA()
    found = pv.calibrate(ppca.model, ppca.guide, like=ppca.x)
    assert found.names == (*COORDINATES, JOINT)
    assert found.ranks.shape == (1000, 4) and found.ranks.dtype == torch.int64
    assert (found.ranks.min(0).values == 0).all() and (found.ranks.max(0).values == 99).all()
    assert found.bins == 20
    assert found.p_value.min() > 0.01
    assert found.calibrated and found.verdicts == ("calibrated",) * 4
    assert found.mean_z.abs().max() < 3 and found.variance_z.abs().max() < 3
    for level in (0.5, 0.9):
        coverage = found.coverage(level)
        assert coverage.nominal == pytest.approx(level, abs=0.011)
        assert ((coverage.found - coverage.nominal).abs() < 4 * coverage.standard_error).all()
    assert repr(found).startswith("q(z|x) is calibrated in all 4 quantities (smallest p-value 0.")


@pytest.mark.parametrize(
    ("shift", "scale", "words", "joint"),
    [
        (0.0, 0.5, "too narrow", "too high at the draws"),
        (0.0, 2.0, "too wide", "too low at the draws"),
        (0.7, 1.0, "shifted upwards", "too low at the draws"),
        (-3.0, 1.0, "shifted downwards", "too low at the draws"),
    ],
)
def test_a_wrong_guide_is_rejected_by_name(
    shift: float, scale: float, words: str, joint: str, float64: None
) -> None:
    ppca = PPCA()
    found = pv.calibrate(ppca.model, moved(ppca, shift, scale), like=ppca.x[:1], num_data=400)
    assert found.verdicts == (words,) * 3 + (joint,)
    assert not found.calibrated
    assert "q(z|x) is not calibrated in 4 of 4 quantities: z[" in repr(found)
    assert f" {words}, log p(x, z) {joint} (Holm at 5 %; 400 data" in repr(found)
    # P(|N(0,1)·sd| within the central 90 % of q), smeared a little by 99 draws
    half = stats.norm.ppf(0.95) * scale
    expected = stats.norm.cdf(half + shift) - stats.norm.cdf(-half + shift)
    coverage = found.coverage(0.9)
    assert ((coverage.found - expected).abs() < 4 * math.sqrt(expected * (1 - expected) / 400) + 0.02).all()


def test_the_prior_as_guide_passes_in_each_coordinate_and_fails_in_the_density(float64: None) -> None:
    ppca = PPCA()

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))

    found = pv.calibrate(ppca.model, prior, like=ppca.x)
    assert found.p_value[:3].min() > 0.01
    assert found.verdicts == ("calibrated",) * 3 + ("too low at the draws",)
    # the guide that exact_posterior makes of the model is the same program
    again = pv.calibrate(ppca.model, prior_of(ppca.model), like=ppca.x)
    assert torch.equal(found.ranks, again.ranks)


def line(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def line_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def test_p_values_are_uniform_over_repeats(float64: None) -> None:
    """200 times 200 data, all simulated and ranked at once."""
    once = pv.calibrate(line, line_guide, like=torch.zeros(1), num_data=200, num_draws=19)
    many = pv.calibrate(line, line_guide, like=torch.zeros(1), num_data=200 * 200, num_draws=19)
    assert once.bins == many.bins
    found = [_tested(ranks, many.names, 19, many.bins) for ranks in many.ranks.split(200)]
    for quantity in (0, 1):
        p_values = [float(each.p_value[quantity]) for each in found]
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0 < sum(not each.calibrated for each in found) <= 20  # 5 % of 200, and chance


def test_ranks_are_those_of_a_direct_computation(float64: None) -> None:
    ppca = PPCA()
    found = pv.calibrate(ppca.model, ppca.guide, like=ppca.x, num_data=30, num_draws=99, rows=10_000, seed=5)
    with own_randomness(5, torch.device("cpu")):
        like = pv.Batch(ppca.x)
        latents = Latents(ppca.model, ppca.guide, like)
        batch, truth = simulate(latents, like, 30)
        draws = latents.from_guide(batch, 99)

    def joint(z: Tensor) -> Tensor:
        mean = z @ ppca.weight.T + ppca.shift
        return -(z.square().sum(-1) + ((batch.x - mean) / ppca.sigma).square().sum(-1)) / 2

    below = (draws < truth).sum(0)
    assert torch.equal(found.ranks, torch.cat([below, (joint(draws) < joint(truth)).sum(0)[:, None]], 1))
    bars = np.stack([np.bincount(found.ranks[:, q] // 20, minlength=5) for q in range(4)], 1)
    assert found.bins == 5
    np.testing.assert_allclose(found.chi_square, ((bars - 6) ** 2 / 6).sum(0))
    np.testing.assert_allclose(found.p_value, stats.chi2.sf(found.chi_square, 4))


@pytest.mark.parametrize(("num_data", "rows"), [(20, 1), (50, 37), (53, 100), (53, 10_000)])
def test_exactly_as_many_draws_as_asked_and_never_more_at_once(num_data: int, rows: int) -> None:
    sizes = []

    class Noted(dist.Normal):
        """Notes how many draws are made, not where the density of one is asked for."""

        def rsample(self, *args: Any) -> Tensor:
            sizes.append(self.batch_shape.numel())
            return super().rsample(*args)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Noted(x / 2, 0.5**0.5))

    found = pv.calibrate(line, guide, like=torch.zeros(1), num_data=num_data, num_draws=39, rows=rows)
    probes, drawn = sizes[:3], sizes[3:]
    assert probes == [3, 2, 6]  # held against each alone; within the support; shapes
    assert sum(drawn) == 39 * num_data and max(drawn) <= rows
    assert found.ranks.shape == (num_data, 2)
    assert found.ranks.max() > 30 and found.ranks.max() <= 39


def test_ties_are_broken_at_random() -> None:
    """All draws equal the truth: every rank from 0 to L is as likely."""

    def program(x: Tensor) -> Tensor:
        return pyro.sample("z", Numbered(torch.ones))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = program(x)
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            program(x)

    found = pv.calibrate(model, guide, like=torch.zeros(2), num_data=4000, num_draws=9)
    assert found.bins == 10
    assert found.p_value.min() > 0.01
    assert torch.corrcoef(found.ranks.T.double())[0, 1].abs() < 4 / math.sqrt(4000)


def test_two_sites_with_constraints(float64: None) -> None:
    like = torch.zeros(1, 3)
    found = pv.calibrate(counts, counts_guide, like=like, num_draws=39)
    assert found.names == ("rate", "shares[0]", "shares[1]", JOINT)
    assert found.p_value.min() > 0.01
    narrow = pv.calibrate(counts, lambda x: counts_guide(x, 4.0), like=like, num_draws=39)
    assert narrow.verdicts[:3] == ("too narrow",) * 3


def test_z_scores_of_uniform_ranks_have_mean_zero_and_variance_one() -> None:
    ranks = torch.randint(20, (300, 4000))
    found = _tested(ranks, tuple(map(str, range(4000))), 19, 20)
    for scores in (found.mean_z, found.variance_z):
        assert scores.mean().abs() < 4 / math.sqrt(4000) + 0.06  # −1/√N by the sample's own mean
        assert scores.std() == pytest.approx(1, abs=4 / math.sqrt(8000))


def test_verdicts_of_ranks_of_known_shape() -> None:
    even = torch.arange(20).repeat(100)
    ranks = torch.stack(
        [
            even,
            torch.tensor([0, 19]).repeat(1000),
            torch.tensor([9, 10]).repeat(1000),
            torch.full((2000,), 19),
            torch.zeros(2000, dtype=torch.int64),
            torch.tensor([0, 19] * 368 + [9, 10] * 632),  # of a uniform mean and variance
            torch.full((2000,), 0),
        ],
        dim=1,
    )
    names = (*"abcdef", JOINT)
    found = _tested(ranks, names, 19, 20)
    assert found.verdicts == (
        "calibrated",
        "too narrow",
        "too wide",
        "shifted downwards",
        "shifted upwards",
        "of another shape",
        "too high at the draws",
    )
    coverage = found.coverage(0.8)
    assert coverage.nominal == pytest.approx(0.8)
    assert coverage.found.tolist() == pytest.approx([0.8, 0, 1, 0, 0, 0.632])
    assert repr(coverage) == (
        "central 80% intervals of q(z|x) hold the true latent in 40.5% of simulated data, from 0.0% (b) to "
        "100.0% (c); ± 0.9% by chance"
    )


def test_calibration_is_repeatable_and_leaves_the_random_numbers(float64: None) -> None:
    ppca, state = PPCA(), torch.get_rng_state()
    runs = [
        pv.calibrate(ppca.model, ppca.guide, like=ppca.x, num_data=60, num_draws=19, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(runs[0].ranks, runs[1].ranks) and not torch.equal(runs[0].ranks, runs[2].ranks)


def test_what_cannot_be_calibrated_is_refused() -> None:
    ppca = PPCA()

    def calibrate(model: Program = ppca.model, guide: Program = ppca.guide, **options: Any) -> None:
        pv.calibrate(model, guide, **{"like": ppca.x, "num_data": 40, "num_draws": 19, **options})

    with refused(r"num_draws \+ 1 expects a divisor from 4 to 20, .* got num_draws 100: take 119"):
        calibrate(num_draws=100)
    with refused("num_data expects at least 20, five in each of 4 bins, got 19"):
        calibrate(num_data=19)
    with refused("num_draws expects a positive whole number, got 0"):
        calibrate(num_draws=0)
    with refused("rows expects a positive whole number, got 0"):
        calibrate(rows=0)
    with refused("seed expects a whole number"):
        calibrate(seed=-1)
    with refused(r"the model's latent sites \['z'\] and no others, got \[\]"):
        calibrate(guide=lambda x: None)
    with refused("a model that observes its argument as it is, got one that changes it at the site 'x'"):
        calibrate(model=lambda x: ppca.model(x / 2))

    def broken(x: Tensor) -> None:
        """NaN on the data that the model draws, and not on those it is tried with."""
        with pyro.plate("data", len(x)):
            loc = x.new_full((len(x), L), math.nan if len(x) > 10 else 0.0)
            with pyro.validation_enabled(False):
                pyro.sample("z", dist.Normal(loc, 1.0, validate_args=False).to_event(1))

    with refused(r"expected numbers for z\[0\], got NaN on 40 of 40 data \(the first is 0\): bound"):
        calibrate(guide=broken)

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(x.new_ones(3)))

    def labelled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(x.new_ones(3)))
            pyro.sample("x", dist.Normal(z.to(x), 1.0), obs=x)

    with refused("expected continuous latent sites, got the discrete site 'z'"):
        calibrate(model=labelled, guide=discrete, like=torch.zeros(3))
    with refused("expected continuous latent sites, got the discrete site 'z'"):
        pv.exact_posterior(labelled, torch.zeros(2))
    found = pv.calibrate(line, line_guide, like=torch.zeros(1), num_data=40, num_draws=19)
    with refused("level expects a number between 0 and 1, got 90"):
        found.coverage(90)


@pytest.fixture(scope="module")
def ppca_draws() -> pv.ExactPosterior:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        ppca = PPCA()
        return pv.exact_posterior(ppca.model, ppca.x[:2], num_samples=250, warmup=150)
    finally:
        torch.set_default_dtype(before)


def test_nuts_finds_the_posterior(ppca_draws: pv.ExactPosterior, float64: None) -> None:
    ppca, u = PPCA(), ppca_draws.u
    exact = ppca.posterior(ppca.x[:2])
    assert u.shape == (500, 2, L)
    assert ppca_draws.names == COORDINATES
    torch.testing.assert_close(ppca_draws.values["z"], u, rtol=0, atol=0)
    ess = ppca_draws.effective_sample_size
    assert ess.min() > 50
    error = exact.stddev / ess.sqrt()
    assert ((u.mean(0) - exact.mean).abs() < 4 * error).all()
    covariance = torch.einsum("sbi,sbj->bij", u - u.mean(0), u - u.mean(0)) / 499
    variances = exact.variance[..., None] * exact.variance[:, None]
    # var of s_ij for a normal: (σ_ii σ_jj + σ_ij²) / draws
    error = ((variances + exact.covariance_matrix.square()) / ess.min()).sqrt()
    assert ((covariance - exact.covariance_matrix).abs() < 4 * error).all()
    assert ppca_draws.converged and ppca_draws.r_hat.shape == (2, L)
    assert repr(ppca_draws).startswith(
        "500 draws from p(z|x) on each of 2 data by NUTS in 2 chains: largest R-hat 1.0"
    )
    assert repr(ppca_draws).endswith(", no divergences")
    worse = replace(ppca_draws, divergences=torch.tensor([1, 0]))
    assert not worse.converged
    assert repr(worse).endswith("1 divergence; not to be trusted: more warm-up or a higher target_acceptance")


def test_agreement_with_nuts(ppca_draws: pv.ExactPosterior, float64: None) -> None:
    ppca, x = PPCA(), PPCA().x[:2]
    equal = pv.agreement(ppca.model, ppca.guide, x, exact=ppca_draws)
    assert equal.agrees and not equal.rejected.any()
    assert repr(equal).startswith("q(z|x) agrees with NUTS on all 2 data in all 4 quantities (largest")
    assert (equal.difference.abs() < 4 * equal.difference_error).all()
    assert ((equal.scale_ratio - 1).abs() < 4 * equal.scale_ratio_error).all()
    for scale, words in ((0.5, "too narrow"), (2.0, "too wide")):
        found = pv.agreement(ppca.model, moved(ppca, 0.0, scale), x, exact=ppca_draws)
        assert found.rejected.all()
        assert all(words in found.verdict(datum, number) for datum in (0, 1) for number in range(L))
        assert f" on datum 0 {words}, sd" in repr(found)
        assert ((found.scale_ratio[:, :L] - scale).abs() < 4 * found.scale_ratio_error[:, :L]).all()
    high = pv.agreement(ppca.model, moved(ppca, 1.0), x, exact=ppca_draws)
    assert all("shifted by +" in high.verdict(datum, number) for datum in (0, 1) for number in range(L))
    assert ((high.difference[:, :L] - 1).abs() < 4 * high.difference_error[:, :L]).all()
    with refused(r"expected exact draws of \['z\[0\]', .* on 3 data, got .* on 2: use the same model"):
        pv.agreement(ppca.model, ppca.guide, PPCA().x[:3], exact=ppca_draws)


def independent(ppca: PPCA, x: Tensor, num: int) -> pv.ExactPosterior:
    """Independent exact draws, as four chains."""
    u = ppca.posterior(x).sample((num,))
    ess, none = torch.full(u.shape[1:], float(num)), torch.zeros(len(x), dtype=torch.int64)
    return pv.ExactPosterior({"z": u}, u, COORDINATES, 4, torch.ones_like(ess), ess, none)


def test_errors_and_p_values_of_agreement_are_right(float64: None) -> None:
    """200 repeats of one datum: standard errors are the spread, and few p-values are small."""
    ppca = PPCA()
    x = ppca.x[:1].expand(200, -1).contiguous()
    found = pv.agreement(ppca.model, ppca.guide, x, exact=independent(ppca, x, 400), seed=7)
    for scores in (
        found.difference / found.difference_error,
        (found.scale_ratio - 1) / found.scale_ratio_error,
    ):
        assert 0.85 < scores[:, :3].std() < 1.1
        assert scores[:, :3].mean().abs() < 0.2
    for level in (0.05, 0.2):  # a little less often, by the effective sample size
        share = (found.p_value < level).double().mean()
        assert 0.4 * level < share < level + 0.02
    assert found.agrees


def test_wrong_correlations_are_seen_in_the_density(float64: None) -> None:
    ppca = PPCA()
    x = ppca.x[:2]

    def mean_field(x: Tensor) -> None:
        exact = ppca.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(exact.mean, exact.stddev).to_event(1))

    found = pv.agreement(ppca.model, mean_field, x, exact=independent(ppca, x, 4000))
    assert found.rejected.tolist() == [[False] * 3 + [True]] * 2
    assert repr(found).startswith("q(z|x) differs from NUTS on 2 of 2 data: log p(x, z) on datum ")
    covariance = ppca.posterior(x).covariance_matrix
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    expected = covariance / scale[..., None] / scale[:, None]
    torch.testing.assert_close(found.exact_correlation, expected, rtol=0, atol=4 / math.sqrt(4000))
    torch.testing.assert_close(
        found.guide_correlation, torch.eye(L).expand(2, L, L), rtol=0, atol=4 / math.sqrt(4000)
    )
    assert found.p_value.dtype == torch.float64 and (found.distance >= 0).all()
    shape = stats.ks_2samp(found.exact.u[:, 1, 2], found.guide_u[:, 1, 2])
    assert found.distance[1, 2].item() == pytest.approx(shape.statistic)


def test_nuts_on_constrained_sites(float64: None) -> None:
    x = torch.tensor([[2.0, 0.0, 4.0]])
    found = pv.exact_posterior(counts, x, num_samples=200, warmup=100)
    rate, shares = found.values["rate"], found.values["shares"]
    assert rate.shape == (400, 1) and shares.shape == (400, 1, 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones(400, 1))
    ess = found.effective_sample_size.min()
    assert ess > 75
    for draws, exact in (
        (rate, dist.Gamma(9.0, 1.5)),
        (shares, dist.Dirichlet(torch.tensor([3.0, 2.0, 7.0]))),
    ):
        error = exact.variance.sqrt() / ess.sqrt()
        assert ((draws.mean(0) - exact.mean).abs() < 4 * error).all()
        assert draws.std(0).flatten() == pytest.approx(
            exact.variance.sqrt().flatten(), rel=4 / math.sqrt(ess)
        )
    assert pv.agreement(counts, counts_guide, x, exact=found).agrees
    narrow = pv.agreement(counts, lambda x: counts_guide(x, 4.0), x, exact=found)
    assert "rate on datum 0 too narrow" in repr(narrow)


def test_nuts_leaves_parameters_store_and_random_numbers() -> None:
    vae = pv.assemble(pv.Digits(), latent_dim=2)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    other = pv.assemble(pv.Digits(), latent_dim=2)
    x = pv.Digits().test.batch()[:1]
    other.model(x)
    own = pyro.param("own", torch.tensor(2.0), constraint=dist.constraints.positive)
    store = pyro.get_param_store()
    held = dict(store._params)

    def model(x: Tensor) -> None:
        pyro.param("never seen", torch.ones(3))
        with poutine.scale(scale=pyro.param("own") / pyro.param("own")):
            vae.model(x)

    state = torch.get_rng_state()
    first, again = (pv.exact_posterior(model, x, num_samples=20, warmup=20) for _ in range(2))
    pv.agreement(model, vae.guide, x, exact=first)
    pv.calibrate(model, vae.guide, like=x, num_data=20, num_draws=19)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.u, again.u)
    assert not torch.equal(first.u, pv.exact_posterior(model, x, num_samples=20, warmup=20, seed=1).u)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in vae.parameters())
    assert set(store._params) == set(held)
    assert all(store._params[name] is value for name, value in held.items())
    assert pyro.param("own").item() == own.item()
    assert not first.u.requires_grad


def test_a_program_that_is_no_flat_graph_gives_the_same_draws(float64: None) -> None:
    x = torch.tensor([0.4, -1.0])
    flat = pv.exact_posterior(line, x, num_samples=30, warmup=30)
    with mock.patch("pyro_vae.diagnosis.exact.FlatGraph", side_effect=Untraceable("decides")) as made:
        eager = pv.exact_posterior(line, x, num_samples=30, warmup=30)
    made.assert_called_once()
    assert torch.equal(flat.u, eager.u)


def test_what_nuts_cannot_do_is_refused() -> None:
    x = torch.zeros(2)
    with refused("num_samples expects four draws or more, got 3"):
        pv.exact_posterior(line, x, num_samples=3)
    with refused("num_chains expects a positive whole number, got 0"):
        pv.exact_posterior(line, x, num_chains=0)
    with refused("warmup expects a positive whole number, got 0"):
        pv.exact_posterior(line, x, warmup=0)
    with refused("target_acceptance expects a number between 0 and 1, got 1.0"):
        pv.exact_posterior(line, x, target_acceptance=1.0)
    with refused("seed expects a whole number"):
        pv.exact_posterior(line, x, seed=-1)

    def impossible(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Delta(x.expand(z.shape), log_density=z - math.inf), obs=x)

    with refused(r"a finite log p\(x, z\) at 2 of 40 draws from the prior to start from, got 0"):
        pv.exact_posterior(impossible, x, num_samples=10, warmup=10)


def test_rank_histograms_show_the_counts_of_the_worst(tmp_path: Path, float64: None) -> None:
    torch.manual_seed(0)
    ranks = torch.randint(20, (500, 14))
    ranks[:, 3] = ranks[:, 3] // 4
    found = _tested(ranks, tuple(f"z$_{number}$" for number in range(14)), 19, 20)
    figure = plots.rank_histograms(
        found.ranks,
        found.names,
        19,
        bins=20,
        p_values=found.p_value.tolist(),
        verdicts=found.verdicts,
        panels=5,
    )
    worst = sorted(found.p_value.argsort()[:5].tolist())
    assert 3 in worst
    assert [axes.get_title().split("\n")[0] for axes in figure.axes if axes.axison] == [
        f"z$_{number}$" for number in worst
    ]
    panel = figure.axes[worst.index(3)]
    assert panel.get_title().endswith("shifted upwards, p < 0.001")
    drawn = panel.patches[-1]
    assert isinstance(drawn, StepPatch)
    heights, edges, _ = drawn.get_data()
    assert heights.tolist() == np.bincount(ranks[:, 3], minlength=20).tolist()
    assert (edges[0], edges[-1]) == (-0.5, 19.5)
    label = figure.get_supxlabel()
    assert label == "rank of the truth among 19 draws from q(z|x) (the worst 5 of 14 quantities)"
    plots.save(figure, tmp_path / "ranks.png")


def test_contours_hold_their_mass_and_show_what_differs(tmp_path: Path) -> None:
    exact = torch.randn(2000, 3, 4)
    guide = torch.randn(2000, 3, 4)
    guide[..., 1] *= 3
    guide[..., 3] += 1
    names = [f"z[{number}]" for number in range(4)]
    figure = plots.posterior_contours(exact, guide, names, pictures=torch.rand(3, 1, 8, 8))
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("z[1]", "z[3]")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["datum 0", "datum 1", "datum 2"]
    lines = panels[0].collections[-1]
    for path, mass in zip(lines.get_paths(), (0.9, 0.5), strict=True):
        inside = path.contains_points(guide[:, 0][:, [1, 3]].numpy())
        assert inside.mean() == pytest.approx(mass, abs=0.04)
    plots.save(figure, tmp_path / "contours.png")
    chosen = plots.posterior_contours(exact[:, :1], guide[:, :1], names, axes=(2, 0), titles=["a $"])
    assert (chosen.get_supxlabel(), chosen.get_supylabel()) == ("z[2]", "z[0]")
    plots.save(chosen, tmp_path / "chosen.png")
    with refused("contours need two latent coordinates, got one"):
        plots.posterior_contours(exact[..., :1], guide[..., :1], names)
    with refused(r"axes expects two different numbers from 0 to 3, got \[1, 4\]"):
        plots.posterior_contours(exact, guide, names, axes=(1, 4))


def test_without_convergence_nothing_agrees(float64: None) -> None:
    """Two modes, each found by one chain: no p-value can tell, and the words say so."""

    def modes(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.abs(), 0.05), obs=x)

    def one_mode(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.05))

    x = torch.tensor([1.5])
    exact = pv.exact_posterior(modes, x, num_samples=60, warmup=60)
    exact = replace(exact, r_hat=torch.full_like(exact.r_hat, 3.0))
    found = pv.agreement(modes, one_mode, x, exact=exact)
    assert not found.agrees
    assert found.rejected.any() or repr(found).startswith("q(z|x) cannot be held against NUTS, which has not")
    equal = replace(found, p_value=torch.ones_like(found.p_value))
    assert repr(equal).startswith("q(z|x) cannot be held against NUTS, which has not converged: 120 draws")
    assert not equal.agrees
