"""What a report says of its numbers, for any joint program."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import reports
from pyro_vae.importance import BoundCurve
from pyro_vae.reports.estimators import tails
from pyro_vae.reports.tables import belief, draws_in_words
from tests.components import DISCRETE, LIKELIHOODS, data_for, vae

NAN = math.nan


class Annotated(pv.VAE):
    """A VAE whose model notes a number and weights its data."""

    def model(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with pyro.plate("more", x.shape[0], dim=-1):
            pyro.deterministic("brightness", x.flatten(1).mean(-1))
            pyro.factor("weight", torch.zeros(len(x)))
        return super().model(x)


class Labelled(pv.VAE):
    """A VAE that observes a real number beside its data."""

    def model(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with pyro.plate("more", x.shape[0], dim=-1):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=x.flatten(1).mean(-1))
        return super().model(x)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_is_observed_tells_a_mass_from_a_density(name: str) -> None:
    parts = vae(likelihood=name)
    x = data_for(name)
    state = torch.get_rng_state()
    assert reports.is_mass(parts, x) == (name in DISCRETE)
    assert torch.equal(torch.get_rng_state(), state)
    annotated = Annotated(parts.prior, parts.likelihood, parts.posterior)
    assert reports.is_mass(annotated, x) == (name in DISCRETE)
    assert not reports.is_mass(Labelled(parts.prior, parts.likelihood, parts.posterior), x)


def test_bits_need_levels_or_bins() -> None:
    grey, dequantised, bits = (pv.Digits(form=form) for form in (pv.Levels(), pv.Dequantised(), pv.Dynamic()))
    assert reports.bits(grey, True, -64.0 * 2) == {"bits_per_dim": pytest.approx(2 / 0.6931471805599453)}
    assert reports.bits(dequantised, False, 0.0) == {"bits_per_dim": pytest.approx(4.087462841250339)}
    for data, mass in ((grey, False), (bits, True), (bits, False), (pv.Dataset(torch.rand(3, 2)), False)):
        assert reports.bits(data, mass, -1.0) == {}


@pytest.mark.parametrize(
    ("k", "words"),
    [
        ([0.2, 0.6, 0.1], "at most 0.7 for all 3 data (largest 0.60): no heavy tail in the draws made"),
        (
            [0.2, NAN, 0.7],
            "at most 0.7 for 2 of 3 data; unknown for 1 (largest 0.70): no heavy tail in the draws made",
        ),
        (
            [0.8, 0.2, math.inf],
            "above 0.7 for 2 of 3 data: their estimates are likely too low; try pyro-vae evaluate 'a run' "
            "--method local",
        ),
        (
            [0.71, NAN, NAN],
            "above 0.7 for 1 of 3 data; unknown for 2: their estimates are likely too low; try pyro-vae "
            "evaluate 'a run' --method local",
        ),
        (
            [NAN, NAN, NAN],
            "unknown: it takes 25 importance samples per datum, five of them above the rest",
        ),
    ],
)
def test_the_tail_of_the_weights_in_plain_words(k: list[float], words: str) -> None:
    three = torch.ones(3, dtype=torch.float64)
    curve = BoundCurve((1,), three[None])
    result = pv.LogEvidence(three, three, three, three, torch.tensor(k), torch.full((3,), 50), curve)
    found = reports.Estimator().evidence(result)
    assert found["particles"] == 50
    assert belief(found, tails(result), "a run") == {"k-hat": words}


def test_a_hint_names_a_command_and_its_cost() -> None:
    """By the time that this evaluation took: 20 µs a draw from the guide."""
    tail = {"reliable_up_to": 0.7, "above": 30, "unknown": 0, "largest": 2.0}
    found: dict[str, Any] = {"num_data": 100, "particles": 1000, "seconds": 2.0, "method": "importance"}
    words = "above 0.7 for 30 of 100 data: their estimates are likely too low; try "
    call = "pyro-vae evaluate run --method"
    assert belief(found, tail, "run")["k-hat"] == f"{words}{call} local (about 4 s for 100 data)"
    assert belief(found, tail, None)["k-hat"] == f'{words}method="local" (about 4 s for 100 data)'
    local = {**found, "seconds": 4.0, "method": "local"}
    cost = "(about 60 s for 30 data)"
    assert belief(local, tail, "run")["k-hat"] == f"{words}{call} auto --budget 60 {cost}"
    many = {**local, "num_data": 10_000, "seconds": 400.0}
    tail["above"] = 500
    assert belief(many, tail, "run")["k-hat"].endswith(
        f"try {call} auto --budget 200 --num_data 2000 (about 3 minutes for 100 data)"
    )


def test_both_methods_in_one_result_in_plain_words() -> None:
    three = torch.ones(3, dtype=torch.float64)
    annealed = torch.tensor([True, False, False])
    k = torch.tensor([NAN, 0.3, 0.4], dtype=torch.float64)
    result = pv.AutoEvidence(three, three, three, three, annealed, k, k, k, 1000, 8, 400)
    found = reports.Estimator("auto").evidence(result)
    assert draws_in_words(found) == (
        "2 by 1000 draws each from local proposals, 1 by 8 annealed chains each, 400 temperatures from the "
        "guide"
    )
    assert belief(found, tails(result), "a")["k-hat"].startswith("at most 0.7 for all the other 2 data (lar")
    assert found["at_least"] == {"bound": result.certificate(), "delta": 0.05}


def test_annealing_in_plain_words() -> None:
    three = torch.ones(3, dtype=torch.float64)
    result = pv.AnnealedEvidence(three, three, three, three, three * 0.6, 1, 200)
    estimator = reports.Estimator("annealed", chains=1, temperatures=200, start="guide")
    found = estimator.evidence(result)
    assert draws_in_words(found) == "1 annealed chain each, 200 temperatures from the guide"
    assert belief(found, tails(result), "a")["annealing"].startswith(
        "acceptance 0.60 (aimed at: 0.65); rises"
    )
    found["acceptance"] = NAN
    words = "one temperature has no transitions: importance sampling from its start"
    assert belief({**found, "start": "prior"}, None, "a") == {"annealing": words}
    from_guide = f"{words}; from q(z|x), so that it may miss what that misses"
    assert belief(found, None, "a") == {"annealing": from_guide}


def test_an_estimate_below_the_elbo_is_called_none() -> None:
    found = {
        "estimate": -5.0,
        "standard_error": 0.1,
        "monte_carlo_error": 0.1,
        "num_data": 3,
        "method": "annealed",
        "chains": 2,
        "temperatures": 1,
        "start": "prior",
        "acceptance": float("nan"),
        "certificate": {"gap": 20.0, "standard_error": float("nan"), "num_data": 1},
    }
    content = {
        "elbo": {"test": {"elbo": -4.0, "reconstruction": -3.0, "kl": 1.0, "num_data": 3}},
        "log_evidence": found,
        "pareto_k": None,
        "split": "test",
        "units": "nats per datum",
        "protocol": "none",
        "data_hash": "0",
        "seconds": 1.0,
        "device": "cpu",
    }
    words = reports.table(content, "run")
    assert "below the ELBO: too few draws or temperatures to be an estimate of log p(x)" in words
    assert "one temperature has no transitions: importance sampling from its start" in words
    assert "the bounds from below and above are 20.000 nats apart" in words
    assert "below the ELBO" not in reports.table(
        {**content, "log_evidence": {**found, "estimate": -3.9}}, "run"
    )
