"""Objectives against closed forms, against one another, and against the published behaviour."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    ELBO,
    SVI,
    JitTrace_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    config_enumerate,
)
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.data import batches
from pyro_vae.objectives import check_mean_field, make_objective
from tests.components import OBJECTIVES, POSTERIORS, data_for, refused, vae


def loss_at(objective: ELBO, model: pv.JointProgram, x: Tensor, *, beta: float | None = None) -> Tensor:
    """The loss at seed 0, with gradients left in the parameters."""
    programs: tuple[Any, Any] = (model.model, model.guide)
    if beta is not None:
        weight = pv.KLWeight(torch.tensor(beta))
        programs = (weight(programs[0]), weight(programs[1]))
    model.zero_grad()
    torch.manual_seed(0)
    return torch.tensor(objective.loss_and_grads(*programs, x))


def gradients(model: nn.Module, part: str = "") -> Tensor:
    """All gradients of the parameters whose name begins with `part`, in one vector."""
    found = [p.grad for name, p in model.named_parameters() if name.startswith(part)]
    return torch.cat([g.flatten() for g in found if g is not None])


def parts_at_seed_0(model: pv.VAE, x: Tensor, particles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log p(x|z), log p(z) and log q(z|x) at the very draws of `loss_at`: (K, B) each."""
    torch.manual_seed(0)
    qz = model.posterior(x)
    z = qz.rsample((particles,))
    return model.likelihood(z).log_prob(x), model.prior().log_prob(z), qz.log_prob(z)


def test_one_particle_of_the_importance_weighted_bound_is_the_elbo(float64: None) -> None:
    model, x = vae("Mixture"), data_for("Bernoulli").double()
    expected = loss_at(Trace_ELBO(max_plate_nesting=1), model, x)
    gradient = gradients(model)
    loss = loss_at(pv.ImportanceWeightedELBO(1, 1, gradient="plain"), model, x)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(model), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gradient", ["plain", "stl", "dreg"])
@pytest.mark.parametrize("beta", [None, 0.3])
def test_importance_weighted_bound_by_hand(gradient: Any, beta: float | None, float64: None) -> None:
    model, x = vae(), data_for("Bernoulli").double()
    log_px, log_pz, log_qz = parts_at_seed_0(model, x, 7)
    log_w = log_px + (beta or 1) * (log_pz - log_qz)
    expected = -(log_w.logsumexp(0) - math.log(7)).sum()
    objective = pv.ImportanceWeightedELBO(7, 1, gradient=gradient)
    torch.testing.assert_close(loss_at(objective, model, x, beta=beta), expected.detach(), rtol=1e-12, atol=0)
    torch.manual_seed(0)
    assert objective.loss(model.model, model.guide, x) == pytest.approx(
        -float((log_px + log_pz - log_qz).detach().logsumexp(0).sum()) + len(x) * math.log(7), rel=1e-12
    )


def test_the_gradient_of_the_model_is_the_same_in_all_estimators(float64: None) -> None:
    model, x = vae("Mixture"), data_for("Bernoulli").double()
    found = {}
    for gradient in ("plain", "stl", "dreg"):
        loss_at(pv.ImportanceWeightedELBO(5, 1, gradient=gradient), model, x)
        found[gradient] = torch.cat([gradients(model, "prior"), gradients(model, "likelihood")])
    torch.testing.assert_close(found["stl"], found["plain"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["dreg"], found["plain"], rtol=1e-9, atol=1e-12)


STILL = partial(torch.optim.SGD, lr=0.0)


class Toy(pv.VAE):
    """One normal datum of three numbers, two latent dimensions, all linear: fast to repeat."""

    def __init__(self) -> None:
        flat = pv.MLP(())
        super().__init__(
            pv.StandardNormalPrior(2),
            pv.NormalLikelihood(flat.decoder(2, (3,)), (3,), scale=0.5),
            pv.DiagonalNormalPosterior(flat.encoder((3,)), 2),
        )


def encoder_gradients(
    model: pv.JointProgram, x: Tensor, gradient: Any, particles: int, repeats: int, *, beta: float = 1.0
) -> Tensor:
    """Independent draws of the gradient of the bound in the encoder: (repeats, parameters)."""
    weight = pv.KLWeight(torch.tensor(beta))
    objective = pv.ImportanceWeightedELBO(particles, max_plate_nesting=1, gradient=gradient)
    rows = []
    with pyro.validation_enabled(False):
        for _ in range(repeats):
            model.zero_grad()
            objective.loss_and_grads(weight(model.model), weight(model.guide), x)
            rows.append(gradients(model, "poster") / len(x))
    return torch.stack(rows)


def deviation(first: Tensor, second: Tensor) -> Tensor:
    """Difference of two means in standard errors, for each parameter."""
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    return (first.mean(0) - second.mean(0)) / error


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_doubly_reparameterised_gradient_has_the_expectation_of_the_plain_one(
    beta: float, float64: None
) -> None:
    """Tucker et al. (2019), eq. 8, and its version with a KL weight, within 4 standard errors."""
    model, x = Toy(), torch.randn(1, 3).expand(500, 3)
    plain, dreg = (encoder_gradients(model, x, kind, 6, 60, beta=beta) for kind in ("plain", "dreg"))
    assert deviation(plain, dreg).abs().max() < 4
    assert plain.mean(0).abs().max() > 20 * (plain.std(0) / 60**0.5).max()  # there is something to agree on


def test_sticking_the_landing_is_unbiased_for_one_particle_and_biased_for_several(float64: None) -> None:
    """As Tucker et al. (2019), section 3, say; what is missing is the expectation of the score term."""
    model, x = Toy(), torch.randn(1, 3).expand(500, 3)
    one = [encoder_gradients(model, x, kind, 1, 60) for kind in ("plain", "stl", "dreg")]
    assert deviation(one[0], one[1]).abs().max() < 4
    assert deviation(one[0], one[2]).abs().max() < 4
    several = [encoder_gradients(model, x, kind, 6, 60) for kind in ("plain", "stl")]
    assert deviation(*several).abs().max() > 8

    scores = []
    for _ in range(60):
        qz = model.posterior(x)
        z = qz.sample((6,))
        log_q = qz.log_prob(z)
        with torch.no_grad():
            v = (model.likelihood(z).log_prob(x) + model.prior().log_prob(z) - log_q).softmax(0)
        model.zero_grad()
        (v * log_q).sum().backward()
        scores.append(gradients(model, "poster") / len(x))
    assert deviation(several[0] - torch.stack(scores), several[1]).abs().max() < 4


def test_signal_to_noise_with_more_particles_is_as_published(float64: None) -> None:
    """It falls for the plain gradient (Rainforth et al. 2018) and rises for dreg (Tucker et al. 2019)."""
    model, x = Toy(), torch.randn(1, 3)
    ratio, noise = {}, {}
    for particles in (4, 64):
        for kind in ("plain", "stl", "dreg"):
            drawn = encoder_gradients(model, x, kind, particles, 300)
            ratio[kind, particles] = float((drawn.mean(0).abs() / drawn.std(0)).mean())
            noise[kind, particles] = float(drawn.var(0).sum())
    assert ratio["plain", 64] < 0.7 * ratio["plain", 4]
    assert ratio["dreg", 64] > 1.5 * ratio["dreg", 4]
    assert noise["dreg", 64] < noise["stl", 64] < noise["plain", 64]
    assert noise["dreg", 64] < 0.1 * noise["dreg", 4]


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_path_gradients_vanish_where_the_posterior_is_exact(posterior: str, float64: None) -> None:
    """Where the likelihood ignores z and q = p, every log weight is constant, so only plain has noise."""
    model, x = vae(posterior=posterior), data_for("Bernoulli").double()
    with torch.no_grad():
        model.likelihood.decoder.layers[1].weight.zero_()
        for name, parameter in model.posterior.named_parameters():
            if "encoder" not in name:
                parameter.zero_()
    sizes = {}
    for gradient in ("plain", "stl", "dreg"):
        loss_at(pv.ImportanceWeightedELBO(5, 1, gradient=gradient), model, x)
        sizes[gradient] = float(gradients(model, "posterior").abs().max())
    assert sizes["plain"] > 1e-3
    assert max(sizes["stl"], sizes["dreg"]) < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.3, 4.0])
def test_the_kl_weight_scales_model_and_guide_alike(beta: float, float64: None) -> None:
    model, x = vae("Mixture"), data_for("Bernoulli").double()
    log_px, log_pz, log_qz = (part.sum() for part in parts_at_seed_0(model, x, 1))
    expected = -(log_px + beta * (log_pz - log_qz)).detach()
    trace = Trace_ELBO(max_plate_nesting=1)
    torch.testing.assert_close(loss_at(trace, model, x, beta=beta), expected, rtol=1e-12, atol=0)


def test_the_kl_weight_reaches_the_analytic_kl(float64: None) -> None:
    model, x = vae(), data_for("Bernoulli").double()
    log_px, _, _ = parts_at_seed_0(model, x, 1)
    kl = kl_divergence(model.posterior(x), model.prior()).sum()
    expected = -(log_px.sum() - 0.3 * kl).detach()
    mean_field = TraceMeanField_ELBO(max_plate_nesting=1)
    torch.testing.assert_close(loss_at(mean_field, model, x, beta=0.3), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("posterior", ["DiagonalNormal", "FullNormal", "LowRankNormal"])
def test_the_analytic_kl_is_the_limit_of_the_sampled_one(posterior: str, float64: None) -> None:
    model, x = vae(posterior=posterior), data_for("Bernoulli").double()
    qz, pz = model.posterior(x), model.prior()
    z = qz.sample((100_000,))
    drawn = qz.log_prob(z) - pz.log_prob(z)
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((kl_divergence(qz, pz) - drawn.mean(0)).abs() < 4 * error).all()


def test_analytic_kl_of_correlated_normals_by_hand(float64: None) -> None:
    """Against the textbook formula of two multivariate normals."""
    q = dist.MultivariateNormal(torch.randn(4, 3), scale_tril=torch.randn(4, 3, 3).tril() + 3 * torch.eye(3))
    base = dist.Normal(torch.randn(3), torch.rand(3) + 0.5)
    p = dist.MultivariateNormal(base.loc, base.scale.square().diag())
    torch.testing.assert_close(kl_divergence(q, base.to_event(1)), kl_divergence(q, p))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, dist.Laplace(torch.zeros(3), torch.ones(3)).to_event(1))


def test_free_bits_by_hand(float64: None) -> None:
    """Mean over the batch of each dimension's KL, and λ where that is larger; a mixture is one group."""
    for prior in ("StandardNormal", "Mixture"):
        model, x = vae(prior), data_for("Bernoulli").double()
        torch.manual_seed(0)
        qz = model.posterior(x)
        z = qz.rsample((5,))
        log_px = model.likelihood(z).log_prob(x).mean(0).sum()
        if prior == "Mixture":
            kl = (qz.log_prob(z) - model.prior().log_prob(z)).mean((0, 1))[None]
        else:
            kl = (qz.base_dist.log_prob(z) - model.prior().base_dist.log_prob(z)).mean((0, 1))
        for free_bits in (0.0, float(kl.detach().median()), 10.0):
            expected = -(log_px - len(x) * kl.clamp(min=free_bits).sum()).detach()
            objective = pv.FreeBitsELBO(5, 1, free_bits=free_bits)
            torch.testing.assert_close(loss_at(objective, model, x), expected, rtol=1e-12, atol=0)
            weighted = -(log_px - 0.3 * len(x) * kl.clamp(min=free_bits).sum()).detach()
            torch.testing.assert_close(loss_at(objective, model, x, beta=0.3), weighted, rtol=1e-12, atol=0)


def test_free_bits_leave_a_small_kl_alone(float64: None) -> None:
    """Below λ the gradient is that of the reconstruction."""
    model, x = vae("Mixture"), data_for("Bernoulli").double()
    loss_at(pv.FreeBitsELBO(2, free_bits=50.0), model, x)
    assert gradients(model, "prior").abs().max() == 0
    loss_at(pv.FreeBitsELBO(2, free_bits=0.0), model, x)
    assert gradients(model, "prior").abs().max() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("particles", [1, 4])
def test_plate_nesting_can_be_found_out(name: str, particles: int) -> None:
    model, x = vae(), data_for("Bernoulli")
    objective = OBJECTIVES[name](particles, vectorize_particles=True)
    objective.loss(model.model, model.guide, x)  # which runs the programs once more, to find out
    found = loss_at(objective, model, x)
    torch.testing.assert_close(loss_at(make_objective(OBJECTIVES[name], particles), model, x), found)


def test_mean_field_says_where_it_samples() -> None:
    x = data_for("Bernoulli")
    check_mean_field(vae().model, vae().guide, x)
    for prior, posterior, words in [
        ("Mixture", "DiagonalNormal", "from independent Normal to DiagonalNormalMixture"),
        ("StudentT", "FullNormal", "from MultivariateNormal to independent StudentT"),
        ("StandardNormal", "Flow, neural spline", "from FlowDistribution to independent Normal"),
    ]:
        model = vae(prior, posterior=posterior)
        with pytest.warns(UserWarning, match=f"no analytic KL {words} is known at the site 'z', so it is"):
            check_mean_field(model.model, model.guide, x)


def test_mean_field_is_refused_where_it_would_be_wrong() -> None:
    """Bottom-up guide, top-down model: p(z1|z2) at a z2 that was drawn from q(z2|z1)."""
    data = pv.Digits()
    model = pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(3, 2))
    with refused(r"the same sites in the same order, got \['z2', 'z1'\] and \['z1', 'z2'\]: use Trace_ELBO"):
        pv.fit(model, data, epochs=1, objective=TraceMeanField_ELBO)


def test_guides_without_reparameterisation_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))

    for objective in (pv.ImportanceWeightedELBO(3), pv.FreeBitsELBO(3)):
        with refused("expects reparameterised sites in the guide, got 'z' with .*Bernoulli: use Trace_ELBO"):
            objective.loss(model, guide, torch.randn(4))


@pytest.mark.parametrize("gradient", ["plain", "stl", "dreg"])
def test_subsampled_and_missing_plates_and_scales_are_refused(gradient: Any) -> None:
    def program(
        x: Tensor, size: int, name: str = "data", scale: float = 1.0, *, observe: bool = True
    ) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate(name, size, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1))
            if observe:
                with pyro.poutine.scale(scale=scale):
                    pyro.sample("x", dist.Normal(z, 1), obs=x)

    objective, x = pv.ImportanceWeightedELBO(3, gradient=gradient), torch.randn(4)
    guide = partial(program, observe=False)
    objective.loss_and_grads(program, guide, x, 4)
    for arguments in ((x, 40), (x, 4, "other")):
        with refused('every site inside a pyro.plate named "data" that is not subsampled, got the site'):
            objective.loss_and_grads(program, guide, *arguments)
    with refused(r"expects observed sites without a scale, got 'x' with 0.5: log Σ w\^s is another bound"):
        objective.loss_and_grads(program, guide, x, 4, "data", 0.5)


def test_masked_sites_are_refused_by_dreg() -> None:
    model, x = vae(), data_for("Bernoulli")
    kept = torch.arange(len(x)) > 2
    masked = [pyro.poutine.mask(program, mask=kept) for program in (model.model, model.guide)]
    pv.ImportanceWeightedELBO(3, 1, gradient="plain").loss_and_grads(*masked, x)
    with refused("dreg expects latent sites without a mask: use gradient plain"):
        pv.ImportanceWeightedELBO(3, 1).loss_and_grads(*masked, x)


class Dropping(pv.MLP):
    """An MLP whose features drop out."""

    def encoder(self, data_shape: Any) -> pv.Network:
        network = super().encoder(data_shape)
        network.layers = nn.Sequential(network.layers, nn.Dropout(0.5))
        return network


def test_dropout_in_the_encoder_leaves_the_bound_as_it_is() -> None:
    """The density of a draw is that under the very mask it was drawn with."""
    data = pv.Digits()
    model, x = pv.assemble(data, network=Dropping()).train(), data.test.batch()[:20]
    losses = [
        loss_at(pv.ImportanceWeightedELBO(5, 1, gradient=kind), model, x) for kind in ("plain", "stl", "dreg")
    ]
    torch.testing.assert_close(losses[1:], [losses[0]] * 2)
    layered = pv.assemble(data, program=pv.HierarchicalVAE, latent_dim=(4, 2), network=Dropping()).train()
    loss_at(pv.ImportanceWeightedELBO(5, 1, gradient="plain"), layered, x)
    with refused("runs the guide again, and got another density at the same draws of 'z1', as by dropout"):
        loss_at(pv.ImportanceWeightedELBO(5, 1), layered, x)


def test_objectives_of_pyro_are_made_as_meant() -> None:
    made = make_objective(partial(RenyiELBO, alpha=0.0), 5)
    assert (made.alpha, made.num_particles) == (0.0, 5)
    model, x = vae(), data_for("Bernoulli")
    expected = loss_at(pv.ImportanceWeightedELBO(5, 1, gradient="plain"), model, x)
    gradient = gradients(model)
    torch.testing.assert_close(loss_at(made, model, x), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradients(model), gradient, rtol=1e-3, atol=1e-4)
    with refused(
        "objective expects a class as Trace_ELBO, or a partial of one, got an instance of Trace_ELBO"
    ):
        make_objective(Trace_ELBO(), 1)
    for unusable in (ReweightedWakeSleep, TraceTailAdaptive_ELBO, JitTrace_ELBO):
        with refused(f"got one that makes {unusable.__name__}: use Trace_ELBO, TraceMeanField_ELBO"):
            make_objective(unusable, 2)


class Enumerated(pv.JointProgram):
    """A class of three for each datum, summed over by TraceEnum_ELBO."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.head = nn.Linear(64, 3)

    def model(self, x: Tensor) -> Tensor:
        self.register(self)
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            p = (k.to(x.dtype)[..., None] + 1) / 5
            return pyro.sample("x", dist.Bernoulli(p.expand(*k.shape, 64)).to_event(1), obs=x.flatten(1))

    @config_enumerate
    def guide(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("k", dist.Categorical(logits=self.head(x.flatten(1))))


def test_the_elbo_of_an_enumerated_guide_is_logged() -> None:
    data = pv.Digits(form=pv.Static())
    torch.manual_seed(0)
    model = Enumerated()
    history = pv.fit(model, data, epochs=1, optimiser=STILL, objective=TraceEnum_ELBO)
    terms = pv.elbo(model.model, model.guide, data.train.batch(), num_particles=300)
    assert history.epochs[0].train_elbo == pytest.approx(float(terms.elbo.mean()), abs=0.01)


def test_an_objective_is_left_as_it_was_found() -> None:
    data, made = pv.Digits(), pv.FreeBitsELBO(1, 1)
    for _ in range(2):
        pv.fit(pv.assemble(data, latent_dim=2), data, epochs=1, objective=lambda **_: made)
        assert "_get_trace" not in vars(made)


def test_resume_in_the_middle_of_a_warm_up_is_exact(tmp_path: Path) -> None:
    data = pv.Digits()

    def trained(folder: Path, epochs: int, **changed: Any) -> pv.VAE:
        torch.manual_seed(0)
        model = pv.assemble(data, latent_dim=2)
        options: dict[str, Any] = {"kl_warm_up": 3, "kl_weight": 0.7, "objective": pv.ImportanceWeightedELBO}
        options |= {
            "epochs": epochs,
            "num_particles": 3,
            "checkpoints": folder,
            "resume": True,
            "keep": "last",
        }
        pv.fit(model, data, **(options | changed))
        return model

    whole = trained(tmp_path / "whole", 4)
    trained(tmp_path / "parts", 2)
    parts = trained(tmp_path / "parts", 4)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"kl_warm_up": 2}, "made with kl_warm_up 3, got 2"),
        ({"kl_weight": 0.5}, "made with kl_weight 0.7, got 0.5"),
        ({"objective": Trace_ELBO}, "made with objective ImportanceWeightedELBO .*'dreg'.*, got Trace_ELBO"),
        (
            {"objective": partial(pv.ImportanceWeightedELBO, gradient="stl")},
            "made with objective ImportanceWeightedELBO .*'dreg'.*, got ImportanceWeightedELBO .*'stl'",
        ),
    ]
    for changed, text in refusals:
        with refused(text):
            trained(tmp_path / "whole", 4, **changed)


def test_patience_waits_for_the_warm_up() -> None:
    data = pv.Digits()
    # a learning rate of nothing, so that no epoch is better than the first
    options: dict[str, Any] = {"optimiser": STILL, "patience": 2, "epochs": 9}
    assert len(pv.fit(pv.assemble(data), data, **options).epochs) == 3
    assert len(pv.fit(pv.assemble(data), data, kl_warm_up=5, **options).epochs) == 7


def test_choices_are_checked() -> None:
    with refused("gradient expects 'dreg', 'stl' or 'plain', got 'typo'"):
        pv.ImportanceWeightedELBO(3, gradient="typo")  # type: ignore[arg-type]
    with refused("free_bits expects a number of nats that is not negative, got -1"):
        pv.FreeBitsELBO(free_bits=-1)
    with refused("objective expects a class of ELBO whose gradient is that of one loss, got one .* Linear"):
        make_objective(lambda *_, **__: nn.Linear(1, 1), 1)
    data = pv.Digits()
    for options, text in [
        ({"kl_weight": -1.0}, "kl_weight expects a number that is not negative, got -1.0"),
        ({"kl_warm_up": -1}, "kl_warm_up expects a positive whole number, got -1"),
        ({"num_particles": 0}, "num_particles expects a positive whole number, got 0"),
    ]:
        with refused(text):
            pv.fit(pv.assemble(data), data, epochs=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_unweighted_elbo_is_logged(name: str) -> None:
    """Whatever is maximised: at the same draws and parameters, the same ELBO."""
    data = pv.Digits()
    elbos = []
    for objective, beta in ((Trace_ELBO, 1.0), (OBJECTIVES[name], 1.0), (OBJECTIVES[name], 3.0)):
        torch.manual_seed(1)
        model = pv.assemble(data, latent_dim=2)
        history = pv.fit(
            model, data, epochs=1, optimiser=STILL, objective=objective, num_particles=4, kl_weight=beta
        )
        elbos.append((history.epochs[0].train_elbo, history.epochs[0].valid_elbo))
    # TraceMeanField has the exact KL instead of that of the draws
    tolerance = 2e-2 if name == "TraceMeanField" else 1e-4
    assert elbos[1] == pytest.approx(elbos[0], abs=tolerance)
    assert elbos[2] == pytest.approx(elbos[0], abs=tolerance)


def test_warm_up_rises_step_by_step_as_a_tensor() -> None:
    data = pv.Digits()
    seen: list[Tensor] = []

    class Listening(Trace_ELBO):
        def _get_trace(self, *args: Any) -> Any:
            traces = super()._get_trace(*args)
            seen.extend(trace.nodes["z"]["scale"].clone() for trace in traces)
            assert traces[0].nodes["x"]["scale"] == 1
            return traces

    history = pv.fit(
        pv.assemble(data, latent_dim=2), data, epochs=3, objective=Listening, kl_weight=0.5, kl_warm_up=2
    )
    steps = history.epochs[0].step
    expected = [0.5 * min(1, (step + 1) / (2 * steps)) for step in range(3 * steps) for _ in range(2)]
    torch.testing.assert_close(torch.stack(seen), torch.tensor(expected))
    assert history.column("kl_weight") == pytest.approx([0.25, 0.5, 0.5])


def test_training_with_an_objective_is_plain_svi(float64: None) -> None:
    """`fit` with the importance-weighted bound is a loop of `SVI.step`, to the last bit."""
    data = pv.Digits(form=pv.Static())
    torch.manual_seed(3)
    first = pv.assemble(data, latent_dim=2)
    torch.manual_seed(3)
    second = pv.assemble(data, latent_dim=2)
    pv.fit(first, data, epochs=1, objective=pv.ImportanceWeightedELBO, num_particles=5, keep="last", seed=7)
    svi = SVI(
        second.model,
        second.guide,
        pyro.optim.Adam({"lr": 1e-3, "fused": True}),
        pv.ImportanceWeightedELBO(5, max_plate_nesting=1),
    )
    torch.manual_seed(7)
    for x in batches(data.train, 100, seed=7, epoch=1):
        svi.step(x.double())
    for (name, ours), theirs in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
