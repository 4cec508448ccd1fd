"""Rate, distortion and mutual information by annealing, against closed forms of a linear-Gaussian model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.annealing.chains import anneal, begin
from pyro_vae.annealing.kernels import tune
from pyro_vae.annealing.rate_distortion import look_at, recorded_steps
from pyro_vae.programs import Latents
from tests.test_annealing import densities, made, wide
from tests.test_importance import PPCA


def closed(ppca: PPCA, x: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Distortion and rate of N(m, S) ∝ p(z) p(x|z)^β: (B,) each."""
    weight, variance = ppca.weight, ppca.sigma**2
    covariance = torch.linalg.inv(torch.eye(3) + beta * weight.T @ weight / variance)
    mean = beta * (x - ppca.shift) @ weight / variance @ covariance
    squares = (x - ppca.shift - mean @ weight.T).square().sum(-1) + (weight @ covariance @ weight.T).trace()
    distortion = 5 / 2 * math.log(2 * math.pi * variance) + squares / (2 * variance)
    rate = (covariance.trace() + mean.square().sum(-1) - 3 - covariance.logdet()) / 2
    return distortion, rate


def information(ppca: PPCA) -> float:
    """I(x; z) = log |I + W Wᵀ / σ²| / 2."""
    return float((torch.eye(5) + ppca.weight @ ppca.weight.T / ppca.sigma**2).logdet() / 2)


@pytest.mark.parametrize(("name", "rows"), [("sigmoid", None), ("adaptive", 400)])
def test_the_curve_against_its_closed_form(name: Any, rows: int | None, float64: None) -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(
        ppca.model, wide(ppca), ppca.x, num_chains=100, num_temperatures=60, schedule=name, rows=rows
    )
    found = result.rate_distortion
    assert found is not None
    assert found.betas.shape == (61,) and found.rate.shape == (61, 7)
    assert found.betas[0] == 0 and found.betas[-1] == 1 and (found.betas.diff() > 0).all()
    exact = [closed(ppca, ppca.x, beta) for beta in found.betas]
    distortion, rate = (torch.stack(parts) for parts in zip(*exact, strict=True))
    # of an adaptive schedule, interpolated between temperatures that lie a little apart
    slack = 0.0 if name == "sigmoid" else 0.05
    for own, error, expected in (
        (found.distortion, found.distortion_error, distortion),
        (found.rate, found.rate_error, rate),
    ):
        away = (own - expected).abs()
        assert (away[1:] <= 4.5 * error[1:] + slack * expected[1:].abs()).double().mean() > 0.995
    assert (found.rate[0] == 0).all()
    errors = found.mean_monte_carlo_errors
    assert abs(found.mean_rate[-1] - rate[-1].mean()) < 4 * errors[1][-1] < 0.4
    torch.testing.assert_close(found.distortion[-1] + found.rate[-1], -result.estimate)


def test_the_rate_at_a_distortion(float64: None) -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(ppca.model, wide(ppca), ppca.x, num_chains=60, num_temperatures=60)
    found = result.rate_distortion
    assert found is not None
    for beta in (0.2, 0.7):
        distortion, rate = closed(ppca, ppca.x, torch.tensor(beta))
        assert found.rate_at(float(distortion.mean())) == pytest.approx(float(rate.mean()), abs=0.3)
    assert found.rate_at(1e9) == 0
    assert math.isnan(found.rate_at(float(found.mean_distortion[-1]) - 1))
    assert repr(found).startswith(f"rate {float(found.mean_rate[-1]):.3f} and distortion ")
    figure = plots.rate_distortion(found.mean_distortion, found.mean_rate, guide=(8.0, 4.0))
    curve = figure.axes[0].lines[0]
    assert np.asarray(curve.get_ydata(), dtype=float)[-1] == pytest.approx(float(found.mean_rate[-1]))
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels[-1] == "distortion + rate = 12.00 = −ELBO"


def test_looking_changes_no_chain(float64: None) -> None:
    ppca = PPCA()
    latents = Latents(ppca.model, wide(ppca), pv.Batch(ppca.x))
    path, options = densities(latents, ppca.x), made(num_temperatures=9)
    kernels, u = tune(path, options), path.draw(2)
    runs = []
    for looks in (0, len(recorded_steps(9))):
        torch.manual_seed(1)
        runs.append(anneal(path, kernels, begin(u, looks)))
    assert torch.equal(runs[0].log_weights, runs[1].log_weights) and torch.equal(runs[0].u, runs[1].u)
    assert len(runs[0].record) == 0 and runs[1].record.shape == (10, 5, 7)


def test_few_or_many_temperatures_and_other_starts(float64: None) -> None:
    assert recorded_steps(1) == [0, 1] and recorded_steps(3) == [0, 1, 2, 3]
    many = recorded_steps(10_000)
    assert len(many) == 101 and (many[0], many[1], many[-1]) == (0, 100, 10_000)
    ppca = PPCA()
    one = pv.annealed_log_evidence(ppca.model, wide(ppca), ppca.x, num_chains=5, num_temperatures=1)
    assert one.rate_distortion is not None and one.rate_distortion.betas.tolist() == [0, 1]
    guide = pv.annealed_log_evidence(
        ppca.model, wide(ppca), ppca.x, num_chains=2, num_temperatures=2, start="guide"
    )
    assert guide.rate_distortion is None


def test_a_likelihood_of_zero_counts_nowhere_above_the_prior() -> None:
    log_px = torch.tensor([[-1.0], [-torch.inf], [-3.0]])
    beta = torch.full((1,), 0.5)
    found = look_at(beta, 0.5 * log_px.double(), log_px)[:, 0]
    share = torch.tensor([-0.5, -1.5]).double().softmax(0)
    assert found[1] == pytest.approx(float(share @ torch.tensor([1.0, 3.0]).double()))
    assert found.isfinite().all()
    assert look_at(torch.zeros(1), torch.zeros(3, 1).double(), log_px)[1, 0] == torch.inf


def test_a_run_that_goes_on_has_the_same_curve(tmp_path: Path, float64: None) -> None:
    ppca, file = PPCA(), tmp_path / "state.pt"
    model, calls = ppca.model, [0]

    def stopping(x: Tensor) -> None:
        calls[0] += 1
        if calls[0] == limit:
            raise KeyboardInterrupt
        model(x)

    def run(program: Any, checkpoint: Path | None) -> pv.AnnealedEvidence:
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "num_chains": 4,
            "num_temperatures": 6,
            "leapfrog_steps": 3,
            "compile": "off",
        }
        return pv.annealed_log_evidence(program, wide(ppca), ppca.x, checkpoint=checkpoint, **options)

    limit = 0
    whole = run(stopping, None)
    limit, calls[0] = calls[0] - 6, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_vae.storage.resumable.Resumable.interval", 0.0, raising=False)
        with pytest.raises(KeyboardInterrupt):
            run(stopping, file)
        assert file.exists()
        limit, calls[0] = 0, 0
        again = run(stopping, file)
    assert whole.rate_distortion is not None and again.rate_distortion is not None
    assert torch.equal(whole.estimate, again.estimate)
    assert torch.equal(whole.rate_distortion.rate, again.rate_distortion.rate)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_bounds_of_the_information(start: Any, float64: None) -> None:
    ppca = PPCA()
    gap = pv.bidirectional_gap(
        ppca.model, wide(ppca), 150, like=ppca.x, num_chains=8, num_temperatures=60, start=start
    )
    found, exact = gap.information, information(ppca)
    for mean, error in zip((found.mean_lower, found.mean_upper), found.standard_errors, strict=True):
        assert abs(mean - exact) < 3 * error < 0.6
    torch.testing.assert_close(found.upper - found.lower, gap.gap)
    # with the exact log p(x) of each datum, both bounds are right but for the gap
    covariance = ppca.weight @ ppca.weight.T + ppca.sigma**2 * torch.eye(5)
    log_px = torch.distributions.MultivariateNormal(ppca.shift, covariance).log_prob(gap.x)
    each = gap.log_likelihood - log_px
    assert (found.lower - each).mean() < 0.05 and (found.upper - each).mean() > -0.05
    assert repr(found).startswith(f"I(x; z) of the model is at least {found.mean_lower:.3f} ± ")


def simulated(ppca: PPCA, number: int) -> Tensor:
    z = torch.randn(number, 3)
    return z @ ppca.weight.T + ppca.shift + ppca.sigma * torch.randn(number, 5)


def test_the_split_of_the_rate_does_not_end_at_the_logarithm_of_the_number(float64: None) -> None:
    """8 data of the model: their codes tell at most log 8 = 2.08 nats, I(x; z) is 3.15."""
    ppca = PPCA()
    x, exact = simulated(ppca, 8), information(ppca)
    options: dict[str, Any] = {"num_steps": 5, "num_particles": 50}
    bounds = pv.bidirectional_gap(
        ppca.model, ppca.guide, 200, like=x, num_chains=4, num_temperatures=5, start="guide"
    ).information
    alone = pv.diagnose(ppca.model, ppca.guide, x, **options)
    assert alone.mutual_information.mean < math.log(8) and "near its limit" in alone.verdict
    rate = alone.rate.mean
    assert rate > math.log(8) + 0.5  # more than the codes of 8 data can tell
    found = pv.diagnose(ppca.model, ppca.guide, x, bounds=bounds, **options)
    assert found.mutual_information.mean == bounds.mean_lower
    assert abs(found.mutual_information.mean - exact) < 3 * found.mutual_information.standard_error < 0.6
    assert found.marginal_kl.mean == pytest.approx(found.rate.mean - bounds.mean_lower)
    losses = found.distortion.mean + found.mutual_information.mean + found.marginal_kl.mean
    assert found.elbo.mean == pytest.approx(-losses)
    assert "The mutual information is the lower bound of the model's" in found.verdict
    assert f"I of the model's data, at most {bounds.mean_upper:.2f}; of these at most 2.08" in repr(found)
    content = found.content()["information_bounds"]
    assert content == {
        "lower": bounds.mean_lower,
        "upper": bounds.mean_upper,
        "num_data": 200,
        "used": True,
    }


def test_bounds_that_say_less_change_nothing(float64: None) -> None:
    ppca = PPCA()
    x = simulated(ppca, 8)
    options: dict[str, Any] = {"num_steps": 2, "num_particles": 20}
    for value in (0.5, 99.0):  # below that of the data, and above the rate
        bounds = pv.InformationBounds(torch.full((9,), value), torch.full((9,), value + 0.1))
        found = pv.diagnose(ppca.model, ppca.guide, x, bounds=bounds, **options)
        assert found.mutual_information.mean == found.information.mean
        assert not found.content()["information_bounds"]["used"]
        assert "which is not between it and the rate" in found.verdict
