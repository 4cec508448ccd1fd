"""Annealing until a gap, against closed forms, grids and independent draws."""

import json
import math
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from experiments.records import finished
from experiments.until_gap import run as experiment
from experiments.until_gap.cases import CASES, SPREADS
from experiments.until_gap.report import sections, summary
from pyro_vae.annealing.kernels import tune
from pyro_vae.annealing.planning import temperatures_for
from pyro_vae.programs import Latents
from tests.committed import assert_committed
from tests.components import refused
from tests.test_annealing import Stopped, densities, made, stopping_after
from tests.test_importance import PPCA

Program = Callable[..., Any]
FEW: dict[str, Any] = {"leapfrog_steps": 3, "num_simulated": 30, "compile": "flat"}


def many(ppca: PPCA, number: int) -> tuple[Tensor, Tensor]:
    """Data drawn from the model, and their log p(x)."""
    z = torch.randn(number, ppca.weight.shape[1])
    x = z @ ppca.weight.T + ppca.shift + ppca.sigma * torch.randn(number, ppca.weight.shape[0])
    covariance = ppca.weight @ ppca.weight.T + ppca.sigma**2 * torch.eye(x.shape[1])
    return x, dist.MultivariateNormal(ppca.shift, covariance).log_prob(x)


@pytest.mark.parametrize(("start", "widened"), [("prior", 1.0), ("guide", 3.0)])
def test_a_linear_gaussian_is_hit_and_the_rounds_say_how(start: Any, widened: float, float64: None) -> None:
    ppca = PPCA()
    x, exact = many(ppca, 60)
    result = pv.annealed_log_evidence(
        ppca.model, lambda x: ppca.guide(x, widened), x, start=start, until_gap=0.2, **FEW
    )
    search = result.search
    assert search is not None and search.reached and search.wanted == 0.2
    assert abs(result.mean - float(exact.mean())) < 0.2
    assert search.gap < 0.2 and abs(search.change) < 0.2
    *pilots, last = search.rounds
    assert last.counts and last.num_temperatures == result.num_temperatures
    assert last.mean == pytest.approx(result.mean) and last.num_data == 60
    assert pilots and not pilots[-1].counts
    assert last.change == pytest.approx(last.mean - pilots[-1].mean)  # all of them were in the pilot
    ratios = [b.num_temperatures / a.num_temperatures for a, b in zip(pilots, search.rounds[1:], strict=True)]
    assert all(1.2 <= ratio <= 2.6 for ratio in ratios)
    assert search.gradients == sum(each.gradients for each in search.rounds)


def test_the_gradients_of_a_round_are_those_taken(float64: None) -> None:
    """Counted by the calls of a model that is run as it is."""
    ppca, calls = PPCA(), 0

    def counted(x: Tensor) -> None:
        nonlocal calls
        calls += torch.is_grad_enabled()
        ppca.model(x)

    result = pv.annealed_log_evidence(
        counted, ppca.guide, ppca.x, start="guide", until_gap=1.0, num_chains=2, num_simulated=7,
        leapfrog_steps=2, compile="off",
    )  # fmt: skip
    assert result.search is not None
    # apart from one at the start of each run and pilot, and the checks of programs
    assert 0 <= calls - result.search.gradients / (2 * 7) < 40 < calls / 10


def test_from_the_exact_posterior_it_ends_at_once(float64: None) -> None:
    ppca = PPCA()
    result = pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, start="guide", until_gap=0.01, **FEW)
    assert result.search is not None and result.search.reached and len(result.search.rounds) == 2
    torch.testing.assert_close(result.estimate, ppca.evidence(), rtol=0, atol=1e-9)
    assert result.barrier is not None and float(result.barrier.max()) < 1e-6


def mixture(x: Tensor) -> None:
    """z from two normals far apart; x = |z| + noise has a posterior with a mode in each."""
    with pyro.plate("data", len(x)):
        mixed = dist.Categorical(x.new_tensor([0.5, 0.5]))
        z = pyro.sample("z", dist.MixtureSameFamily(mixed, dist.Normal(x.new_tensor([-6.0, 6.0]), 1.0)))
        pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=x)


def one_mode(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 0.3))


def both_modes(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        mixed = dist.Categorical(x.new_ones(len(x), 2) / 2)
        pyro.sample("z", dist.MixtureSameFamily(mixed, dist.Normal(torch.stack([-x, x], -1), 0.4)))


def mixture_evidence(x: Tensor) -> Tensor:
    z = torch.linspace(-14, 14, 20_001)
    prior = torch.stack([dist.Normal(m, 1.0).log_prob(z) for m in (-6.0, 6.0)]).logsumexp(0) - math.log(2)
    joint = prior + dist.Normal(z.abs(), 0.3).log_prob(x[:, None])
    return joint.logsumexp(1) + math.log(28 / 20_000)


def test_two_modes_are_hit_by_a_guide_that_has_them(float64: None) -> None:
    x = 6 + torch.randn(40)
    result = pv.annealed_log_evidence(mixture, both_modes, x, start="guide", until_gap=0.2, **FEW)
    assert result.search is not None and result.search.reached
    assert abs(result.mean - float(mixture_evidence(x).mean())) < 0.2


def test_a_mode_that_the_guide_misses_keeps_the_gap_open(float64: None) -> None:
    """The estimates agree round by round, at log 2 too low; the exact draws of simulated data tell."""
    x = 6 + torch.randn(50)
    with pytest.warns(UserWarning, match=r"until_gap=0.1 was not reached with 64 temperatures, the most: "):
        result = pv.annealed_log_evidence(
            mixture, one_mode, x, start="guide", until_gap=0.1, num_temperatures=64, **FEW
        )
    search = result.search
    assert search is not None and not search.reached
    assert abs(search.change) < 0.1 < 0.5 < search.gap
    assert result.num_temperatures == 64
    assert result.mean == pytest.approx(float(mixture_evidence(x).mean()) - math.log(2), abs=0.1)


def test_conditions_go_with_their_data(float64: None) -> None:
    """x = z + 3 label + noise: data in several batches, half of them at another place."""

    def model(x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + 3 * label, 0.4), obs=x)

    def guide(x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 3 * label) / 2, 0.6))

    label = (torch.arange(60) % 2).double()
    x = 3 * label + math.sqrt(1.16) * torch.randn(60)
    exact = dist.Normal(3 * label, math.sqrt(1.16)).log_prob(x)
    result = pv.annealed_log_evidence(
        model, guide, x, given={"label": label}, until_gap=0.2, rows=16 * 35, **FEW
    )
    assert result.search is not None and result.search.reached
    assert abs(result.mean - float(exact.mean())) < 0.2
    assert float((result.estimate - exact).std()) < 0.5 < float(exact.std())


def test_the_barrier_of_a_normal_is_its_closed_form(float64: None) -> None:
    """x = z + s ε: the log ratio −(x − z)²/2s² has at β a variance that is known, z being normal there."""
    s = 0.2
    x = torch.tensor([0.0, 1.5])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, s), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    beta = torch.linspace(0, 1, 200_001)[:, None] ** 3
    precision = 1 + beta / s**2
    shift, variance = x - x * beta / s**2 / precision, 1 / precision
    deviation = ((2 * variance**2 + 4 * shift**2 * variance) / (4 * s**4)).sqrt()
    exact = torch.trapezoid(deviation, beta.expand_as(deviation), dim=0)
    path = densities(Latents(model, guide, pv.Batch(x)), x, num_chains=600)
    found = tune(path, made(num_chains=600, num_temperatures=2000, schedule="adaptive", leapfrog_steps=3))
    torch.testing.assert_close(found.barrier, exact, rtol=0.05, atol=0)


def test_the_temperatures_that_a_gap_takes() -> None:
    """Of log-normal weights with variance barrier²/T, as drawn: gap and errors are what was asked for."""
    squared = torch.tensor([20.0, 60.0], dtype=torch.float64)
    number = temperatures_for(0.1, squared, num_chains=16, num_data=1000, num_simulated=1000)
    assert number == temperatures_for(0.1, squared, num_chains=16, num_data=1000, num_simulated=1000)
    generator = torch.Generator().manual_seed(0)

    def bounds(temperatures: float) -> tuple[float, float]:
        s = (squared / temperatures).sqrt()
        noise = torch.randn(16, 20_000, 2, generator=generator, dtype=torch.float64)
        lower = (s * noise - s**2 / 2).logsumexp(0) - math.log(16)
        return 2 * -float(lower.mean()), float((2 * lower.var(0).mean() / 1000).sqrt())

    gap, error = bounds(number)
    assert 0.08 < gap + error < 0.102
    assert sum(bounds(number / 1.4)) > 0.11
    few = temperatures_for(0.1, squared, num_chains=16, num_data=10, num_simulated=10)
    assert few > 2 * number
    assert temperatures_for(0.1, squared, num_chains=64, num_data=1000, num_simulated=1000) < number
    assert temperatures_for(0.1, squared * 0, num_chains=2, num_data=1, num_simulated=1) == 1


def test_what_the_pilots_choose_makes_no_bias(float64: None) -> None:
    """The mean of p̂/p over copies of one datum is 1 within its error, the gap being far from closed."""
    ppca = PPCA()
    x = ppca.x[:1].expand(1000, -1).contiguous()
    result = pv.annealed_log_evidence(
        ppca.model, lambda x: ppca.guide(x, 2.0), x, num_chains=2, until_gap=0.8, rows=2000, **FEW
    )
    assert result.search is not None and result.search.attempts == 1
    ratio = (result.estimate - ppca.evidence()[0]).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(1000)
    assert float(ratio.std()) > 0.1


def test_each_further_attempt_halves_the_probability_of_the_certificate(
    float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that foresees far too few temperatures: the chains that count miss, and are run anew."""
    monkeypatch.setattr("pyro_vae.annealing.search.temperatures_for", lambda *_, **__: 1)
    ppca = PPCA()
    ppca.sigma = 0.1
    x, exact = many(ppca, 50)
    result = pv.annealed_log_evidence(
        ppca.model, ppca.guide, x, until_gap=0.3, leapfrog_steps=4, num_chains=8, num_simulated=0
    )
    search = result.search
    assert search is not None and search.reached and math.isnan(search.gap)
    counted = [each for each in search.rounds if each.counts]
    assert search.attempts == len(counted) >= 2
    assert all(abs(each.change) > 0.3 for each in counted[:-1]) and abs(search.change) <= 0.3
    loss = math.log(2**search.attempts * 3 / 0.05) / 50
    assert result.certificate(0.05, shared_by=3) == pytest.approx(result.mean - loss, abs=1e-12)
    assert result.certificate() < float(exact.mean())
    fixed = pv.annealed_log_evidence(ppca.model, ppca.guide, x, num_temperatures=5)
    assert fixed.search is None
    assert fixed.certificate(0.05) == pytest.approx(fixed.mean - math.log(20) / 50, abs=1e-12)


def test_a_search_that_was_stopped_goes_on_to_the_same_numbers(
    tmp_path: Path, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pilots, on simulated data, and in the chains that count."""
    monkeypatch.setattr("pyro_vae.storage.resumable.Resumable.interval", 0.1)
    ppca, path = PPCA(), tmp_path / "search.pt"

    def searched(model: Program, checkpoint: Path | None, gap: float = 2.0) -> pv.AnnealedEvidence:
        torch.manual_seed(1)
        return pv.annealed_log_evidence(
            model, lambda x: ppca.guide(x, 2.0), ppca.x[:2], until_gap=gap, num_chains=2, leapfrog_steps=1,
            num_simulated=3, rows=4, compile="off", start="guide", checkpoint=checkpoint,
        )  # fmt: skip

    whole, calls = searched(ppca.model, None), 200
    stops = 0
    while True:
        try:
            found = searched(stopping_after(ppca.model, calls), path)
            break
        except Stopped:
            stops += 1
            assert path.exists()
    assert stops >= 3 and not path.exists()
    assert torch.equal(found.estimate, whole.estimate)
    assert found.search is not None and whole.search is not None
    assert repr(found.search) == repr(whole.search) and found.search.rounds == whole.search.rounds
    with pytest.raises(Stopped):
        searched(stopping_after(ppca.model, calls), path)
    with refused("was made with until_gap 2.0, got 0.4: go on with the same settings"):
        searched(ppca.model, path, 0.4)


def test_options_that_mean_nothing_are_refused() -> None:
    ppca = PPCA()

    def searched(**options: Any) -> pv.AnnealedEvidence:
        return pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, **options)

    for gap in (0, -1.0, True, math.nan, math.inf, "0.1"):
        with refused(f"until_gap expects a positive number of nats, got {gap}: 0.05 is usual"):
            searched(until_gap=gap)
    with refused("until_gap expects num_temperatures, the most, of 32 at least, got 31"):
        searched(until_gap=0.1, num_temperatures=31)
    with refused("until_gap expects 2 chains at least, got 1"):
        searched(until_gap=0.1, num_chains=1)
    with refused("until_gap places the temperatures itself, got schedule 'linear': leave it out"):
        searched(until_gap=0.1, schedule="linear")
    with refused("num_simulated is an option of until_gap, got 5: leave it out"):
        searched(num_simulated=5)
    with refused("num_simulated expects a positive whole number, or 0 for none, got -1"):
        searched(until_gap=0.1, num_simulated=-1)


def test_a_model_that_cannot_be_drawn_from_is_judged_by_its_data_alone_where_asked(float64: None) -> None:
    ppca = PPCA()

    def changed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            mean = z @ ppca.weight.T + ppca.shift
            pyro.sample("x", dist.Normal(2 * mean, 2 * ppca.sigma).to_event(1), obs=2 * x)

    with refused(
        "changes it at the site 'x'.*; num_simulated=0 .--simulated 0. goes by the change on these data alone"
    ):
        pv.annealed_log_evidence(changed, ppca.guide, ppca.x, until_gap=0.2, start="guide")
    found = pv.annealed_log_evidence(
        changed, ppca.guide, ppca.x, until_gap=0.2, start="guide", num_simulated=0
    )
    assert found.search is not None and found.search.reached and math.isnan(found.search.gap)
    assert "no gap on simulated data" in repr(found)
    torch.testing.assert_close(found.estimate, ppca.evidence() - 5 * math.log(2), rtol=0, atol=1e-6)


def test_a_maximum_ends_the_rounds_with_what_it_would_take(float64: None) -> None:
    ppca = PPCA()
    x, exact = many(ppca, 60)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = pv.annealed_log_evidence(
            ppca.model, ppca.guide, x, until_gap=0.01, num_temperatures=40, **FEW
        )
    (said,) = [str(each.message) for each in caught if "until_gap" in str(each.message)]
    search = result.search
    assert search is not None and not search.reached and result.num_temperatures == 40
    assert f"a gap of {search.gap:.3f} ± {search.gap_error:.3f} on simulated data" in said
    assert f"a change of {search.change:+.3f} on these" in said
    assert "\n" not in said and "num_temperatures=" in said
    assert search.needed > 400 and f"it takes about {search.needed} temperatures" in said
    assert result.certificate() < float(exact.mean())


@pytest.mark.parametrize("name", CASES)
def test_the_known_answers_of_the_experiment(name: str, float64: None) -> None:
    case = CASES[name]()
    x = case.draw(5)
    found = pv.log_evidence(case.model, case.guide, x, num_particles=4000)
    assert ((found.estimate - case.evidence(x)).abs() < 5 * found.standard_error + 1e-6).all()
    assert float(found.standard_error.median()) < 0.2


def test_the_experiment_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert experiment.main(["--smoke", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("| model, start | spread |")
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.jsonl", "summary.json", "cost.png"}
    assert json.loads((tmp_path / "summary.json").read_text())["pairs"] == 1
    assert torch.get_default_dtype() == torch.float32


def test_the_experiment_shows_its_committed_results() -> None:
    records = finished(experiment.HERE / "results" / "pairs.jsonl")
    assert list(records) == [f"{name}, {spread}" for name, spread in product(CASES, SPREADS)]
    gap = records["wave, prior, 1.0"]["about"]["gap"]
    found = summary(records, gap)
    assert_committed(experiment.HERE, sections(records, gap), found)
    assert found["hits"] >= 19
