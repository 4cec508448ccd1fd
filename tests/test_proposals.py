"""Proposals that are fitted to each datum, against closed forms and quadrature."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.storage.resumable import Resumable
from tests.components import refused
from tests.test_importance import PPCA

Program = Callable[[Tensor], Any]

#: A cheap fit.
FEW = pv.LocalProposal("guide", steps=60, draws=4, above=-math.inf)
FULL = pv.LocalProposal("normal", steps=120, draws=5, above=-math.inf)


def narrow(ppca: PPCA, width: float = 0.35, shift: float = 0.0) -> Program:
    """A diagonal guide that is too narrow, and shifted."""

    def guide(x: Tensor) -> None:
        exact = ppca.posterior(x)
        with pyro.plate("data", len(x)):
            scale = width * exact.stddev
            pyro.sample("z", dist.Normal(exact.mean + shift, scale).to_event(1))

    return guide


@pytest.mark.parametrize("proposal", [FEW, FULL], ids=["guide's family", "full covariance"])
def test_a_wrong_guide_is_repaired(float64: None, proposal: pv.LocalProposal) -> None:
    ppca = PPCA()
    guide, exact = narrow(ppca, shift=0.8), ppca.evidence()
    by_guide = pv.log_evidence(ppca.model, guide, ppca.x, num_particles=2000)
    found = pv.log_evidence(ppca.model, guide, ppca.x, num_particles=2000, proposal=proposal)
    assert found.proposal == "local proposal" and "importance samples each from a local" in repr(found)
    assert (found.pareto_k < 1).all() and (by_guide.pareto_k > 1).all()
    assert found.standard_error.median() < 0.2  # that of one datum has a heavy tail itself
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()
    assert (by_guide.estimate - exact).abs().mean() > 30 * (found.estimate - exact).abs().mean()


def test_forty_latents_are_fitted_as_well(float64: None) -> None:
    """By the defaults, with a guide that has the exact means and variances and lacks all correlations."""
    generator = torch.Generator().manual_seed(0)
    latent, observed = 40, 60
    weight = torch.randn(observed, latent, generator=generator) / 4
    x = (torch.randn(10, latent, generator=generator) @ weight.T) + torch.randn(
        10, observed, generator=generator
    )
    precision = weight.T @ weight + torch.eye(latent)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            mean = torch.linalg.solve(precision, weight.T @ x.T).T
            pyro.sample("z", dist.Normal(mean, precision.diagonal() ** -0.5).to_event(1))

    exact = dist.MultivariateNormal(torch.zeros(observed), weight @ weight.T + torch.eye(observed))
    found = pv.log_evidence(model, guide, x, proposal="local")
    assert (found.pareto_k < 0.7).sum() >= 9
    assert abs(float((found.estimate - exact.log_prob(x)).mean())) < 0.1


def test_a_full_covariance_reaches_the_exact_posterior(float64: None) -> None:
    """Which is normal: the weights of its 90 % are nearly constant, those of the widened one less so."""
    ppca = PPCA()
    options: Any = {"steps": 150, "draws": 5, "widening": 1.0}
    errors = [
        pv.log_evidence(
            ppca.model,
            narrow(ppca, 0.6),
            ppca.x,
            num_particles=1000,
            proposal=pv.LocalProposal(family, **options),
        ).standard_error.mean()
        for family in ("guide", "normal")
    ]
    assert errors[1] < 0.5 * errors[0]


def on_grid(model: Program, x: Tensor, z: Tensor, weight: Tensor) -> Tensor:
    """Log p(x) of each datum by quadrature at points z (G, …) of these weights."""

    def log_joint(z: Tensor, x: Tensor) -> Tensor:
        many = x.expand(len(z), *x.shape[1:])
        trace = pyro.poutine.trace(pyro.poutine.condition(model, {"z": z})).get_trace(many)
        trace.compute_log_prob()
        return sum(trace.nodes[name]["log_prob"] for name in ("z", "x"))

    return torch.stack([(log_joint(z, row) + weight.log()).logsumexp(0) for row in x.split(1)])


def gamma(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Gamma(2.0, x.new_ones(())))
        pyro.sample("x", dist.Poisson(3 * z), obs=x)


def gamma_guide(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Gamma(8.0 + x, x.new_full((), 3.0)))


def beta(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Beta(2.0, x.new_full((), 2.0)))
        pyro.sample("x", dist.Binomial(12, z), obs=x)


def beta_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Beta(20 + x, 30 - x))


def simplex(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Dirichlet(x.new_full((3,), 1.5)))
        pyro.sample("x", dist.Multinomial(9, probs=z, validate_args=False), obs=x)


def simplex_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Dirichlet(30 * (x + 3) / 18 + x.new_tensor([8.0, 0.0, 0.0])))


def triangle(size: int = 300) -> tuple[Tensor, Tensor]:
    """Midpoints of small squares in the simplex, and their areas."""
    point = (torch.arange(size) + 0.5) / size
    a, b = torch.meshgrid(point, point, indexing="ij")
    z = torch.stack([a, (1 - a) * b, (1 - a) * (1 - b)], -1).reshape(-1, 3)
    return z, (1 - a).flatten() / size**2


CONSTRAINED: dict[str, tuple[Program, Program, Tensor]] = {
    "Gamma": (gamma, gamma_guide, torch.tensor([0.0, 4.0, 15.0])),
    "Beta": (beta, beta_guide, torch.tensor([1.0, 6.0, 12.0])),
    "simplex": (simplex, simplex_guide, torch.tensor([[0.0, 0, 9], [3, 3, 3], [7, 2, 0]])),
}


@pytest.mark.parametrize("full", [False, True], ids=["guide's family", "full covariance"])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_constrained_latents_against_quadrature(float64: None, name: str, full: bool) -> None:
    model, guide, x = CONSTRAINED[name]
    x = x.double()
    if name == "simplex":
        z, weight = triangle()
    else:
        z = (torch.arange(20_000) + 0.5) / (20_000 if name == "Beta" else 500)
        weight = z.new_full((), float(z[1] - z[0]))
    exact = on_grid(model, x, z, weight)
    # the quadrature of a pole at the edge is off by some 1e-4
    found = pv.log_evidence(model, guide, x, num_particles=4000, proposal=FULL if full else FEW)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error + 1e-3).all()
    assert (found.standard_error < 0.05).all()


def bimodal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 2.0))
        pyro.sample("x", dist.Normal(z.square(), 0.5), obs=x)


def one_mode_more(x: Tensor) -> None:
    """A guide that covers both modes, one better than the other, so that a normal collapses on that one."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x.sqrt(), x.sqrt()))


def test_the_defence_keeps_a_mode_that_the_fit_leaves(float64: None) -> None:
    x = torch.tensor([9.0, 12.0, 16.0])
    z = torch.linspace(-8, 8, 40_001)
    exact = on_grid(bimodal, x, z, z.new_full((), float(z[1] - z[0])))
    found, without = (
        pv.log_evidence(
            bimodal,
            one_mode_more,
            x,
            num_particles=20_000,
            proposal=pv.LocalProposal(steps=200, draws=5, defence=defence),
        )
        for defence in (0.3, 0.0)
    )
    # a mode of two that are as large as each other
    torch.testing.assert_close(without.estimate, exact - math.log(2), rtol=0, atol=0.1)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()
    assert (found.standard_error < 0.1).all()


@pytest.mark.parametrize("proposal", [FEW, FULL], ids=["guide's family", "full covariance"])
def test_the_estimate_of_p_is_unbiased(float64: None, proposal: pv.LocalProposal) -> None:
    """The mean of p̂/p over 2100 copies of few draws each is 1, within its error."""
    ppca = PPCA()
    x = ppca.x[:3].repeat(700, 1)
    short = replace(proposal, steps=30)
    found = pv.log_evidence(ppca.model, narrow(ppca, 0.5), x, num_particles=4, proposal=short, rows=9000)
    ratio = (found.estimate - ppca.evidence()[:3].repeat(700)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=3 * ratio.std().item() / math.sqrt(len(ratio)))
    assert ratio.std() < 1


class Counted:
    """PPCA with a narrow guide that raises in a given call."""

    def __init__(self, fail_at: int | None) -> None:
        self.ppca, self.calls, self.fail_at = PPCA(), 0, fail_at

    def guide(self, x: Tensor) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        narrow(self.ppca)(x)


@pytest.mark.parametrize("options", [{}, {"until_standard_error": 0.05}], ids=["fixed", "until"])
def test_an_interrupted_call_ends_with_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resumable, "interval", 0.0)
    path, proposal = tmp_path / "local.pt", pv.LocalProposal(steps=10, draws=2)

    def measured(fail_at: int | None, checkpoint: Path | None) -> tuple[pv.LogEvidence, int]:
        programs = Counted(fail_at)
        found = pv.log_evidence(
            programs.ppca.model,
            programs.guide,
            programs.ppca.x,
            num_particles=4000,
            rows=3000,
            compile="off",
            proposal=proposal,
            checkpoint=checkpoint,
            **options,
        )
        return found, programs.calls

    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*data have a Monte Carlo")
        expected, calls = measured(None, None)
        for fail_at in (25, calls // 2, calls - 1):  # in the fit, in the pilot, in the draws
            torch.manual_seed(5)
            with pytest.raises(KeyboardInterrupt):
                measured(fail_at + 1, path)  # one more call, for the fingerprint
            assert path.exists()
            torch.manual_seed(99)
            found, _ = measured(None, path)
            for name in ("estimate", "standard_error", "pareto_k", "num_particles"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), (fail_at, name)
            assert not path.exists()


def test_a_flat_graph_gives_the_same_estimates() -> None:
    torch.manual_seed(0)
    data = pv.Digits()
    program = pv.assemble(data, network=pv.MLP((30,)), latent_dim=4)
    results = []
    for compile in ("off", "flat"):
        torch.manual_seed(1)
        result = pv.log_evidence(
            program.model,
            program.guide,
            data.test.batch()[:4],
            num_particles=300,
            rows=1200,
            proposal=pv.LocalProposal(steps=10),
            compile=compile,
        )
        results.append(result.estimate)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("flow", "FlowPosterior"),
        ("correlated", "FullNormalPosterior"),
        ("low rank", "LowRankNormalPosterior"),
    ],
)
def test_posteriors_of_all_kinds_are_fitted(name: str, program: str) -> None:
    torch.manual_seed(0)
    data = pv.Digits()
    vae_of = pv.assemble(data, network=pv.MLP((20,)), latent_dim=3, posterior=getattr(pv, program))
    x = data.test.batch()[:6]
    plain = pv.log_evidence(vae_of.model, vae_of.guide, x, num_particles=4000)
    found = pv.log_evidence(vae_of.model, vae_of.guide, x, num_particles=500, proposal=FEW)
    error = plain.standard_error.hypot(found.standard_error)
    assert ((plain.estimate - found.estimate).abs() < 4 * error).all()


def test_a_hierarchy_is_fitted() -> None:
    torch.manual_seed(0)
    data = pv.Digits()
    layered = pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(4, 2), network=pv.MLP((20,)))
    x = data.test.batch()[:6]
    plain = pv.log_evidence(layered.model, layered.guide, x, num_particles=4000)
    for proposal in (FEW, FULL):
        found = pv.log_evidence(layered.model, layered.guide, x, num_particles=1000, proposal=proposal)
        error = plain.standard_error.hypot(found.standard_error)
        assert ((plain.estimate - found.estimate).abs() < 4 * error).all()


def kinds(x: Tensor, offset: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        kind = pyro.sample("kind", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(offset + z + 3 * kind, 0.5), obs=x)


def kinds_guide(x: Tensor, offset: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal((x - offset) / 2 - 0.5, 0.6))


def kinds_in_guide(x: Tensor, offset: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        kind = pyro.sample("kind", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("z", dist.Normal(0.7 * (x - offset - 3 * kind), 0.4))


@pytest.mark.parametrize("guide", [kinds_guide, kinds_in_guide])
def test_what_is_summed_out_and_what_is_given(float64: None, guide: Any) -> None:
    """x | kind ~ N(offset + 3 kind, 1 + 1/4)."""
    offset = torch.linspace(-1, 1, 6)
    x = offset + torch.linspace(-2, 5, 6)
    means = torch.stack([offset, offset + 3])
    exact = dist.Normal(means, math.sqrt(1.25)).log_prob(x).logsumexp(0) - math.log(2)
    found = pv.log_evidence(kinds, guide, x, given={"offset": offset}, num_particles=4000, proposal=FEW)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error + 1e-9).all()
    assert (found.standard_error < 0.15).all()


def by_position(x: Tensor) -> None:
    """An axis counted from the left, so that the data are repeated."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[:, 0] + z[:, 1], 1.0), obs=x)


def by_position_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.view(len(x), -1).expand(-1, 2) / 4, 0.3).to_event(1))


@pytest.mark.filterwarnings("ignore:.*run on repeated data")
def test_repeated_data(float64: None) -> None:
    x = torch.linspace(-3, 3, 5)
    exact = dist.Normal(0.0, math.sqrt(3.0)).log_prob(x)
    for proposal in (FEW, FULL):
        found = pv.log_evidence(by_position, by_position_guide, x, num_particles=3000, proposal=proposal)
        assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()
        assert (found.standard_error < 0.1).all()


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def discrete_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(x.sigmoid()))


def test_where_nothing_can_be_fitted() -> None:
    x = torch.linspace(-1, 1, 3)
    with refused(
        "expected a guide with a continuous latent whose distribution can be fitted to each datum, got none: "
        r"use proposal='guide' \(--method importance\)"
    ):
        pv.log_evidence(discrete, discrete_guide, x, proposal="local")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps expects a positive whole number, got 0"),
        ({"widening": math.inf}, "widening expects a positive number, got inf"),
        ({"defence": 1.0}, "defence expects a share from 0 to below 1, got 1.0"),
    ],
)
def test_options_of_a_proposal_are_checked(options: dict[str, Any], text: str) -> None:
    with refused(text):
        pv.LocalProposal(**options)


def test_a_proposal_has_one_of_few_names() -> None:
    ppca = PPCA()
    with refused("proposal expects 'guide', 'local' or a LocalProposal, got 'globl'"):
        pv.log_evidence(ppca.model, ppca.guide, ppca.x, proposal="globl")  # type: ignore[arg-type]


def test_a_mask_stays_on_what_is_fitted(float64: None) -> None:
    """A latent that some data do not have, in model and guide."""
    there = torch.tensor([True, False, True, False])
    x = torch.linspace(-2, 2, 4)

    def model(x: Tensor, there: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).mask(there))
            pyro.sample("x", dist.Normal(there * z, 1.0), obs=x)

    def guide(x: Tensor, there: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 4, 0.4).mask(there))

    exact = dist.Normal(0.0, (1.0 + there).sqrt()).log_prob(x)
    found = pv.log_evidence(model, guide, x, given={"there": there}, num_particles=2000, proposal=FEW)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error + 1e-9).all()
    assert (found.standard_error < 0.1).all()


def test_an_angle_stays_as_it_is(float64: None) -> None:
    """Beside a latent that is fitted: a shift of an angle would count a part of the circle twice."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            angle = pyro.sample("angle", dist.VonMises(x.new_zeros(()), 1.0))
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(angle.cos() + z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("angle", dist.VonMises(x.new_zeros(()), 1.0))
            pyro.sample("z", dist.Normal(0.8 * x - 0.3, 0.4))

    x = torch.tensor([-1.0, 0.5, 2.0])
    angle = (torch.arange(2000) + 0.5) / 2000 * 2 * math.pi - math.pi
    density = dist.Normal(angle.cos(), math.sqrt(1.25)).log_prob(x[:, None])
    exact = (density + dist.VonMises(0.0, 1.0).log_prob(angle)).logsumexp(1) + math.log(2 * math.pi / 2000)
    found = pv.log_evidence(model, guide, x, num_particles=4000, proposal=FEW)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()
    assert found.standard_error.median() < 0.05
