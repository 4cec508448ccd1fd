"""The lower bound that assumes nothing about tails."""

import math
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.importance.results import OverData
from tests.components import refused
from tests.test_importance import PPCA, N
from tests.test_proposals import narrow


def parts(result: OverData, repeats: int) -> list[OverData]:
    """The results of repeats that were drawn side by side."""
    names = ("estimate", "standard_error", "effective_sample_size", "largest_share")
    columns = [getattr(result, name).reshape(repeats, -1) for name in names]
    return [OverData(*(column[number] for column in columns)) for number in range(repeats)]


def test_it_is_the_mean_less_the_logarithm_of_delta_over_the_data() -> None:
    three = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    result = OverData(three, three, three, three)
    assert result.certificate() == pytest.approx(3 - math.log(20) / 3, abs=1e-12)
    assert result.certificate(0.01) == pytest.approx(3 - math.log(100) / 3, abs=1e-12)
    assert result.certificate(0.01, shared_by=4) == pytest.approx(3 - math.log(400) / 3, abs=1e-12)
    lost = OverData(torch.tensor([1.0, -math.inf]), *[three[:2]] * 3)
    assert lost.certificate() == -math.inf
    for delta in (0, 1, 1.5, True, math.nan, "0.1"):
        with refused(f"delta expects a probability between 0 and 1, got {delta}: 0.05 is usual"):
            result.certificate(delta)  # type: ignore[arg-type]
    with refused("shared_by expects a positive whole number, got 0"):
        result.certificate(shared_by=0)


def test_it_holds_where_the_error_fails(float64: None) -> None:
    """1000 repeats with a guide so narrow that k̂ is above 1: the interval of ± misses the truth."""
    ppca, repeats = PPCA(), 1000
    x, exact = ppca.x.repeat(repeats, 1), ppca.evidence().mean().item()
    guide = narrow(ppca, 0.2, shift=0.5)
    assert pv.log_evidence(ppca.model, guide, ppca.x, num_particles=4000).pareto_k.mean() > 1
    result = pv.log_evidence(ppca.model, guide, x, num_particles=50, rows=20_000, compile="off")
    found = parts(result, repeats)
    inside = [abs(each.mean - exact) < 1.96 * each.mean_monte_carlo_error for each in found]
    assert sum(inside) < 0.6 * repeats
    for delta in (0.05, 0.5):
        assert sum(each.certificate(delta) <= exact for each in found) >= (1 - delta) * repeats


def test_it_cannot_be_better_without_an_assumption() -> None:
    """An estimate that is 22 p with probability 1/22, else 0: the bound is wrong in 4.5 % of repeats."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(x.new_full((), 1 / 22)))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_full((), 0.5)))
            pyro.sample("x", dist.Normal(torch.where(z == 1, 0.0, 100.0), 0.5), obs=x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = pv.log_evidence(model, guide, torch.zeros(20_000), num_particles=1, compile="off", rows=5000)
    exact = math.log(0.5) + dist.Normal(0.0, 0.5).log_prob(torch.tensor(0.0)).item()
    wrong = (result.estimate - math.log(20) > exact + 1e-6).double().mean().item()
    assert wrong == pytest.approx(1 / 22, abs=0.006) and wrong <= 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"until_standard_error": 0.1, "num_particles": 4000},
        {"proposal": pv.LocalProposal("guide", steps=20, draws=2), "num_particles": 4},
    ],
    ids=["until", "local after a pilot"],
)
def test_what_a_pilot_chooses_makes_no_bias(float64: None, options: dict[str, Any]) -> None:
    """The mean of p̂/p over copies of two data is 1, within its error."""
    ppca, copies = PPCA(), 400
    x = ppca.x[:2].repeat(copies, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*data have a Monte Carlo")
        result = pv.log_evidence(ppca.model, narrow(ppca, 0.7), x, rows=20_000, compile="off", **options)
    if "proposal" not in options:
        assert len(result.num_particles.unique()) > 1
    ratio = (result.estimate - ppca.evidence()[:2].repeat(copies)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=3 * ratio.std().item() / math.sqrt(len(ratio)))


def test_annealing_has_one(float64: None) -> None:
    ppca = PPCA()
    found = pv.annealed_log_evidence(ppca.model, ppca.guide, ppca.x, num_chains=4, num_temperatures=5)
    assert found.certificate(0.1) == pytest.approx(found.mean - math.log(10) / N)
