"""The joint program: sites, plates, parameters, conveniences, refusals."""

from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.data import DataFacts
from tests.components import DATA_SHAPE, LATENT_DIM, LIKELIHOODS, PRIORS, data_for, refused, vae


def moved(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_sites_and_plates() -> None:
    model, x = vae(), data_for("Bernoulli")
    guide_trace = poutine.trace(model.guide).get_trace(x)
    trace = poutine.trace(poutine.replay(model.model, trace=guide_trace)).get_trace(x)
    assert [name for name in trace.stochastic_nodes if name != "data"] == ["z"]
    assert trace.observation_nodes == ["x"]
    assert torch.equal(trace.nodes["z"]["value"], guide_trace.nodes["z"]["value"])
    for name in ("z", "x"):
        (frame,) = trace.nodes[name]["cond_indep_stack"]
        assert (frame.name, frame.dim, frame.size) == ("data", -1, len(x))
    expected = model.prior().log_prob(guide_trace.nodes["z"]["value"])
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], expected)


def test_predictive_draws_from_the_guide() -> None:
    model, x = vae(), data_for("Bernoulli")
    draws = Predictive(model.model, guide=model.guide, num_samples=7, return_sites=("z",))(x)
    assert draws["z"].shape == (7, len(x), LATENT_DIM)
    free = Predictive(poutine.uncondition(model.model), num_samples=7)(x)
    assert free["x"].shape == (7, len(x), *DATA_SHAPE)
    assert not torch.equal(free["x"][0], x)


@pytest.mark.parametrize("prior", PRIORS)
def test_two_models_under_plain_svi_take_turns(prior: str) -> None:
    """The parameter store keeps the first model's entries; the second must train all the same."""
    first, second, x = vae(prior), vae(prior), data_for("Bernoulli")
    svis = [SVI(m.model, m.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()) for m in (first, second)]
    for model, svi in [(first, svis[0]), (second, svis[1]), (first, svis[0])]:
        before = copied(model)
        svi.step(x)
        assert moved(model, before)


def test_another_program_of_the_same_components_trains() -> None:
    """Tensors that the store holds under a second name do not stand in the way."""

    class Other(pv.VAE):
        pass

    first, x = vae("Vamp"), data_for("Bernoulli")
    second = Other(first.prior, first.likelihood, first.posterior)
    third, fourth = (
        vae("Vamp"),
        Other(*(getattr(vae("Vamp"), role) for role in ("prior", "likelihood", "posterior"))),
    )
    for model in (first, second, third, fourth, first):
        before = copied(model)
        SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)
        assert moved(model, before)


def test_frozen_parameters_stay() -> None:
    model, x = vae(), data_for("Bernoulli")
    model.likelihood.requires_grad_(False)
    before = copied(model)
    SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("likelihood")


def test_conveniences() -> None:
    model, x = vae(), data_for("Bernoulli")
    assert torch.equal(model.encode(x), model.posterior(x).mean)
    z = torch.randn(2, 3, LATENT_DIM)
    assert torch.equal(model.decode(z), model.likelihood(z).mean)
    assert set(model.sample(20).unique().tolist()) == {0.0, 1.0}
    means = model.sample(20, mean=True)
    assert means.shape == (20, *DATA_SHAPE)
    assert means.min() > 0 and means.max() < 1
    torch.manual_seed(1)
    reconstructed = model.reconstruct(x)
    torch.manual_seed(1)
    assert torch.equal(reconstructed, model.decode(model.posterior(x).sample()))
    assert not any(t.requires_grad for t in (model.encode(x), model.decode(z), means, reconstructed))


def test_sampling_follows_prior_and_likelihood() -> None:
    """The mean of many draws is the mean of the decoded prior, within 5 standard errors."""
    model = vae(likelihood="Normal, fixed scale")
    with torch.no_grad():
        model.likelihood.decoder.layers[1].weight.mul_(3)
    draws, decoded = model.sample(40_000), model.decode(torch.randn(40_000, LATENT_DIM))
    error = ((draws.var(0) + decoded.var(0)) / 40_000).sqrt()
    assert ((draws.mean(0) - decoded.mean(0)).abs() < 5 * error).all()


def test_assemble_fills_in_what_a_constructor_names() -> None:
    class Wide(pv.StandardNormalPrior):
        def __init__(self, latent_dim: int, data_shape: tuple[int, ...], *, width: float = 2.0) -> None:
            super().__init__(latent_dim)
            self.seen = data_shape
            self.scale.fill_(width)

    data = pv.Digits()
    model = pv.assemble(
        data,
        latent_dim=2,
        network=pv.Convolutional((3,)),
        prior=partial(Wide, width=5.0),
        likelihood=partial(pv.NormalLikelihood, scale=0.5),
    )
    assert isinstance(model.prior, Wide)
    assert (model.prior.seen, model.prior.latent_dim) == ((1, 8, 8), 2)
    assert model.prior().stddev.tolist() == [5.0, 5.0]
    assert model.likelihood(torch.zeros(2)).stddev.unique().tolist() == [0.5]
    assert isinstance(model.posterior.encoder, pv.Network)


@pytest.mark.parametrize("network", [pv.Convolutional, partial(pv.Convolutional, channels=(3,))])
def test_assemble_asks_for_a_network_that_is_made(network: Any) -> None:
    with refused(r"network expects an instance, such as MLP\(\(200, 200\)\), got Conv.*: call it"):
        pv.assemble(pv.Digits(), network=network)


def test_assemble_gives_a_vamp_prior_the_posterior_itself() -> None:
    model = pv.assemble(pv.Digits(), prior=partial(pv.VampPrior, components=7))
    assert isinstance(model.prior, pv.VampPrior)
    assert model.prior.posterior is model.posterior
    assert model.prior.pseudo_inputs.shape == (7, 1, 8, 8)


def test_the_posterior_of_grey_levels_sees_them_less_the_mean_of_each_pixel() -> None:
    for form in (pv.Levels(), pv.Dequantised()):
        data = pv.Digits(form=form)
        model = pv.assemble(data, latent_dim=2, network=pv.MLP((5,)), likelihood=pv.NormalLikelihood)
        x, train = data.test.batch()[:3], data.train.subset(1000).stored / 16
        seen = 2 * (x - train.mean(0))
        torch.testing.assert_close(model.posterior(x).mean, model.posterior.component(seen).mean)
        again = pv.assemble(
            DataFacts.of(data), latent_dim=2, network=pv.MLP((5,)), likelihood=pv.NormalLikelihood
        )
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.posterior(x).mean, model.posterior(x).mean)
    assert type(pv.assemble(pv.Digits()).posterior) is pv.DiagonalNormalPosterior  # of bits


def test_a_missing_grey_level_is_seen_as_the_mean_of_the_others() -> None:
    levels = torch.tensor([[0.0, 10.0], [torch.nan, 30.0], [40.0, torch.nan]])
    data = pv.Dataset(levels, form=pv.Levels(), maximum=40, missing=True)
    model = pv.assemble(data, latent_dim=2, likelihood=pv.CategoricalLikelihood)
    found, expected = (model.posterior(torch.tensor(x)).mean for x in ([0.5, torch.nan], [0.5, 0.5]))
    torch.testing.assert_close(found, expected)


def test_refusals() -> None:
    network = pv.MLP((4,))
    likelihood = pv.BernoulliLikelihood(network.decoder(2, (6,)), (6,))
    posterior = pv.DiagonalNormalPosterior(network.encoder((6,)), 3)
    with refused(
        r"expected one latent_dim, got 3 in the prior, 3 in the posterior and \(2,\) as the input of"
    ):
        pv.VAE(pv.StandardNormalPrior(3), likelihood, posterior)
    with refused(
        "expected a network that declares its output_shape, got Linear: wrap it as pyro_vae.Network"
    ):
        pv.DiagonalNormalPosterior(nn.Linear(6, 4), 3)
    with refused(r"expects inputs of shape \(6,\), got a tensor of shape \(2, 5\)"):
        posterior(torch.zeros(2, 5))
    with refused(r"pictures of shape \(C, H, W\), got data of shape \(6,\)"):
        pv.Convolutional().encoder((6,))
    with refused(r"hidden_dims expects positive whole numbers, got \(3, 0\)"):
        pv.MLP((3, 0))
    with refused("latent_dim expects a positive whole number, got 0"):
        pv.StandardNormalPrior(0)
    with refused("channels expects at least one number"):
        pv.Convolutional(())
    with refused(r"log_scale_bounds expects two finite increasing numbers, got \(2, 1\)"):
        pv.MixturePrior(2, log_scale_bounds=(2, 1))
    with refused("500 pseudo-inputs from data and got 4 examples"):
        pv.VampPrior(posterior, torch.rand(4, 6))
    for scale in (0.0, -1.0, float("inf"), "typo"):
        with refused("scale expects a number from 1e-6, 'shared' or 'per_pixel', got"):
            pv.NormalLikelihood(network.decoder(2, (6,)), (6,), scale=scale)  # type: ignore[arg-type]


def test_data_outside_the_support_are_refused_with_both_remedies() -> None:
    model = vae()
    x = data_for("Bernoulli")
    model.check(x)
    x[3, 0, 0, 0] = 0.25
    text = (
        "BernoulliLikelihood expects the values 0 and 1, got 0.25 among values from 0 to 1: binarise the data"
    )
    with refused(
        text + ".*form Dynamic.*or use .*, ContinuousBernoulliLikelihood for grey .*, NormalLikelihood for"
    ):
        model.check(x)
    with refused(r"the model expects data of shape \(1, 5, 4\), got \(1, 4, 5\)"):
        model.check(torch.zeros(2, 1, 4, 5))


@pytest.mark.parametrize(
    "name",
    [name for name in LIKELIHOODS if name.startswith(("Normal,", "Laplace")) and "standard" not in name],
)
def test_real_data_suit_a_location_scale_likelihood(name: str) -> None:
    model, x = vae(likelihood=name), torch.randn(3, *DATA_SHAPE)
    pv.fit(model, x, batch_size=3, steps=1)
    for strange, low in ((x * 1000, r"-[\d.]+ to [\d.]+"), (x / 1000, r"-0.00\d+ to 0.00\d+")):
        with pytest.warns(
            UserWarning, match=f"starts about 0 .*, got values from {low}, .*--data.form Standard"
        ):
            pv.fit(model, strange, batch_size=3, steps=1)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "ContinuousBernoulli",
            1.5,
            r"grey levels in \[0, 1\], got 1.5 .*: scale the data .*NormalLikelihood",
        ),
        (
            "Normal, shared scale",
            float("nan"),
            "finite numbers, got 1 NaN: where that means not observed, .*missing=True",
        ),
        (
            "Categorical",
            0.3,
            "the 5 levels k/4 from 0 to 1, got 0.3 among values from 0 to .*: put data of that many "
            "levels into .*, or .* ContinuousBernoulliLikelihood or NormalLikelihood",
        ),
        ("DiscretizedLogistic", -0.25, "the 5 levels k/4 from 0 to 1, got -0.25"),
        ("DiscretizedLogisticMixture", 1.25, "the 5 levels k/4 from 0 to 1, got 1.25"),
        (
            "Poisson",
            0.5,
            "counts in units of 1, from 0, got 0.5 .*: put counts into the form Counts",
        ),
        (
            "NegativeBinomial, in quarters",
            0.1,
            "counts in units of 0.25, from 0, got 0.1 .* NormalLikelihood",
        ),
    ],
)
def test_each_likelihood_refuses_what_it_has_no_density_for(name: str, value: float, text: str) -> None:
    model, x = vae(likelihood=name), data_for(name)
    model.check(x)
    x[3, 0, 0, 0] = value
    with refused(f"Likelihood expects {text}"):
        model.check(x)


def test_bits_are_no_grey_levels() -> None:
    model = vae(likelihood="ContinuousBernoulli")
    bits = data_for("Bernoulli", 10)
    with refused("expects grey levels between 0 and 1, got only 0 and 1: use .*, or use BernoulliLikelihood"):
        model.check(bits)
    model.check(bits[:9])  # a few pictures may be blank
    bits[0, 0, 0, 0] = 0.5
    model.check(bits)


@pytest.mark.parametrize("form", [pv.Levels(), pv.Dynamic()])
def test_assemble_fills_in_the_levels_of_the_data(form: pv.Form) -> None:
    data = pv.Digits(form=form)
    model = pv.assemble(data, likelihood=pv.CategoricalLikelihood)
    assert model.likelihood.levels == {"Levels": 17, "Dynamic": 2}[form.name]
    model.check(data.test.batch())


@pytest.mark.parametrize("likelihood", [pv.CategoricalLikelihood, pv.DiscretizedLogisticLikelihood])
def test_assemble_refuses_data_without_levels(likelihood: Any) -> None:
    real = pv.Dataset(torch.rand(5, 3))
    text = "needs data with levels, got Dataset as given: put whole numbers into the form Levels .*, or use a"
    with refused(text):
        pv.assemble(real, likelihood=likelihood)
    with refused("got Digits uniform dequantisation of 17 levels"):
        pv.assemble(pv.Digits(form=pv.Dequantised()), likelihood=likelihood)


def test_refusals_of_sizes_and_units() -> None:
    decoder = pv.MLP((4,)).decoder(2, (6,))
    for levels, text in ((1, "at least 2 of them, got 1"), (2.5, "a positive whole number, got 2.5")):
        with refused(f"levels expects {text}"):
            pv.CategoricalLikelihood(decoder, (6,), levels)  # type: ignore[arg-type]
    with refused("components expects a positive whole number, got 0"):
        pv.DiscretizedLogisticMixtureLikelihood(decoder, (6,), 4, components=0)
    with refused("log_scale_bounds expects two finite increasing numbers"):
        pv.DiscretizedLogisticLikelihood(decoder, (6,), 4, log_scale_bounds=(0, 0))
    for unit in (0.0, -1.0, float("inf")):
        with refused("unit expects a positive number, got"):
            pv.PoissonLikelihood(decoder, (6,), unit=unit)
