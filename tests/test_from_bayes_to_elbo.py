"""The integrals and gradients of `from_bayes_to_elbo` against closed forms, and its committed results."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from experiments.from_bayes_to_elbo import integrals, run
from experiments.from_bayes_to_elbo.gradients import (
    ESTIMATORS,
    Estimator,
    datum_draws,
    encoder_draws,
    encoder_gradient,
    gradient_moments,
)
from experiments.from_bayes_to_elbo.measure import slopes
from experiments.from_bayes_to_elbo.report import sections, summary
from experiments.grid import grid_log_evidence, log_joint_table
from experiments.markdown import insert

HERE = Path(run.__file__).parent


def small(*, latent_dim: int = 2, flat: bool = False) -> tuple[pv.VAE, Tensor]:
    """A random model in float64 and data; with `flat`, p(x|z) does not depend on z."""
    torch.manual_seed(1)
    shape = (1, 3, 3)
    network = pv.MLP(hidden_dims=(6,))
    vae = pv.VAE(
        pv.StandardNormalPrior(latent_dim),
        pv.BernoulliLikelihood(network.decoder(latent_dim, shape), shape),
        pv.DiagonalNormalPosterior(network.encoder(shape), latent_dim),
    ).double()
    for name, parameter in vae.named_parameters():
        nn.init.normal_(parameter, std=0.2 if name.startswith("posterior") else 0.7)
    if flat:
        nn.init.zeros_(vae.likelihood.logits.layers[-1].weight)
    return vae, torch.bernoulli(torch.full((4, *shape), 0.4, dtype=torch.float64))


def divergence(vae: pv.VAE, x: Tensor) -> Tensor:
    """KL(q(z|x) ‖ N(0, I)) in closed form."""
    qz = vae.posterior(x)
    return (qz.mean.square() + qz.variance - 1 - qz.variance.log()).sum(1) / 2


@pytest.mark.parametrize("latent_dim", (2, 3))
def test_sums_of_a_decoder_that_ignores_z_have_closed_forms(latent_dim: int) -> None:
    vae, x = small(latent_dim=latent_dim, flat=True)
    with torch.no_grad():
        exact = vae.likelihood(torch.zeros(latent_dim).double()).log_prob(x)
        elbo = integrals.integrated_elbo(vae, x, step=0.5)
        kl = divergence(vae, x)
    found = integrals.plane_sums(vae, x, step=0.5, limit=7)
    torch.testing.assert_close(found.log_evidence, exact, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.kl, kl, rtol=0, atol=1e-6)
    torch.testing.assert_close(elbo, exact - kl, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.mass_of_q, torch.ones(4).double(), rtol=0, atol=1e-7)
    density = [math.exp(-((k / 2) ** 2) / 2) / math.sqrt(2 * math.pi) for k in (13, 14)]  # at 6.5 and 7
    border = torch.full((4,), latent_dim * sum(density)).double()  # h = 1/2, on both sides of each axis
    torch.testing.assert_close(found.border, border, rtol=1e-4, atol=0)


def test_the_evidence_is_that_of_the_other_grid_and_splits_into_elbo_and_kl() -> None:
    vae, x = small()
    found = integrals.plane_sums(vae, x, step=0.1)
    other = grid_log_evidence(vae, x, limit=7, points=141)
    torch.testing.assert_close(found.log_evidence, other.estimate, rtol=0, atol=1e-9)
    with torch.no_grad():
        elbo = integrals.integrated_elbo(vae, x, step=0.3)
    torch.testing.assert_close(elbo + found.kl, found.log_evidence, rtol=0, atol=1e-7)
    assert (found.kl > 1e-3).all()


def test_the_table_is_the_log_density() -> None:
    vae, x = small()
    z = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(log_joint_table(vae, z, x), integrals.log_joint(vae, z[:, None], x))


def test_gradients_and_their_variances_have_closed_forms() -> None:
    vae, x = small(flat=True)
    qz = vae.posterior(x)
    m, s = qz.mean.detach(), qz.stddev.detach()
    found = gradient_moments(vae, x, step=0.3)
    gradient = torch.cat([-m, 1 - s.square()], dim=1)  # of −KL(q ‖ N(0, I))
    torch.testing.assert_close(found.gradient, gradient, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.score_gradient, gradient, rtol=0, atol=1e-7)
    # a draw is −(m + s e) by m, and 1 − (m + s e) s e by log s
    variance = torch.cat([s.square(), (m * s).square() + 2 * s**4], dim=1)
    torch.testing.assert_close(found.reparameterised, variance, rtol=1e-7, atol=1e-7)
    assert (found.best_baseline <= found.baseline + 1e-12).all()
    assert (found.best_baseline <= found.score + 1e-12).all()


def test_the_score_function_of_a_constant_is_all_noise_that_a_baseline_removes() -> None:
    vae, x = small(flat=True)
    for part in (vae.posterior.loc, vae.posterior.log_scale):
        for parameter in part.parameters():
            nn.init.zeros_(parameter)  # q = N(0, I) = p(z|x), so that f = log p(x)
    found = gradient_moments(vae, x, step=0.3)
    square = vae.likelihood(torch.zeros(2).double()).log_prob(x).detach().square()[:, None]
    torch.testing.assert_close(found.score, torch.cat([square, square, 2 * square, 2 * square], dim=1))
    torch.testing.assert_close(found.baseline, torch.zeros(4, 4).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("num_particles", (1, 3))
def test_draws_of_pyro_have_the_integrated_mean_and_variance(
    estimator: Estimator, num_particles: int
) -> None:
    vae, x = small()
    x, repeats = x[:1], 20_000
    exact = gradient_moments(vae, x, step=0.3)
    elbo = integrals.integrated_elbo(vae, x, step=0.3).detach()
    torch.manual_seed(2)
    found = datum_draws(vae, x, estimator, num_particles, repeats, elbo=elbo)
    variance = getattr(exact, estimator)[0] / num_particles
    assert ((found.mean(0) - exact.gradient[0]).abs() < 5 * (variance / repeats).sqrt()).all()
    torch.testing.assert_close(found.var(0), variance, rtol=0.15, atol=0)
    assert all(parameter.grad is None for parameter in vae.parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_draws_of_the_encoders_gradient_have_the_integrated_mean(estimator: Estimator) -> None:
    vae, x = small()
    exact = encoder_gradient(vae, x, step=0.4)
    elbo = integrals.integrated_elbo(vae, x, step=0.4).detach()
    torch.manual_seed(3)
    found = encoder_draws(vae, x, estimator, 3000, 40, elbo=elbo)
    assert found.shape == (40, sum(parameter.numel() for parameter in vae.posterior.parameters()))
    along = found @ exact / exact.square().sum()  # 1 where there is no bias
    error = along.std() / 40**0.5
    assert (along.mean() - 1).abs() < 4 * error
    assert 8 * error < 0.2  # so that a bias of 20 % does not pass


def test_slopes_of_a_linear_decoder() -> None:
    vae, _ = small()
    shape = (1, 3, 3)
    vae.likelihood = pv.BernoulliLikelihood(pv.MLP(hidden_dims=()).decoder(2, shape), shape).double()
    z = torch.randn(3, 2, dtype=torch.float64)
    mean = vae.decode(z).flatten(1)
    weight = next(each for each in vae.likelihood.parameters() if each.ndim == 2).detach()
    jacobian = (mean * (1 - mean))[:, :, None] * weight
    torch.testing.assert_close(slopes(vae, z), torch.linalg.matrix_norm(jacobian, ord=2))


def test_smoke_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    options = ["--smoke", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert run.main(options) == 0
    kept = tmp_path / "out" / "measurements.jsonl"
    pictures = {f"{name}.png" for name in ("posteriors", "draws", "moves", "gradients")}
    assert {path.name for path in kept.parent.iterdir()} == {kept.name, "summary.json", *pictures}
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[1:]) + "\n")
    assert run.main(options) == 0
    assert kept.read_text().splitlines() == [*lines[1:], lines[0]]
    with pytest.raises(pv.InputError, match="choose another folder with --out"):
        run.main(options[1:])


def committed() -> dict[str, dict[str, Any]]:
    lines = (HERE / "results" / "measurements.jsonl").read_text().splitlines()
    return {record["name"]: record for record in map(json.loads, lines)}


def test_tables_name_the_seeds_of_the_records() -> None:
    named = {name.rpartition(" ")[0]: record for name, record in committed().items()}
    records = {f"{name} {seed}": record for name, record in named.items() for seed in (7, 3, 5)}
    heading = sections(records)["moves"].splitlines()[0]
    assert heading == "| images | log p(x), nats | seed 7 | seed 3 | seed 5 |"


def test_readme_shows_the_committed_results() -> None:
    records = committed()
    readme = (HERE / "README.md").read_text()
    found = sections(records)
    assert insert(readme, found) == readme
    assert all(f"<!-- {name} -->\n\n{section}\n" in readme for name, section in found.items())
    assert json.loads((HERE / "results" / "summary.json").read_text()) == summary(records)
    assert summary(records)["residual"] < 1e-6
