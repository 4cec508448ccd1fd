"""Squared error plus KL is a normal likelihood of one fixed scale: closed forms, and one command."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from experiments.records import finished
from experiments.squared_error_vae import run as experiment
from experiments.squared_error_vae.losses import (
    LOSSES,
    Loss,
    best_elbo,
    best_scale,
    constant,
    implied_scale,
)
from experiments.squared_error_vae.measures import (
    eigenvalues,
    learned_scale,
    linear_active,
    sample_spread,
    squared_error,
)
from experiments.squared_error_vae.report import sections, summary
from experiments.squared_error_vae.variants import VARIANTS
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent
B, D, L = 6, 9, 3


def vae_of(scale: float | str) -> pv.VAE:
    torch.manual_seed(0)
    network = pv.MLP((5,))
    likelihood = pv.NormalLikelihood(network.decoder(L, (D,)), (D,), scale=scale)  # type: ignore[arg-type]
    posterior = pv.DiagonalNormalPosterior(network.encoder((D,)), L)
    return pv.VAE(prior=pv.StandardNormalPrior(L), likelihood=likelihood, posterior=posterior).double()


def kl_of(vae: pv.VAE, x: Tensor) -> Tensor:
    """KL of each latent dimension in closed form, as the introductions have it: (B, L)."""
    q = vae.posterior(x).base_dist
    return 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()


def minus_elbo(vae: pv.VAE, x: Tensor, z: Tensor) -> Tensor:
    """Of the batch, with the closed KL and one draw z of each datum: a number."""
    return -vae.likelihood(z).log_prob(x).sum() + kl_of(vae, x).sum()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.text)
def test_each_loss_is_the_elbo_at_its_scale_up_to_a_factor_and_a_constant(loss: Loss) -> None:
    scale = loss.scale(B, D, L)
    vae = vae_of(scale)
    vae.likelihood.fixed_scale.fill_(scale)  # all digits of it, where float32 has seven
    x = torch.rand(B, D, dtype=torch.float64)
    z = vae.posterior(x).rsample()
    elbo = minus_elbo(vae, x, z)
    value = loss.value(x, vae.decode(z), kl_of(vae, x))
    parameters = list(vae.parameters())
    gradient = torch.autograd.grad(elbo, parameters, retain_graph=True)
    m = vae.likelihood(z).mean
    ours = torch.autograd.grad(loss.value(x, m, kl_of(vae, x)), parameters)
    factor = float(ours[0].flatten() @ gradient[0].flatten() / gradient[0].square().sum())
    for mine, theirs in zip(ours, gradient, strict=True):
        assert torch.allclose(mine, factor * theirs, rtol=1e-11, atol=1e-14)
    assert float(value.detach()) / factor + B * constant(scale, D) == pytest.approx(
        float(elbo.detach()), rel=1e-12
    )


def test_the_sum_of_squares_with_the_kl_is_minus_the_elbo_at_the_root_of_a_half() -> None:
    """‖x − m‖² + KL = −ELBO − D/2 log π, to the last digits of float64."""
    vae = vae_of(1.0)
    vae.likelihood.fixed_scale.fill_(math.sqrt(0.5))
    x = torch.rand(B, D, dtype=torch.float64)
    z = vae.posterior(x).sample()
    loss = (x - vae.decode(z)).square().sum() + kl_of(vae, x).sum()
    expected = minus_elbo(vae, x, z) - B * D / 2 * math.log(math.pi)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-13)
    assert constant(math.sqrt(0.5), D) == pytest.approx(D / 2 * math.log(math.pi), rel=1e-14)


def test_the_usual_scales() -> None:
    assert implied_scale(1, 1) == pytest.approx(1 / math.sqrt(2))
    assert implied_scale(0.5, 1) == 1
    assert implied_scale(1 / 784, 1) == pytest.approx(19.798989873223331)
    for scale in (0.1, 1.0, 3.0):
        assert implied_scale(1, 2 * scale**2) == pytest.approx(scale)  # β = 2 s²
    assert VARIANTS["mean"].scale == implied_scale(1 / 784, 1)
    assert VARIANTS["sum"].scale == implied_scale(1, 1)


def test_the_best_scale_is_the_root_mean_square_error() -> None:
    squares, kl = 3.7, 1.25
    s = torch.tensor(best_scale(squares, D), dtype=torch.float64, requires_grad=True)
    elbo = -squares / (2 * s**2) - D / 2 * (2 * math.pi * s**2).log() - kl
    highest, at = float(elbo.detach()), float(s.detach())
    assert highest == pytest.approx(best_elbo(squares, kl, D), rel=1e-14)
    first = torch.autograd.grad(elbo, s, create_graph=True)[0]
    assert float(first.detach()) == pytest.approx(0, abs=1e-12)
    assert float(torch.autograd.grad(first, s)[0]) < 0
    for other in (0.9 * at, 1.1 * at):
        assert -squares / (2 * other**2) - constant(other, D) - kl < highest


def test_a_learned_shared_scale_goes_to_it() -> None:
    """With everything else held, gradient ascent on log p(x|z) ends at s² = E‖x − m‖² / D."""
    vae = vae_of("shared")
    x, z = torch.rand(50, D, dtype=torch.float64), torch.randn(50, L, dtype=torch.float64)
    (raw,) = vae.likelihood.log_scale.parameters()
    optimiser = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-15)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -vae.likelihood(z).log_prob(x).mean()
        value.backward()
        return value

    for _ in range(3):
        optimiser.step(loss)
    expected = best_scale(squared_error(vae, x, z), D)
    assert float(vae.likelihood(z).stddev.detach().mean()) == pytest.approx(expected, rel=1e-6)
    assert learned_scale(vae, x) == pytest.approx(expected, abs=1e-5)


def test_spread_and_error_of_known_pictures() -> None:
    vae = vae_of(1.0)
    head = vae.likelihood.loc.layers[1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(0.5)
    found = sample_spread(vae, torch.full((D,), 0.2))
    assert found == pytest.approx({"spread": 0, "to_mean_image": 0.3}, abs=1e-7)
    x = torch.zeros(4, D, dtype=torch.float64)
    assert squared_error(vae, x, torch.randn(4, L, dtype=torch.float64)) == pytest.approx(D / 4)


def test_a_linear_vae_uses_what_has_more_variance_than_the_likelihood() -> None:
    """log p(x) of probabilistic PCA, whose columns are free: no more columns than variances above s²."""
    torch.manual_seed(0)
    deviations = torch.tensor([3.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    x = torch.randn(4000, 4, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T * deviations  # of exactly these variances
    variances = eigenvalues(x, 4)
    assert variances == pytest.approx(deviations.square().tolist())
    for scale, number in ((4.0, 0), (2.5, 1), (1.0, 2), (0.3, 3)):
        assert linear_active(variances, scale) == number
        # the length of a column a along an axis of variance λ: log p falls from a = 0 on where λ < s²
        for variance in variances:
            small = 1e-3
            gain = [-0.5 * (math.log(a + scale**2) + variance / (a + scale**2)) for a in (0.0, small)]
            assert (gain[1] > gain[0]) == (variance > scale**2)


def test_one_command_makes_everything_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--smoke", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert experiment.main(options) == 0
    kept = tmp_path / "out" / "measures.jsonl"
    lines = kept.read_text().splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    assert set(records) == {*VARIANTS, "data"}
    for name, variant in VARIANTS.items():
        if variant.scale is not None:
            found = records[name]
            assert found["scale"] == pytest.approx(variant.scale, abs=1e-5)
            # the ELBO by the error of the same data, of other draws
            squares = found["best_scale"] ** 2 * 64
            elbo = -squares / (2 * variant.scale**2) - constant(variant.scale, 64) - found["kl"]
            assert found["elbo"] == pytest.approx(elbo, rel=0.01)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"pictures.png", "against_scale.png", "measures.jsonl", "summary.json"}

    kept.write_text("\n".join(lines[1:]) + "\n")
    monkeypatch.setattr(experiment, "pictures", lambda *_: {})
    assert experiment.main(options) == 0
    again = {record["name"]: record for record in map(json.loads, kept.read_text().splitlines())}
    assert again == records


def test_a_linear_vae_uses_no_more_dimensions_than_it_has() -> None:
    records = finished(HERE / "results" / "measures.jsonl")
    records["data"]["variances"] = [500.0] * 3 + [0.7] * 4 + [0.2] * 9  # of s² = 392, 1, 0.5, 0.01, 0.018
    rows = [row.split(" | ") for row in sections(records)["collapse"].split("\n")]
    assert rows[0][3] == "a linear VAE of 10 dimensions would use"
    assert [row[3] for row in rows[2:]] == ["3", "3", "7", "10", "10"]


def test_the_committed_tables_show_the_committed_results() -> None:
    text = (HERE / "results" / "measures.jsonl").read_text()
    records = {record["name"]: record for record in map(json.loads, text.splitlines())}
    assert set(records) == {*VARIANTS, "data"}
    assert_committed(HERE, sections(records), summary(records))
