"""What other tools get: draws from p(z|x), by an exact answer, in ArviZ's form."""

import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from tests.components import refused


def model(x: Tensor, shift: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(shift + z[:, 0], 0.5), obs=x)


def guide(x: Tensor, shift: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.2).to_event(1))


X, SHIFT = torch.tensor([0.3, -0.5, 1.0, 0.0]), torch.tensor([0.0, 0.5, 1.0, -1.0])


@pytest.mark.filterwarnings("ignore:model. run on repeated data")
def test_draws_are_those_of_the_posterior_with_all_that_belongs_to_them() -> None:
    """A program by positive axes, whose posterior is normal: of mean 0.8 (x − s) and variance 0.2."""
    pytest.importorskip("arviz_base")
    pyro.set_rng_seed(0)
    tree: Any = pv.to_datatree(model, guide, X, given={"shift": SHIFT}, num_particles=4000, num_draws=2000)
    z = torch.from_numpy(tree["posterior"]["z"].values)
    assert z.shape == (1, 2000, 4, 2) and tree["posterior"]["z"].dims == ("chain", "draw", "datum", "z_dim_0")
    assert torch.allclose(z[0, ..., 0].mean(0), 0.8 * (X - SHIFT), atol=0.06)
    assert torch.allclose(z[0, ..., 0].var(0), torch.full((4,), 0.2), atol=0.04)
    assert torch.allclose(z[0, ..., 1].var(0), torch.ones(4), atol=0.12)
    exact = dist.Normal(SHIFT, 1.25**0.5).log_prob(X)
    evidence = tree["evidence_data"]
    assert torch.allclose(torch.from_numpy(evidence["log_evidence"].values).float(), exact, atol=0.06)
    assert evidence["pareto_k"].dims == ("datum",) and bool((evidence["pareto_k"] < 0.7).all())
    predicted = torch.from_numpy(tree["posterior_predictive"]["x"].values)[0]
    assert torch.allclose(predicted.mean(0), SHIFT + 0.8 * (X - SHIFT), atol=0.08)
    assert torch.allclose(predicted.var(0), torch.full((4,), 0.45), atol=0.08)
    likelihood = torch.from_numpy(tree["log_likelihood"]["x"].values)[0]
    expected = dist.Normal(SHIFT + z[0, ..., 0], 0.5).log_prob(X)
    torch.testing.assert_close(likelihood, expected)
    assert tree["observed_data"]["x"].values.tolist() == pytest.approx(X.tolist())
    assert tree["constant_data"]["shift"].values.tolist() == pytest.approx(SHIFT.tolist())


def test_pictures_of_a_vae() -> None:
    pytest.importorskip("arviz_base")
    data = pv.Digits(given=("label",))
    vae = pv.assemble(data, latent_dim=3, network=pv.MLP((5,)), condition="label")
    tree: Any = pv.to_datatree(
        vae.model, vae.guide, data.test.take(slice(0, 5)), num_particles=60, num_draws=7
    )
    assert tree["posterior"]["z"].shape == (1, 7, 5, 3)
    assert tree["posterior_predictive"]["x"].shape == (1, 7, 5, 1, 8, 8)
    assert tree["observed_data"]["x"].dims == ("datum", "x_dim_0", "x_dim_1", "x_dim_2")


def test_without_the_library_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with refused(r'expected arviz-base, which is not installed: pip install -e ".\[arviz\]", or pip install'):
        pv.to_datatree(model, guide, X, given={"shift": SHIFT})
