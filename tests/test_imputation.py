"""p(x_mis|x_obs), held against Gaussian models with missing entries in closed form."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import pyro_vae as pv

from .components import refused

NAN = float("nan")
NUM, DIMS, LATENT = 20, 6, 2


class Exact(pv.Posterior):
    """p(z|x_obs) of probabilistic PCA, wider by a factor."""

    def __init__(self, likelihood: Any, width: float = 1.0) -> None:
        super().__init__()
        self.latent_dim, self.encoder, self.width = LATENT, nn.Identity(), width
        self.parts = [likelihood]  # not a submodule twice

    def forward(self, x: Tensor) -> Any:
        weight, bias, variance = ppca(self.parts[0])
        seen = (~x.isnan()).to(x.dtype)
        precision = (
            torch.eye(LATENT).to(x) + torch.einsum("...d,dl,dm->...lm", seen, weight, weight) / variance
        )
        covariance = precision.inverse()
        d = torch.where(x.isnan(), 0.0, x - bias)
        loc = torch.einsum("...lm,dm,...d->...l", covariance, weight, d) / variance
        return dist.MultivariateNormal(loc, covariance * self.width**2)


def ppca(likelihood: Any) -> tuple[Tensor, Tensor, Tensor]:
    """W, b and s² of x ~ N(W z + b, s²)."""
    full = likelihood.likelihood
    with torch.no_grad():
        bias = full(torch.zeros(LATENT).double()).mean
        weight = torch.stack([full(e).mean - bias for e in torch.eye(LATENT).double()], 1)
        return weight, bias, full(torch.zeros(LATENT).double()).variance[0]


@pytest.fixture(scope="module")
def vae() -> pv.VAE:
    torch.manual_seed(1)
    decoder = pv.MLP(()).decoder(LATENT, (DIMS,))
    full = pv.NormalLikelihood(decoder, (DIMS,), scale=0.5)
    for parameter in full.loc.parameters():
        nn.init.normal_(parameter, std=0.8)
    likelihood = pv.ObservedLikelihood(full)
    return pv.VAE(pv.StandardNormalPrior(LATENT), likelihood, Exact(likelihood, 1.3)).double()


@pytest.fixture(scope="module")
def x(vae: pv.VAE) -> Tensor:
    torch.manual_seed(2)
    x = vae.sample(NUM)
    holes = torch.rand(x.shape) < 0.4
    holes[0] = True  # nothing observed at all
    holes[1] = False
    return torch.where(holes, NAN, x)


def conditional(vae: pv.VAE, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x_obs), and mean and covariance of x_mis given x_obs."""
    weight, bias, variance = ppca(vae.likelihood)
    covariance = weight @ weight.T + variance * torch.eye(DIMS).double()
    o, m = ~row.isnan(), row.isnan()
    gain = covariance[m][:, o] @ covariance[o][:, o].inverse()
    d = row[o] - bias[o]
    log_px = torch.zeros(()).double()
    if bool(o.any()):
        log_px = dist.MultivariateNormal(bias[o], covariance[o][:, o]).log_prob(row[o])
    return log_px, bias[m] + gain @ d, covariance[m][:, m] - gain @ covariance[o][:, m]


def test_log_evidence_is_that_of_the_observed_entries(vae: pv.VAE, x: Tensor) -> None:
    torch.manual_seed(3)
    expected = torch.stack([conditional(vae, row)[0] for row in x])
    found = pv.log_evidence(vae.model, vae.guide, x, num_particles=1000)
    assert bool(((found.estimate - expected).abs() < 5 * found.standard_error + 1e-9).all())
    exact = pv.VAE(vae.prior, vae.likelihood, Exact(vae.likelihood)).double()
    found = pv.log_evidence(exact.model, exact.guide, x, num_particles=5)
    assert torch.allclose(found.estimate, expected, atol=1e-9)


def test_imputation_is_the_conditional_normal(vae: pv.VAE, x: Tensor) -> None:
    torch.manual_seed(4)
    found = pv.impute(vae.model, vae.guide, x, num_particles=8000, num_draws=1000)
    assert torch.equal(found.missing, x.isnan())
    for part in (found.mean, *found.quantiles, *found.draws[:3]):
        assert torch.equal(part[~found.missing], x[~found.missing])
    assert float(found.standard_deviation[~found.missing].abs().max()) == 0
    errors = []
    for b, row in enumerate(x):
        m = row.isnan()
        log_px, mean, covariance = conditional(vae, row)
        assert abs(float(found.log_evidence[b] - log_px)) < 0.1
        errors.append((found.mean[b, m] - mean) / found.standard_error[b, m])
        deviation = covariance.diagonal().sqrt()
        assert torch.allclose(found.standard_deviation[b, m], deviation, rtol=0.04)
        for level, quantile in zip(found.levels, found.quantiles, strict=True):
            expected = dist.Normal(mean, deviation).icdf(torch.tensor(level).double())
            assert bool(((quantile[b, m] - expected).abs() < 0.25 * deviation).all())
        draws = found.draws[:, b, m]
        if m.sum() > 1:
            scale = deviation[:, None] * deviation
            assert bool(((draws.T.cov() - covariance).abs() / scale < 0.25).all())
    z = torch.cat(errors)
    assert float(z.abs().max()) < 4.5 and 0.7 < float(z.std()) < 1.3  # the error that it says
    weights = pv.log_evidence(vae.model, vae.guide, x, num_particles=8000).effective_sample_size
    assert torch.allclose(found.effective_sample_size, weights, rtol=0.05)
    assert float(found.pareto_k.max()) < 0.5
    assert "Imputation of" in repr(found) and "k-hat above 0.7 for 0 of 20 data" in repr(found)


def test_two_sets_of_entries(vae: pv.VAE, x: Tensor) -> None:
    torch.manual_seed(5)
    known = torch.zeros(DIMS, dtype=torch.bool)
    known[:3] = True
    found = pv.log_conditional(vae.model, vae.guide, x, known, num_particles=1000)
    expected = torch.stack(
        [conditional(vae, row)[0] - conditional(vae, torch.where(known, row, NAN))[0] for row in x]
    )
    assert bool(((found.estimate - expected).abs() < 5 * found.standard_error + 1e-9).all())
    assert torch.equal(found.num_entries, (~x[:, 3:].isnan()).sum(1))
    assert "log p(x_a|x_b)" in repr(found)
    each = pv.log_conditional(vae.model, vae.guide, x, known.expand(NUM, -1), num_particles=50)
    assert each.estimate.shape == (NUM,)
    with refused(r"known expects a tensor of bool of shape \(6,\) or \(20, 6\), got torch.bool \(5,\)"):
        pv.log_conditional(vae.model, vae.guide, x, known[:5])
    with refused("got torch.float64"):
        pv.log_conditional(vae.model, vae.guide, x, known.double())


def test_bits_have_probabilities_by_enumeration() -> None:
    torch.manual_seed(6)
    full = pv.BernoulliLikelihood(pv.MLP((5,)).decoder(1, (3,)), (3,))
    for parameter in full.parameters():
        nn.init.normal_(parameter, std=1.5)
    likelihood = pv.ObservedLikelihood(full)
    encoder = pv.ObservedEncoder(pv.MLP((5,)).encoder((6,)), (3,))
    vae = pv.VAE(
        pv.StandardNormalPrior(1),
        likelihood,
        pv.DiagonalNormalPosterior(encoder, 1, log_scale_bounds=(-0.1, 0.1)),
    ).double()
    x = torch.tensor([[1.0, NAN, NAN], [NAN, 0.0, 1.0]]).double()
    grid = torch.linspace(-8, 8, 4001).double()
    p = full(grid[:, None]).mean.detach()
    weights = torch.distributions.Normal(0.0, 1.0).log_prob(grid).exp() / grid.diff()[0].reciprocal()
    found = pv.impute(vae.model, vae.guide, x, num_particles=50_000, num_draws=1000)
    first = weights * p[:, 0]
    expected = (first[:, None] * p[:, 1:]).sum(0) / first.sum()
    assert torch.allclose(found.mean[0, 1:], expected, atol=0.01)
    both = (first * p[:, 1] * p[:, 2]).sum() / first.sum()
    assert abs(float((found.draws[:, 0, 1] * found.draws[:, 0, 2]).mean() - both)) < 0.06  # drawn together
    assert set(found.draws.flatten().tolist()) == {0.0, 1.0}
    second = weights * (1 - p[:, 1]) * p[:, 2]
    assert abs(float(found.mean[1, 0] - (second * p[:, 0]).sum() / second.sum())) < 0.01


def masked_program(x: Tensor) -> None:
    """NaN under a mask, the features in a plate of their own, and two of them at a site of their own."""
    weight = torch.tensor([1.0, -0.8, 0.6, 1.2]).double()
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1).double(), 1.0))
        for name, columns in (("left", slice(0, 1)), ("right", slice(1, 4))):
            part = x[:, columns]
            with pyro.plate(f"of {name}", part.shape[1], dim=-1), poutine.mask(mask=~part.isnan()):
                pyro.sample(name, dist.Normal(z * weight[columns], 0.6), obs=part.nan_to_num())


def masked_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 1).double(), 1.0))


def test_foreign_programs_are_imputed() -> None:
    torch.manual_seed(7)
    x = torch.randn(3, 4).double()
    x[0, 2] = x[0, 0] = x[2, 3] = NAN
    weight = torch.tensor([1.0, -0.8, 0.6, 1.2]).double()
    found = pv.impute(masked_program, masked_guide, x, num_particles=50_000)
    for b, row in enumerate(x):
        o = ~row.isnan()
        precision = 1 + weight[o].square().sum() / 0.36
        mean = (weight[o] * row[o]).sum() / 0.36 / precision
        assert torch.allclose(found.mean[b, ~o], mean * weight[~o], atol=0.03)
        deviation = (0.36 + weight[~o].square() / precision).sqrt()
        assert torch.allclose(found.standard_deviation[b, ~o], deviation, rtol=0.03)


def test_what_does_not_fit_into_memory_is_halved() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(9)).double()
    x[0, 2] = x[2, 3] = NAN

    def hungry(x: Tensor) -> None:
        if pyro.poutine.runtime.am_i_wrapped() and (stack := pyro.poutine.runtime._PYRO_STACK):
            sizes = [each.size for each in stack if isinstance(each, pyro.plate)]
            if any(size > 100 for size in sizes):
                raise MemoryError
        masked_program(x)

    torch.manual_seed(9)
    plain = pv.impute(masked_program, masked_guide, x, num_particles=2000)
    with pytest.warns(UserWarning, match=r"draws at once do not fit into memory: going on with"):
        halved = pv.impute(hungry, masked_guide, x, num_particles=2000)
    assert torch.allclose(halved.mean, plain.mean, atol=0.15)
    assert torch.allclose(halved.log_evidence, plain.log_evidence, atol=0.15)
    assert not torch.equal(halved.draws, plain.draws)


def test_where_nothing_is_missing_nothing_is_changed(vae: pv.VAE) -> None:
    x = vae.sample(4)
    found = pv.impute(vae.model, vae.guide, x, num_particles=50, num_draws=3)
    assert torch.equal(found.mean, x) and torch.equal(found.draws, x.expand(3, -1, -1))
    assert torch.equal(found.quantiles, x.expand(3, -1, -1)) and not bool(found.missing.any())


def test_a_bar_counts_the_draws(vae: pv.VAE, x: Tensor, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(9)
    quiet = pv.impute(vae.model, vae.guide, x, num_particles=50)
    assert capfd.readouterr().err == ""
    torch.manual_seed(9)
    watched = pv.impute(vae.model, vae.guide, x, num_particles=50, progress=True)
    assert "1.00k/1.00k" in capfd.readouterr().err
    assert torch.equal(quiet.draws, watched.draws)


def autoregressive(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1].nan_to_num()], 1)
        law = dist.Normal(z[..., None] + before, 1.0, validate_args=False).mask(~x.isnan())
        pyro.sample("x", law.to_event(1), obs=x)


def summed_out(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        kind = pyro.sample("kind", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        law = dist.Normal((z + kind)[..., None].expand(*(z + kind).shape, 3), 1.0)
        pyro.sample("x", law.to_event(1), obs=x)


def of_sums(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.nan_to_num().sum(1))


def plain_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (autoregressive, {}, "expected entries that are independent given z, got a density at the site 'x'"),
        (of_sums, {}, "expected a model that observes its argument as it is"),
        (
            autoregressive,
            {"levels": (0.5, 1.0)},
            r"levels expects probabilities between 0 and 1, got \[0.5, 1.0\]",
        ),
        (autoregressive, {"num_draws": 0}, "num_draws expects a positive whole number, got 0"),
    ],
)
def test_what_cannot_be_imputed(model: Any, options: Any, text: str) -> None:
    x = torch.randn(4, 3)
    x[0, 1] = NAN
    with refused(text):
        pv.impute(model, plain_guide, x, num_particles=20, **options)


def test_what_is_summed_out_and_whole_numbers_are_refused() -> None:
    x = torch.randn(4, 3)
    with refused("expected latents that the guide draws, got kind summed out"):
        pv.impute(summed_out, plain_guide, x, num_particles=20)
    with refused("expected x of floats, NaN where not observed, got torch.int64: use .float"):
        pv.impute(summed_out, plain_guide, x.long(), num_particles=20)


def test_training_reaches_the_maximum_likelihood_of_an_em_loop(vae: pv.VAE, x: Tensor) -> None:
    x = torch.cat([x[1:], torch.where(torch.rand(60, DIMS) < 0.3, NAN, vae.sample(60))])
    x = x[~x.isnan().all(1)]
    torch.manual_seed(8)
    full = pv.NormalLikelihood(pv.MLP(()).decoder(LATENT, (DIMS,)), (DIMS,))
    likelihood = pv.ObservedLikelihood(full)
    # by the exact posterior, held fixed within a step, the gradient of the ELBO is that of log p(x_obs)
    trained = pv.VAE(pv.StandardNormalPrior(LATENT), likelihood, Exact(likelihood)).double()
    data = pv.Dataset(x, missing=True)
    for lr, epochs in ((0.05, 60), (0.01, 60), (0.002, 60)):
        pv.fit(
            trained,
            data,
            epochs=epochs,
            batch_size=len(x),
            num_particles=16,
            optimiser=partial(torch.optim.Adam, lr=lr),
            compile="off",
        )
    found = torch.stack([conditional(trained, row.double())[0] for row in x.float()]).mean()
    assert abs(float(found) - em(x.float().double())) < 0.01


def em(x: Tensor, steps: int = 60) -> float:
    """The mean log p(x_obs) of probabilistic PCA at the end of EM, by loops over data and entries."""
    torch.manual_seed(0)
    weight, bias, variance = torch.randn(DIMS, LATENT).double(), x.nanmean(0), torch.ones(()).double()
    for _ in range(steps):
        zs, zzs = [], []
        for row in x:
            o = ~row.isnan()
            covariance = (torch.eye(LATENT).double() + weight[o].T @ weight[o] / variance).inverse()
            z = covariance @ weight[o].T @ (row[o] - bias[o]) / variance
            one = torch.cat([z, torch.ones(1).double()])
            second = one[:, None] * one
            second[:LATENT, :LATENT] += covariance
            zs.append(one)
            zzs.append(second)
        z, zz = torch.stack(zs), torch.stack(zzs)
        rows = []
        for d in range(DIMS):
            o = ~x[:, d].isnan()
            rows.append(torch.linalg.solve(zz[o].sum(0), (z[o] * x[o, d, None]).sum(0)))
        joint = torch.stack(rows)
        total = torch.zeros(()).double()
        for n, row in enumerate(x):
            o = ~row.isnan()
            quadratic = torch.einsum("dl,lm,dm->d", joint[o], zz[n], joint[o])
            total = total + (row[o].square() - 2 * row[o] * (joint[o] @ z[n]) + quadratic).sum()
        weight, bias, variance = joint[:, :LATENT], joint[:, LATENT], total / (~x.isnan()).sum()
    covariance = weight @ weight.T + variance * torch.eye(DIMS).double()
    each = []
    for row in x:
        o = ~row.isnan()
        each.append(dist.MultivariateNormal(bias[o], covariance[o][:, o]).log_prob(row[o]))
    return float(torch.stack(each).mean())
