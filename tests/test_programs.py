"""HierarchicalVAE and Autoencoder: against VAE, against closed forms, and what they refuse."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.distributions import MultivariateNormal

import pyro_vae as pv
from pyro_vae.cli import main
from tests.components import (
    DATA_SHAPE,
    LATENT_DIM,
    LIKELIHOODS,
    OBJECTIVES,
    POSTERIORS,
    PRIORS,
    SMALL,
    data_for,
    refused,
    vae,
)


def hierarchical(prior: str = "StandardNormal", posterior: str = "DiagonalNormal") -> pv.HierarchicalVAE:
    """Three layers of 3, 2 and 3 dimensions."""
    likelihoods = [LIKELIHOODS["Bernoulli"](DATA_SHAPE, 3)]
    for below, dim in ((3, 2), (2, 3)):
        likelihoods.append(LIKELIHOODS["Normal, scale per pixel"]((below,), dim))
    posteriors = [POSTERIORS[posterior](shape, dim) for shape, dim in ((DATA_SHAPE, 3), ((3,), 2), ((2,), 3))]
    pz = PRIORS[prior](3)
    if isinstance(pz, pv.VampPrior):
        pz = pv.VampPrior(posteriors[-1], torch.rand(9, 2), components=4)
    return pv.HierarchicalVAE(pz, likelihoods, posteriors)


def test_one_layer_is_a_vae(float64: None) -> None:
    """The same components, the same draws: equal loss, gradient, ELBO, log p(x) and samples, to the bit."""
    single, x = vae("Mixture"), data_for("Bernoulli").double()
    layered = pv.HierarchicalVAE(single.prior, [single.likelihood], [single.posterior])
    found: list[list[Tensor]] = []
    for model in (single, layered):
        torch.manual_seed(0)
        loss = Trace_ELBO(3, 1, vectorize_particles=True).loss_and_grads(model.model, model.guide, x)
        gradients = [p.grad.clone() for p in single.parameters() if p.grad is not None]
        single.zero_grad()
        result = pv.log_evidence(model.model, model.guide, x, num_particles=20)
        terms = pv.elbo(model.model, model.guide, x)
        seen = [model.sample(5), model.encode(x), model.decode(model.encode(x)), model.reconstruct(x)]
        estimates = result.estimate, result.standard_error, result.effective_sample_size
        numbers = [*gradients, *estimates, terms.elbo, terms.reconstruction, terms.kl]
        found.append([torch.tensor(loss), *numbers, *seen, *model.latent_plane()])
    assert len(found[0]) == len(found[1])
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_sites_and_their_conditions() -> None:
    model, x = hierarchical(), data_for("Bernoulli")
    guide_trace = poutine.trace(model.guide).get_trace(x)
    trace = poutine.trace(poutine.replay(model.model, trace=guide_trace)).get_trace(x)
    assert [name for name in guide_trace.stochastic_nodes if name != "data"] == ["z1", "z2", "z3"]
    assert [name for name in trace.stochastic_nodes if name != "data"] == ["z3", "z2", "z1"]
    trace.compute_log_prob()
    guide_trace.compute_log_prob()
    z1, z2, z3 = (guide_trace.nodes[f"z{layer}"]["value"] for layer in (1, 2, 3))
    for found, density, value in [
        (trace.nodes["x"], model.likelihoods[0](z1), x),
        (trace.nodes["z1"], model.likelihoods[1](z2), z1),
        (trace.nodes["z2"], model.likelihoods[2](z3), z2),
        (trace.nodes["z3"], model.prior(), z3),
        (guide_trace.nodes["z1"], model.posteriors[0](x), z1),
        (guide_trace.nodes["z2"], model.posteriors[1](z1), z2),
        (guide_trace.nodes["z3"], model.posteriors[2](z2), z3),
    ]:
        torch.testing.assert_close(found["log_prob"], density.log_prob(value))


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_one_step_moves_every_parameter_of_every_layer(prior: str, posterior: str) -> None:
    for objective in (Trace_ELBO(max_plate_nesting=1), pv.ImportanceWeightedELBO(2)):
        pyro.clear_param_store()
        model, x = hierarchical(prior, posterior), data_for("Bernoulli", 20)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.01}), objective)
        assert torch.isfinite(torch.tensor(svi.step(x)))
        stuck = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
        assert stuck == []


def test_gradients_of_a_hierarchy_agree_in_expectation(float64: None) -> None:
    """A draw z1 reaches the weights both itself and through q(z2|z1): once each in dreg."""
    flat = pv.MLP(())
    model = pv.HierarchicalVAE(
        pv.StandardNormalPrior(2),
        [
            pv.NormalLikelihood(flat.decoder(dim, (size,)), (size,), scale=0.5)
            for size, dim in ((3, 2), (2, 2))
        ],
        [pv.DiagonalNormalPosterior(flat.encoder((size,)), 2) for size in (3, 2)],
    )
    x = torch.randn(1, 3).expand(500, 3)
    means: dict[str, Tensor] = {}
    for gradient in ("plain", "dreg"):
        rows = []
        for _ in range(60):
            model.zero_grad()
            bound = pv.ImportanceWeightedELBO(5, 1, gradient=gradient)
            bound.loss_and_grads(model.model, model.guide, x)
            rows.append(torch.cat([p.grad.flatten() for p in model.posteriors.parameters()]))
        means[gradient] = torch.stack(rows)
    error = sum(rows.var(0) / 60 for rows in means.values()) ** 0.5
    assert ((means["plain"].mean(0) - means["dreg"].mean(0)).abs() < 4 * error).all()


def test_log_evidence_of_a_linear_hierarchy_has_its_closed_form(float64: None) -> None:
    """Two linear-normal layers are one normal: log p(x) within 4 standard errors, for each datum."""
    flat = pv.MLP(())
    likelihoods = [
        pv.NormalLikelihood(flat.decoder(2, (3,)), (3,), scale=0.7),
        pv.NormalLikelihood(flat.decoder(2, (2,)), (2,), scale=0.5),
    ]
    posteriors = [pv.DiagonalNormalPosterior(flat.encoder((size,)), 2) for size in (3, 2)]
    with torch.no_grad():  # wide, so that the weights have a finite variance
        for posterior in posteriors:
            for parameter in posterior.parameters():
                parameter.zero_()
            posterior.log_scale.layers[1].bias.fill_(0.3)
    model = pv.HierarchicalVAE(pv.StandardNormalPrior(2), likelihoods, posteriors)
    (w1, b1), (w2, b2) = ((px.loc.layers[1].weight, px.loc.layers[1].bias) for px in likelihoods)
    covariance = w1 @ (w2 @ w2.T + 0.25 * torch.eye(2)) @ w1.T + 0.49 * torch.eye(3)
    x = torch.randn(20, 3)
    exact = MultivariateNormal(b1 + w1 @ b2, covariance).log_prob(x)
    result = pv.log_evidence(model.model, model.guide, x, num_particles=20_000)
    assert ((result.estimate - exact).abs() < 4 * result.standard_error).all()


def test_assemble_a_hierarchy_of_classes() -> None:
    model = pv.assemble(
        pv.Digits(),
        program=pv.HierarchicalVAE,
        latent_dim=(5, 4, 2),
        upper_network=pv.MLP((9,)),
        prior=partial(pv.VampPrior, components=30),
        posterior=pv.FullNormalPosterior,
    )
    assert [tuple(px.data_shape) for px in model.likelihoods] == [(1, 8, 8), (5,), (4,)]
    assert isinstance(model.likelihoods[0], pv.BernoulliLikelihood)
    assert [type(qz) for qz in model.posteriors] == [pv.FullNormalPosterior] * 3
    assert isinstance(model.prior, pv.VampPrior)
    assert model.prior.posterior is model.posteriors[2]
    assert model.prior.pseudo_inputs.shape == (30, 4)  # data as the uppermost posterior sees them
    assert model.sample(3).shape == (3, 1, 8, 8)
    x = pv.Digits().test.batch()[:4]
    assert model.encode(x).shape == (4, 2)
    assert model.decode(model.encode(x)).shape == model.reconstruct(x).shape == x.shape


def test_refusals_of_a_hierarchy() -> None:
    likelihoods, posteriors = (
        [LIKELIHOODS["Bernoulli"](DATA_SHAPE, 3)],
        [POSTERIORS["DiagonalNormal"](DATA_SHAPE, 3)],
    )
    with refused("expected one posterior for each likelihood, got 1 and 0"):
        pv.HierarchicalVAE(pv.StandardNormalPrior(3), [], posteriors)
    with refused(r"one length of z in each layer, got \[\(3,\)\] in the posteriors, \[\(3,\)\] as inputs"):
        pv.HierarchicalVAE(pv.StandardNormalPrior(2), likelihoods, posteriors)
    with refused(
        r"asks for one posterior has one stochastic layer, got latent_dim \[3, 2\]: give one number"
    ):
        pv.assemble(pv.Digits(), latent_dim=(3, 2))
    model = hierarchical()
    with refused(r"the model expects data of shape \(1, 5, 4\), got \(1, 4, 5\)"):
        model.check(torch.zeros(2, 1, 4, 5))
    with refused("BernoulliLikelihood expects the values 0 and 1"):
        model.check(torch.full((2, *DATA_SHAPE), 0.5))


def autoencoder(loss: str = "squared_error") -> pv.Autoencoder:
    return pv.Autoencoder(
        SMALL.encoder(DATA_SHAPE),
        SMALL.decoder(LATENT_DIM, DATA_SHAPE),
        LATENT_DIM,
        DATA_SHAPE,
        loss=loss,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_the_loss_of_an_autoencoder_by_hand(loss: str, float64: None) -> None:
    model, x = autoencoder(loss), torch.rand(6, *DATA_SHAPE)
    back = model.reconstruct(x)
    if loss == "squared_error":
        error = (x - back).square().sum((1, 2, 3))
    else:
        error = -(x * back.log() + (1 - x) * (1 - back).log()).sum((1, 2, 3))
    trace = Trace_ELBO(max_plate_nesting=1)
    assert trace.loss(model.model, model.guide, x) == pytest.approx(error.sum().item(), rel=1e-12)
    several = Trace_ELBO(4, max_plate_nesting=1, vectorize_particles=True)
    assert several.loss(model.model, model.guide, x) == pytest.approx(error.sum().item(), rel=1e-12)
    terms = pv.elbo(model.model, model.guide, x, num_particles=3)
    torch.testing.assert_close(terms.elbo, -error)
    assert terms.kl.abs().max() == 0
    torch.testing.assert_close(model.decode(model.encode(x)), back)


def test_fit_trains_an_autoencoder_as_torch_does(float64: None) -> None:
    data = pv.Digits(form=pv.Levels())
    torch.manual_seed(0)
    ours = pv.assemble(data, program=pv.Autoencoder, latent_dim=2)
    torch.manual_seed(0)
    theirs = pv.assemble(data, program=pv.Autoencoder, latent_dim=2)
    history = pv.fit(ours, data, epochs=2, keep="last")
    optimiser = torch.optim.Adam(theirs.parameters(), lr=1e-3, fused=True)
    for epoch in (1, 2):
        total = 0.0
        for x in pv.data.batches(data.train, 100, seed=0, epoch=epoch):
            optimiser.zero_grad()
            error = theirs.error(x.double()).sum()
            error.backward()
            optimiser.step()
            total += error.item()
        assert history.epochs[epoch - 1].train_elbo == pytest.approx(-total / len(data.train), rel=1e-12)
    for first, second in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_an_autoencoder_has_no_log_evidence_and_no_samples() -> None:
    model, x = autoencoder(), torch.rand(6, *DATA_SHAPE)
    for estimate in (pv.log_evidence, pv.log_weights):
        with refused("an Autoencoder has no distribution on the code, so it has no p.x., only a recon"):
            estimate(model.model, model.guide, x, num_particles=3)
    with refused("no distribution on the code, so it has nothing to sample from"):
        model.sample(3)
    with refused(r"Autoencoder has no p\(z\): give codes, as codes=vae.encode\(x\)"):
        model.latent_plane()
    codes = torch.randn(500, LATENT_DIM)
    _, across, _ = model.latent_plane((1, 2), num=4, codes=codes)
    torch.testing.assert_close(across, codes[:, 1].quantile(torch.tensor([0.125, 0.375, 0.625, 0.875])))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_autoencoder_trains_by_any_objective(objective: str) -> None:
    """All are its error: there is no KL to weigh."""
    data = pv.Digits()
    choices: list[dict[str, Any]] = [{}, {"kl_weight": 0.5}, {"kl_warm_up": 1}]
    for options in choices:
        torch.manual_seed(0)
        model = pv.assemble(data, program=pv.Autoencoder, latent_dim=2)
        history = pv.fit(model, data, epochs=1, objective=OBJECTIVES[objective], **options)
        torch.manual_seed(0)
        plain = pv.assemble(data, program=pv.Autoencoder, latent_dim=2)
        expected = pv.fit(plain, data, epochs=1)
        assert history.epochs[0].train_elbo == pytest.approx(expected.epochs[0].train_elbo, rel=1e-5)


@pytest.mark.parametrize("latent_dim", [2, (3, 2)])
def test_vamp_priors_in_float64(latent_dim: int | tuple[int, ...], float64: None) -> None:
    """The pseudo-inputs are of the type of the posterior that reads them."""
    data, prior = pv.Digits(), partial(pv.VampPrior, components=9)
    program: Any = pv.VAE if isinstance(latent_dim, int) else pv.HierarchicalVAE
    model = pv.assemble(data, program=program, latent_dim=latent_dim, prior=prior)
    assert pv.fit(model, data, epochs=1).epochs[0].train_elbo > -60


def test_what_assemble_cannot_do_is_refused() -> None:
    data = pv.Digits()

    class Asking(pv.StandardNormalPrior):
        def __init__(self, latent_dim: int, encoder: torch.nn.Module) -> None:
            super().__init__(latent_dim)

    with refused("the prior Asking needs encoder, which is not filled in: give it a default or a value"):
        pv.assemble(data, prior=Asking)
    wrong: list[tuple[Any, str]] = [
        ((), "latent_dim expects a number or several, got none"),
        (2.5, r"latent_dim expects positive whole numbers, got \(2.5,\)"),
        (0, r"latent_dim expects positive whole numbers, got \(0,\)"),
    ]
    for latent_dim, text in wrong:
        with refused(text):
            pv.assemble(data, latent_dim=latent_dim)
    three: Any = np.int64(3)
    assert pv.assemble(data, latent_dim=three).prior.latent_dim == 3
    with refused("upper_network is that between the layers of z, got one layer"):
        pv.assemble(data, upper_network=pv.MLP())
    chosen: dict[str, Any] = {
        "prior": pv.MixturePrior,
        "likelihood": pv.PoissonLikelihood,
        "posterior": pv.FullNormalPosterior,
    }
    for name, part in chosen.items():
        with refused(f"Autoencoder has no {name}, got {part.__name__}: leave it out"):
            pv.assemble(data, program=pv.Autoencoder, **{name: part})


def test_refusals_of_an_autoencoder() -> None:
    with refused("loss expects 'squared_error' or 'cross_entropy', got 'typo'"):
        autoencoder("typo")
    with refused(r"the model expects data of shape \(1, 5, 4\), got \(1, 4, 5\)"):
        autoencoder().check(torch.zeros(2, 1, 4, 5))
    with refused("cross_entropy expects values from 0 to 1, got some from -1 to 0: rescale the data"):
        autoencoder("cross_entropy").check(torch.zeros(2, *DATA_SHAPE) - torch.tensor([[[[1.0]]], [[[0.0]]]]))
    autoencoder().check(-torch.ones(2, *DATA_SHAPE))


SMALL_RUN = ("--network.hidden_dims", "[8]", "--epochs", "1", "--particles", "5")


def test_commands_on_a_hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--program", "HierarchicalVAE", "--latent_dim", "[3,2]", "--upper_network", "GatedMLP")
    width = ("--upper_network.hidden_dims", "[6]")
    assert main(["train", *options, *width, *SMALL_RUN, "--out", "run"]) == 0
    assert main(["train", "--config", "run/config.yaml", "--out", "again"]) == 0
    states = [torch.load(Path(run) / "checkpoints" / "last.pt")["model"] for run in ("run", "again")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[0]["posteriors.1.encoder.layers.1.weight"].shape == (12, 3)
    for command in (["evaluate", "run", "--particles", "3"], ["sample", "run"], ["reconstruct", "run"]):
        assert main(command) == 0
    assert main(["traverse", "run"]) == 0


def test_commands_on_an_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--program", "Autoencoder", "--program.loss", "cross_entropy", "--data.form", "Levels")
    assert main(["train", *options, *SMALL_RUN, "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "error" in out and "none: an Autoencoder has no distribution on the code" in out
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["log_evidence"] is None
    assert "has no p(x)" in summary["no_log_evidence"]
    for command in (["evaluate", "run"], ["reconstruct", "run"], ["traverse", "run"]):
        assert main(command) == 0
    for command in (["sample", "run"], ["compare", "run", "run/../run"]):
        capsys.readouterr()
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1
    main(["train", *SMALL_RUN, "--out", "vae"])
    capsys.readouterr()
    assert main(["compare", "vae", "run"]) == 2
    assert "has no distribution on the code" in capsys.readouterr().err
