"""Log p(x) by local proposals, and by annealing where a pilot finds none that is good."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_vae as pv
from pyro_vae.annealing.automatic import Annealing
from pyro_vae.storage.resumable import Resumable
from tests.components import refused
from tests.test_importance import PPCA, N
from tests.test_proposals import discrete, discrete_guide, narrow

#: A fit that leaves a narrow guide nearly as it is.
NONE: Any = {"proposal": pv.LocalProposal("guide", steps=1, draws=1), "num_chains": 8, "num_particles": 1000}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a transition of a datum takes a hundredth of a second."""
    monkeypatch.setattr(Annealing, "_seconds", lambda annealing, data: 0.01)


def test_data_without_a_good_proposal_are_annealed(float64: None, clock: None) -> None:
    """190 transitions of each fit 100 temperatures."""
    ppca = PPCA()
    found = pv.auto_log_evidence(ppca.model, narrow(ppca, 0.3), ppca.x, budget=0.01 * 191 * N, **NONE)
    where, number = found.annealed, int(found.annealed.sum())
    assert number > 3 and found.method.count("annealed") == number
    assert torch.equal(where, found.pilot_k > 0.7) and torch.equal(where, found.pareto_k.isnan())
    assert (found.acceptance[where] > 0.3).all() and found.num_temperatures >= 100
    error = (found.estimate - ppca.evidence()).abs()
    assert (error < 4 * found.standard_error + 0.1)[where].all()
    assert f"{number} by annealing (8 chains, {found.num_temperatures} temperatures)" in repr(found)
    assert found.certificate() == pytest.approx(found.mean - math.log(20) / N)


def test_a_budget_of_nats_anneals_all_that_need_it(float64: None) -> None:
    """As many temperatures as it takes, and a certificate that knows of the stopping."""
    ppca = PPCA()
    options = {**NONE, "num_particles": 500, "until_gap": 0.3}
    found = pv.auto_log_evidence(ppca.model, narrow(ppca, 0.3), ppca.x, **options)
    where = found.annealed
    assert torch.equal(where, ~(found.pilot_k <= 0.7)) and int(where.sum()) > 3
    assert found.search is not None and found.search.reached
    assert abs(float((found.estimate - ppca.evidence())[where].mean())) < 0.3
    loss = math.log(20 * 2**found.search.attempts) / N
    assert found.search.attempts > 0 and found.certificate() == pytest.approx(found.mean - loss)
    with refused("until_gap expects a positive number of nats, got -1: 0.05 is usual"):
        pv.auto_log_evidence(ppca.model, ppca.guide, ppca.x, until_gap=-1)


def test_a_good_proposal_is_drawn_from(float64: None) -> None:
    ppca = PPCA()
    found = pv.auto_log_evidence(ppca.model, lambda x: ppca.guide(x, 1.2), ppca.x, num_particles=2000)
    assert found.method == ["local"] * N and found.num_temperatures == 0
    assert found.acceptance.isnan().all() and (found.pareto_k < 0.7).all()
    assert ((found.estimate - ppca.evidence()).abs() < 4 * found.standard_error).all()


def test_a_budget_takes_the_worst_first_and_says_what_it_lacks(float64: None, clock: None) -> None:
    ppca = PPCA()
    budget = 0.01 * 191 * 3
    with pytest.warns(UserWarning, match="data should be annealed and are not, for which a budget") as caught:
        found = pv.auto_log_evidence(ppca.model, narrow(ppca, 0.3), ppca.x, budget=budget, **NONE)
    assert caught[0].filename == __file__
    assert int(found.annealed.sum()) == 3
    assert found.pilot_k[found.annealed].min() >= found.pilot_k[~found.annealed].max()
    assert torch.equal(found.pareto_k.isnan(), found.annealed)


def test_what_cannot_be_annealed_is_said(float64: None) -> None:
    ppca = PPCA()
    with refused("expected a guide with a continuous latent"):
        pv.auto_log_evidence(discrete, discrete_guide, torch.zeros(3))
    for budget in (-1, math.nan, math.inf, True):
        with refused(f"budget expects a number of seconds, got {budget}: 60 is a minute, 0 anneals none"):
            pv.auto_log_evidence(ppca.model, ppca.guide, ppca.x, budget=budget)


def test_an_interrupted_call_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: None
) -> None:
    monkeypatch.setattr("pyro_vae.annealing.automatic._FEWEST", 4)  # temperatures of 75 transitions
    monkeypatch.setattr("pyro_vae.annealing.kernels._FIRST", 5)
    keep, calls, path = Resumable.keep, 0, tmp_path / "auto.pt"
    options = {**NONE, "num_chains": 2, "rows": 2000, "budget": 0.01 * 75 * 2}
    ppca = PPCA()

    def measured(fail_at: int | None) -> pv.AutoEvidence:
        def counted(kept: Resumable, state: Any, *, now: bool = False) -> None:
            nonlocal calls
            calls += 1
            keep(kept, state, now=now or calls == fail_at)
            if calls == fail_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Resumable, "keep", counted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pv.auto_log_evidence(ppca.model, narrow(ppca, 0.3), ppca.x, checkpoint=path, **options)

    torch.manual_seed(5)
    expected = measured(None)
    assert 0 < int(expected.annealed.sum()) < N
    for fail_at in (12, calls - 4):  # in the draws, and in the chains
        calls = 0
        torch.manual_seed(5)
        with pytest.raises(KeyboardInterrupt):
            measured(fail_at)
        assert path.exists()
        torch.manual_seed(99)
        found = measured(None)
        for name in ("estimate", "standard_error", "pareto_k", "annealed", "acceptance"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=0, atol=0, equal_nan=True
            )
        assert list(tmp_path.iterdir()) == []
