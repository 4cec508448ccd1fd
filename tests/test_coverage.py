"""Coverage with random points and the local test of q(z|x), on posteriors in closed form."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

import pyro_vae as pv
from experiments.calibration_tests import run as experiment
from experiments.calibration_tests.plants import PLANTS, Plant, correlation
from pyro_vae import plots
from pyro_vae.diagnosis import calibrate_and_cover
from pyro_vae.diagnosis.common import holm
from pyro_vae.diagnosis.coverage import _covered
from pyro_vae.diagnosis.references import REFERENCES, References
from pyro_vae.diagnosis.standardised import Features
from pyro_vae.programs import Latents
from pyro_vae.randomness import own_randomness
from tests.components import refused
from tests.test_calibration import counts, counts_guide, line, line_guide
from tests.test_importance import PPCA

EXACT = ["four modes, exact", "correlation, exact"]
WRONG = ["four modes, two missing", "correlation, none"]


def observed(plant: Plant, number: int, seed: int) -> Tensor:
    with own_randomness(seed, torch.device("cpu")):
        return plant.draw(number)


@pytest.mark.parametrize("name", WRONG)
def test_what_no_margin_shows_is_found(name: str) -> None:
    """In 12 of 12 trials, which has a probability below 5 % where the power is below 78 %.

    In `experiments/calibration_tests` there are 100.
    """
    plant = PLANTS[name]
    like, passed = observed(plant, 1, 0), 0
    for seed in range(12):
        margins, joint = calibrate_and_cover(
            plant.model, plant.guide, like, num_data=300, num_draws=19, seed=seed
        )
        passed += not any(holm(margins.p_value[:-1]))
        assert any(joint.rejected)
    assert passed >= 9  # of 12, in 99 % by chance


@pytest.mark.parametrize("name", WRONG)
def test_it_is_found_at_the_observed_data(name: str) -> None:
    plant = PLANTS[name]
    p_values = [
        pv.local_test(
            plant.model, plant.guide, observed(plant, 5, seed), num_data=600, num_null=99, seed=seed
        )
        for seed in range(3)
    ]
    assert sum(int(found.rejected.sum()) for found in p_values) == 15
    assert all(found.rejected_anywhere for found in p_values)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_guide_is_rejected_at_the_level(name: str) -> None:
    """40 times 100 data with the same points' rules, and 20 local tests at one x each."""
    plant = PLANTS[name]
    like = observed(plant, 1, 0)
    found = pv.tarp(plant.model, plant.guide, like, num_data=40 * 100, num_draws=19)
    repeats = [_covered(ranks, 19, found.bins) for ranks in found.ranks.split(100)]
    for number in range(3):
        p_values = [float(each.p_value[number]) for each in repeats]
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert sum(any(each.rejected) for each in repeats) <= 6  # of 40, in 99 % by chance
    local = torch.cat(
        [
            pv.local_test(
                plant.model, plant.guide, observed(plant, 1, seed), num_data=60, num_null=39, seed=seed
            ).p_value
            for seed in range(20)
        ]
    )
    assert (local <= 0.05).sum() <= 4  # of 20, in 99.7 % by chance
    assert stats.kstest(local, "uniform").pvalue > 0.01


def test_another_seed_learns_other_rules_and_the_null_holds() -> None:
    found = [
        pv.tarp(line, line_guide, torch.zeros(1), num_data=100, num_draws=19, seed=s) for s in range(20, 40)
    ]
    p_values = torch.stack([each.p_value for each in found])
    assert sum(any(each.rejected) for each in found) <= 3
    for number in range(3):
        assert stats.kstest(p_values[:, number], "uniform").pvalue > 0.005


def test_the_margins_beside_it_are_those_of_calibrate(float64: None) -> None:
    ppca, state = PPCA(), torch.get_rng_state()
    margins, joint = calibrate_and_cover(ppca.model, ppca.guide, ppca.x, num_data=200, num_draws=19, seed=3)
    alone = pv.calibrate(ppca.model, ppca.guide, like=ppca.x, num_data=200, num_draws=19, seed=3)
    assert torch.equal(margins.ranks, alone.ranks) and margins.names == alone.names
    assert torch.equal(margins.p_value, alone.p_value)
    again = calibrate_and_cover(ppca.model, ppca.guide, ppca.x, num_data=200, num_draws=19, seed=3)[1]
    assert torch.equal(joint.ranks, again.ranks)
    assert torch.equal(state, torch.get_rng_state())
    assert not any(joint.rejected) and repr(joint).startswith("q(z|x) is not rejected by any of 3 kinds")


def test_a_guide_that_ignores_x_is_seen_by_the_shift(float64: None) -> None:
    ppca = PPCA()

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    found = pv.tarp(ppca.model, prior, ppca.x, num_data=400, num_draws=39)
    assert found.rejected == (False, True, False)
    assert found.verdicts == ("not rejected", "too near", "not rejected")
    assert repr(found).startswith(
        "q(z|x) is rejected: too near by the shift (400 data drawn from the model, "
    )
    local = pv.local_test(ppca.model, prior, ppca.x, num_data=500, num_null=199)
    assert local.rejected_anywhere and local.rejected.sum() >= 5  # of 7, some near the mean of x


def test_the_rules_are_learned(float64: None) -> None:
    """The direction of the spread is that in which variances differ most; the shift goes to the truth."""
    plant = correlation(wrong=True)
    batch = pv.Batch(observed(plant, 200, 1))
    points = References(Latents(plant.model, plant.guide, batch), batch, 0)
    assert (points._direction.abs() - 3**-0.5).abs().max() < 0.15

    ppca = PPCA()

    def moved(x: Tensor) -> None:
        """Half a standard deviation off, to the side on which the first coordinate lies."""
        exact = ppca.posterior(x)
        with pyro.plate("data", len(x)):
            loc = exact.mean + 1.0 * exact.stddev * (x - ppca.shift)[..., :1].sign()
            pyro.sample("z", dist.MultivariateNormal(loc, exact.covariance_matrix))

    found = pv.tarp(ppca.model, moved, ppca.x, num_data=400, num_draws=39)
    assert found.verdicts[1] == "too near"


def test_distances_are_mean_squares_in_deviations_of_the_guide(float64: None) -> None:
    """Of a guide that has one mean and one spread, by hand: far points differ by a linear function of u."""
    plant = correlation(wrong=False, size=2)
    batch = pv.Batch(observed(plant, 50, 2))
    points = References(Latents(plant.model, plant.guide, batch), batch, 0)
    distances = points.of(batch)
    u = torch.randn(7, 50, 2)
    found, scaled = distances(u), distances(u + torch.tensor([1.0, 0.0]))
    assert found.shape == (7, 50, 3) and (found >= 0).all()
    # the second difference in u is the square of one unit in deviations, from whatever point
    curvature = distances(u + torch.tensor([2.0, 0.0])) - 2 * scaled + found
    scale = (1.0 / curvature).sqrt()
    torch.testing.assert_close(scale, scale[:1, :, :1].expand_as(scale))
    spread = plant.guide_covariance[0, 0].sqrt()
    assert abs(scale.mean() / spread - 1) < 0.1  # by 16 draws each


def test_constrained_sites_and_what_is_given() -> None:
    like = torch.zeros(1, 3)
    assert not any(pv.tarp(counts, counts_guide, like, num_data=200, num_draws=19).rejected)
    narrow = pv.tarp(counts, lambda x: counts_guide(x, 4.0), like, num_data=200, num_draws=19)
    assert narrow.verdicts[0] == "too far" and narrow.verdicts[2] in ("too narrow", "too far")

    def model(x: Tensor, offset: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + offset, 1.0), obs=x)

    def guide(x: Tensor, offset: Tensor, used: float = 1.0) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - used * offset) / 2, 0.5**0.5))

    offset = torch.linspace(-3, 3, 30)
    x, given = offset + 0.1, {"offset": offset}

    def blind(x: Tensor, offset: Tensor) -> None:
        guide(x, offset, 0.0)

    assert not any(pv.tarp(model, guide, x, given=given, num_data=300, num_draws=19).rejected)
    assert pv.tarp(model, blind, x, given=given, num_data=300, num_draws=19).rejected[1]
    far = pv.local_test(model, blind, x, given=given, num_data=400, num_null=99)
    assert far.rejected[[0, 1, -2, -1]].all()
    right = pv.local_test(model, guide, x, given=given, num_data=400, num_null=99)
    assert not right.rejected_anywhere


def test_a_local_fault_is_found_where_it_is() -> None:
    """A guide that is three times too narrow at x > 0 only."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = torch.where(x > 0, 1 / 3, 1.0) * 0.5**0.5
            pyro.sample("z", dist.Normal(x / 2, scale))

    x = torch.tensor([-3.0, -2.0, -1.5, 1.5, 2.0, 3.0])
    found = pv.local_test(line, guide, x, num_data=1000)
    assert found.rejected[3:].all()
    excess = found.statistic / found.null_mean
    assert excess[3:].min() > 3 * excess[:3].max()
    assert repr(found).startswith(f"q(z|x) is rejected at {int(found.rejected.sum())} of 6 data, each at 5 %")


def test_coverage_curves_of_known_ranks() -> None:
    ranks = torch.stack([torch.arange(20).repeat(50), torch.zeros(1000, dtype=torch.int64)], dim=1)
    found = _covered(torch.cat([ranks, torch.full((1000, 1), 19)], dim=1), 19, 20)
    masses, inside = found.curve()
    assert masses.shape == (21,) and inside.shape == (21, 3)
    torch.testing.assert_close(inside[:, 0], masses)
    assert inside[0].tolist() == [0, 0, 0] and inside[1:, 1].eq(1).all() and inside[:20, 2].eq(0).all()
    assert found.verdicts == ("not rejected", "too near", "too far")
    figure = picture(found)
    assert [axes.get_title() for axes in figure.axes][-1] == "coverage − mass of balls\naround points"
    lines = figure.axes[-1].lines
    assert [line.get_label() for line in lines[1:]] == list(REFERENCES)
    assert np.abs(np.asarray(lines[1].get_ydata(), dtype=float)).max() < 1e-9


def picture(found: pv.RandomCoverage) -> Figure:
    return plots.rank_histograms(
        found.ranks[:, :1],
        ["z"],
        19,
        bins=20,
        p_values=[0.5],
        verdicts=["calibrated"],
        coverage=found.curve(),
        points=REFERENCES,
    )


def test_features_are_standard_and_missing_entries_are_means(float64: None) -> None:
    blocks = [torch.randn(300, 3, 2) * torch.tensor([1.0, 50.0]), torch.ones(300, 1), torch.randn(300, 4)]
    blocks[0][:, 0, 0] = torch.nan
    features = Features(blocks, 4)
    found = features(blocks)
    assert found.shape == (300, 4)
    torch.testing.assert_close(found.T.cov(), torch.eye(4), rtol=0, atol=0.1)
    assert features([torch.full((1, 3, 2), 1e9), torch.ones(1, 1), torch.zeros(1, 4)]).abs().max() <= 4
    assert Features([torch.ones(9, 2)])([torch.ones(5, 2)]).shape == (5, 0)


def test_what_cannot_be_tested_is_refused() -> None:
    like = torch.zeros(1)
    with refused(r"num_draws \+ 1 expects a divisor from 4 to 20, .* got num_draws 100: take 119"):
        pv.tarp(line, line_guide, like, num_draws=100)
    with refused("num_data expects a number from 50 to 10000, got 20: take 1000 or 2000"):
        pv.local_test(line, line_guide, like, num_data=20)
    with refused("num_null expects 19 at least, so that a p-value can be 5 %, got 10: take 200"):
        pv.local_test(line, line_guide, like, num_null=10)
    with refused("num_draws expects a positive whole number, got 0"):
        pv.local_test(line, line_guide, like, num_draws=0)

    def broken(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = x.new_full((len(x),), math.nan if len(x) > 10 else 0.0)
            with pyro.validation_enabled(False):
                pyro.sample("z", dist.Normal(loc, 1.0, validate_args=False))

    tests: list[Any] = [pv.tarp, pv.local_test]
    for test in tests:
        with refused("expected numbers for z, got NaN on .* data"):
            test(line, broken, like)


def test_the_experiment_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment.main(["--smoke", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("| q(z\\|x) | trials |")
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {line["plant"] for line in lines} == set(PLANTS)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert all(summary[f"{plant.replace(', ', '_').replace(' ', '_')}_passed"] == 2 for plant in PLANTS)
