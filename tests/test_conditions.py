"""Components that depend on what is given beside x: p(x|y) trained, estimated and drawn from."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.networks import Conditions
from pyro_vae.storage.identity import options_in
from pyro_vae.vae.conditional import GivenLikelihood, GivenPosterior, shape_with
from tests.commands import Run
from tests.components import DATA_SHAPE, LATENT_DIM, LIKELIHOODS, POSTERIORS, data_for

DIGITS = pv.Digits(given=("label",))


def gaussian(classes: int = 3, dim: int = 4) -> pv.Dataset:
    """A mean for each class, and noise: of covariance I/4 and a direction of variance 2."""
    random = np.random.RandomState(0)
    label = np.arange(600) % classes
    means, direction = 2 * random.randn(classes, dim), random.randn(dim)
    x = means[label] + random.randn(600, 1) * direction + 0.5 * random.randn(600, dim)
    fields = {"train": {"label": label[:500]}, "test": {"label": label[500:]}}
    return pv.Dataset(x[:500], None, x[500:], fields=fields, given=("label",))


def linear_gaussian(data: pv.Dataset, prior: type[pv.Prior], latent_dim: int = 1) -> pv.VAE:
    return pv.assemble(
        data,
        condition="label",
        latent_dim=latent_dim,
        network=pv.MLP(()),
        prior=prior,
        likelihood=partial(pv.NormalLikelihood, scale=0.5),
        posterior=pv.FullNormalPosterior,
    )


def exact_density(vae: pv.VAE, label: Tensor) -> dist.MultivariateNormal:
    """p(x|y) of a linear-Gaussian VAE."""
    with torch.no_grad():
        num, like = len(label), next(vae.parameters())
        zero = torch.zeros(num, vae.prior.latent_dim, dtype=like.dtype)
        at_zero = vae.likelihood(zero, label=label).mean
        units = torch.eye(vae.prior.latent_dim, dtype=like.dtype)
        slopes = [vae.likelihood(zero + unit, label=label).mean - at_zero for unit in units]
        weight = torch.stack(slopes, -1)  # (B, D, L)
        pz = vae.prior(label=label) if vae.prior.conditions else vae.prior().expand((num,))
        loc = at_zero + (weight @ pz.mean[..., None])[..., 0]
        noise = 0.25 * torch.eye(loc.shape[-1], dtype=like.dtype)
        cov = (weight * pz.variance[:, None]) @ weight.mT + noise
    return dist.MultivariateNormal(loc, cov)


@pytest.mark.parametrize("prior", [pv.StandardNormalPrior, pv.ConditionalNormalPrior])
def test_the_evidence_of_a_linear_gaussian_model_is_that_of_the_closed_form(
    float64: None, prior: type[pv.Prior]
) -> None:
    data = gaussian()
    vae = linear_gaussian(data, prior, latent_dim=2)
    pv.fit(vae, data, epochs=60, optimiser=partial(torch.optim.Adam, lr=1e-2))  # for a guide that is near
    batch = vae.place(data.test.take(slice(0, 12)))
    exact = exact_density(vae, batch.given["label"]).log_prob(batch.x)
    found = pv.log_evidence(vae.model, vae.guide, batch.x, given=batch.given, num_particles=5000)
    assert ((found.estimate - exact).abs() <= 5 * found.standard_error + 1e-3).all()
    annealed = pv.annealed_log_evidence(
        vae.model, vae.guide, batch.x, given=batch.given, num_chains=32, num_temperatures=50
    )
    assert ((annealed.estimate - exact).abs() <= 5 * annealed.standard_error + 0.05).all()


def test_a_fit_reaches_the_likelihood_of_the_best_linear_gaussian_model() -> None:
    """The best one is known: of each class its mean, and of all one factor with the noise at 1/2."""
    data = gaussian()
    vae = linear_gaussian(data, pv.ConditionalNormalPrior)
    adam = partial(torch.optim.Adam, lr=1e-2)
    pv.fit(vae, data, epochs=150, optimiser=adam, keep="last")
    batch = vae.place(data.train.take())
    reached = float(exact_density(vae, batch.given["label"]).log_prob(batch.x).mean())
    label, x = batch.given["label"], batch.x.double()
    rest = x - torch.stack([x[label == each].mean(0) for each in range(3)])[label]
    values, vectors = torch.linalg.eigh(rest.mT @ rest / len(x))
    cov = 0.25 * torch.eye(4, dtype=torch.float64)
    cov += (values[-1] - 0.25) * torch.outer(vectors[:, -1], vectors[:, -1])
    best = float(dist.MultivariateNormal(torch.zeros(4, dtype=torch.float64), cov).log_prob(rest).mean())
    assert best - 0.1 < reached < best + 0.2  # a scale of z for each class can be better by a little


class Shift(pv.Prior):
    """z ~ N(age, 1)."""

    conditions = ("age",)

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.slope = torch.nn.Parameter(torch.ones(latent_dim))

    def forward(self, age: Tensor) -> Any:  # type: ignore[override]
        return dist.Normal(age[..., None] * self.slope, 1.0).to_event(1)


def test_a_component_of_ones_own_gets_what_it_names() -> None:
    age = np.linspace(-1, 1, 40).astype(np.float32)
    x = np.random.RandomState(0).randn(40, 3)
    data = pv.Dataset(x, fields={"train": {"age": age}})
    vae = pv.assemble(data, prior=Shift, latent_dim=2, likelihood=pv.NormalLikelihood)
    assert vae.conditions == ("age",)
    pv.fit(vae, data, epochs=2, batch_size=20)
    batch = data.train.take()
    with pyro.poutine.trace() as trace:
        vae.model(batch.x, **batch.given)
    expected = torch.as_tensor(age)[:, None] * vae.prior.slope
    torch.testing.assert_close(trace.trace.nodes["z"]["fn"].base_dist.loc, expected)
    torch.testing.assert_close(vae.code_prior(**batch.given).mean, expected)


def test_the_vector_of_conditions_has_classes_one_hot_and_numbers_as_they_are(float64: None) -> None:
    conditions = Conditions({"label": 3, "place": (2,), "age": ()})
    given = {
        "label": torch.tensor([2, 0]),
        "place": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "age": torch.tensor([7, 8]),
    }
    assert conditions(given).tolist() == [[0, 0, 1, 1, 2, 7], [1, 0, 0, 3, 4, 8]]
    assert conditions.size == 6 and not conditions.state_dict()


@pytest.mark.parametrize(
    "exposure", [torch.tensor([0.5, 2.0]), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])]
)
@pytest.mark.parametrize("likelihood", [pv.PoissonLikelihood, pv.NegativeBinomialLikelihood])
def test_counts_with_an_exposure_have_its_multiple_as_their_mean(
    float64: None, likelihood: Any, exposure: Tensor
) -> None:
    px = likelihood(pv.MLP((5,)).decoder(2, (3,)), (3,), exposure=True)
    z, x = torch.randn(4, 2, 2), torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 2.0]])
    exposure = exposure.double()
    found = px(z, exposure=exposure).log_prob(x)
    means = px(z, exposure=torch.ones(2)).mean.detach()
    assert found.shape == (4, 2)
    for k in range(4):
        for n in range(2):
            total = 0.0
            for d in range(3):
                e = float(exposure[n] if exposure.ndim == 1 else exposure[n, d])
                mean, count = e * float(means[k, n, d]), float(x[n, d])
                if likelihood is pv.PoissonLikelihood:
                    total += count * math.log(mean) - mean - math.lgamma(count + 1)
                else:
                    r = 1.0  # θ at the start
                    total += math.lgamma(count + r) - math.lgamma(r) - math.lgamma(count + 1)
                    total += r * math.log(r / (r + mean)) + count * math.log(mean / (r + mean))
            assert float(found[k, n].detach()) == pytest.approx(total, rel=1e-9)


def counts_with_exposure() -> pv.Dataset:
    random = np.random.RandomState(0)
    exposure = random.uniform(0.5, 3.0, 60)
    x = random.poisson(exposure[:, None] * np.array([1.0, 4.0])).astype(np.float32)
    return pv.Dataset(
        x[:50],
        None,
        x[50:],
        fields={"train": {"exposure": exposure[:50]}, "test": {"exposure": exposure[50:]}},
    )


def test_exposure_and_a_condition_go_together() -> None:
    data = counts_with_exposure()
    poisson = partial(pv.PoissonLikelihood, exposure=True)
    vae = pv.assemble(data, condition="exposure", latent_dim=1, likelihood=poisson)
    assert vae.conditions == ("exposure",)
    pv.fit(vae, data, epochs=2, batch_size=25)
    alone = pv.assemble(data, latent_dim=1, likelihood=poisson)
    pv.fit(alone, data, epochs=40, batch_size=50, optimiser=partial(torch.optim.Adam, lr=1e-2))
    more, less = (alone.sample(2000, mean=True, given={"exposure": each}).mean(0) for each in (2.0, 1.0))
    torch.testing.assert_close(more / less, torch.full((2,), 2.0), rtol=0.1, atol=0)
    with pytest.raises(pv.InputError, match=r"positive exposure of shape \(B,\) or .*, got -1 and more"):
        alone.sample(3, given={"exposure": -1.0})


@pytest.mark.parametrize("network", [pv.MLP((20,)), pv.Convolutional((3, 4), hidden_dim=10)])
@pytest.mark.parametrize("compile", ["off", "flat"])
def test_a_conditional_vae_is_trained_alike_by_every_way(network: Any, compile: Any) -> None:
    vae = pv.assemble(
        DIGITS, condition="label", network=network, latent_dim=2, prior=pv.ConditionalNormalPrior
    )
    start = {name: each.clone() for name, each in vae.state_dict().items()}
    pv.fit(vae, DIGITS, steps=8, compile="off", keep="last")
    once = vae.state_dict()
    again = pv.assemble(
        DIGITS, condition="label", network=network, latent_dim=2, prior=pv.ConditionalNormalPrior
    )
    again.load_state_dict(start)
    pv.fit(again, DIGITS, steps=8, compile=compile, keep="last")
    assert all(torch.equal(each, once[name]) for name, each in again.state_dict().items())


CONDITIONS = Conditions({"label": 3, "age": ()})
GIVEN = {"label": torch.tensor([2, 0, 1, 2]), "age": torch.tensor([0.5, -1.0, 2.0, 0.0])}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_likelihood_given_something_is_that_of_each_datum_alone(float64: None, name: str) -> None:
    inner = LIKELIHOODS[name](DATA_SHAPE, LATENT_DIM + CONDITIONS.size)
    likelihood = GivenLikelihood(inner, LATENT_DIM, CONDITIONS).double()
    z, x = torch.randn(5, 4, LATENT_DIM), data_for(name)[:4].double()
    px = likelihood(z, **GIVEN)
    assert px.batch_shape == (5, 4)
    alone = [
        likelihood(z[k, n], **{key: value[n] for key, value in GIVEN.items()}).log_prob(x[n])
        for k in range(5)
        for n in range(4)
    ]
    torch.testing.assert_close(px.log_prob(x).flatten(), torch.stack(alone))
    px.log_prob(x).sum().backward()
    assert all(parameter.grad is not None for parameter in likelihood.parameters())


@pytest.mark.parametrize("name", POSTERIORS)
def test_each_posterior_given_something_is_that_of_each_datum_alone(float64: None, name: str) -> None:
    inner = POSTERIORS[name](shape_with(CONDITIONS, DATA_SHAPE), LATENT_DIM)
    posterior = GivenPosterior(inner, DATA_SHAPE, CONDITIONS).double()
    x, z = torch.rand(4, *DATA_SHAPE), torch.randn(5, 4, LATENT_DIM)
    log_prob = posterior(x, **GIVEN).log_prob(z)
    for n in range(4):
        alone = posterior(x[n], **{key: value[n] for key, value in GIVEN.items()}).log_prob(z[:, n])
        torch.testing.assert_close(log_prob[:, n], alone)
    moved = {**GIVEN, "age": GIVEN["age"] + 1}
    assert bool((posterior(x, **moved).log_prob(z) != log_prob).all())


def test_draws_and_codes_depend_on_what_is_given() -> None:
    vae = pv.assemble(DIGITS, condition="label", latent_dim=2)
    x, label = DIGITS.test.batch()[:4], DIGITS.test.fields["label"][:4]
    assert vae.sample(3, given={"label": torch.tensor([0, 5, 9])}).shape == (3, 1, 8, 8)
    assert not torch.equal(vae.encode(x, label=label), vae.encode(x, label=9 - label))
    assert vae.reconstruct(x, label=label).shape == x.shape
    z = torch.zeros(5, 4, 2)
    assert vae.decode(z, label=label).shape == (5, 4, 1, 8, 8)
    each = torch.stack([vae.posterior(x[n : n + 1], label=label[n : n + 1]).mean[0] for n in range(4)])
    torch.testing.assert_close(vae.encode(x, label=label), each)


@pytest.mark.parametrize("prior", [pv.StandardNormalPrior, pv.ConditionalNormalPrior])
def test_layers_depend_on_what_is_given_at_the_data_and_in_the_prior(float64: None, prior: Any) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"program": pv.HierarchicalVAE, "latent_dim": (3, 2), "network": pv.MLP((6,))}
    vae = pv.assemble(DIGITS, condition="label", prior=prior, **options)
    batch = vae.place(DIGITS.test.take(slice(0, 5)))
    x, label = batch.x, batch.given["label"]
    guide = pyro.poutine.trace(vae.guide).get_trace(x, label=label)
    model = pyro.poutine.trace(pyro.poutine.replay(vae.model, trace=guide)).get_trace(x, label=label)
    z1, z2 = (guide.nodes[name]["value"] for name in ("z1", "z2"))
    pz = vae.prior(label=label) if vae.prior.conditions else vae.prior()
    expected = pz.log_prob(z2) + vae.likelihoods[1](z2).log_prob(z1)
    expected = expected + vae.likelihoods[0](z1, label=label).log_prob(x)
    torch.testing.assert_close(model.log_prob_sum(), expected.sum())
    expected = vae.posteriors[0](x, label=label).log_prob(z1) + vae.posteriors[1](z1).log_prob(z2)
    torch.testing.assert_close(guide.log_prob_sum(), expected.sum())
    other = vae.likelihoods[0](z1, label=9 - label).log_prob(x)
    assert not torch.allclose(other, vae.likelihoods[0](z1, label=label).log_prob(x))
    assert vae.sample(3, given={"label": 4}).shape == vae.sample(3, mean=True, given={"label": 4}).shape
    mean, deviation = vae.codes(x, label=label)
    assert mean.shape == deviation.shape == vae.encode(x, label=label).shape == (5, 2)
    assert vae.decode(mean, label=label).shape == vae.reconstruct(x, label=label).shape == x.shape
    pv.fit(vae, DIGITS, steps=3, compile="flat")
    assert bool(pv.log_evidence(vae.model, vae.guide, batch, num_particles=10).estimate.isfinite().all())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda vae: pv.fit(vae, pv.Digits()),
            "VAE depends on label beside x, got nothing: give label by name",
        ),
        (lambda vae: vae.sample(2), r"as by data.giving\('label'\) of a Dataset, or given="),
        (lambda vae: vae.sample(2, given={"label": 10}), "from 0 to 9, got 10 to 10 of torch.int64: number"),
        (lambda vae: vae.sample(2, given={"label": 1.0}), "as whole numbers .*, got 1 to 1 of torch.float32"),
        (
            lambda vae: vae.sample(2, given={"label": torch.zeros(3).long()}),
            "one value or 2 of them, got shape",
        ),
        (
            lambda vae: vae.encode(torch.zeros(1, 1, 8, 8)),
            "GivenPosterior depends on label, which is not given",
        ),
        (
            lambda vae: pv.fit(pv.assemble(DIGITS), DIGITS),
            "VAE depends on nothing beside x, got label: leave it",
        ),
        (
            lambda vae: pv.elbo(vae.model, vae.guide, torch.zeros(2, 1, 8, 8)),
            "VAE depends on label beside x, got nothing",
        ),
        (
            lambda vae: pv.assemble(DIGITS, condition="age"),
            "got 'age' for Digits with label: choose among these",
        ),
        (lambda vae: pv.assemble(DIGITS, prior=pv.ConditionalNormalPrior), "got no condition: give one"),
        (
            lambda vae: pv.assemble(DIGITS, condition="label", prior=pv.VampPrior),
            "VampPrior takes a q.* of x alone, got one that depends on label, too: choose Conditional",
        ),
        (
            lambda vae: pv.assemble(DIGITS, condition="label", program=pv.Autoencoder),
            "condition is an option of the programs VAE and HierarchicalVAE, got Autoencoder: leave it out",
        ),
    ],
)
def test_what_is_not_given_or_not_named_is_refused(call: Any, text: str) -> None:
    vae = pv.assemble(DIGITS, condition="label", latent_dim=2, network=pv.MLP((5,)))
    with pytest.raises(pv.InputError, match=text) as caught:
        call(vae)
    assert "\n" not in str(caught.value)


def test_labels_of_other_data_are_held_against_those_of_training() -> None:
    vae = pv.assemble(gaussian(), condition="label", latent_dim=2, likelihood=pv.NormalLikelihood)
    with pytest.raises(pv.InputError, match=r"expected label as whole numbers .* from 0 to 2, got 0 to 3"):
        pv.fit(vae, gaussian(classes=4), epochs=1)


def test_a_conditional_run_by_the_commands(pyro_vae: Run, tmp_path: Path) -> None:
    small = ("--latent_dim", 2, "--network.hidden_dims", "[10]", "--particles", 10, "--num_data", 20)
    options = ("--condition", "label", "--prior", "ConditionalNormalPrior", "--epochs", 1, *small)
    status, out, err = pyro_vae("train", *options, "--out", "run")
    assert status == 0, err
    assert "condition: label" in (tmp_path / "run" / "config.yaml").read_text()
    opened = pv.load(tmp_path / "run")
    assert opened.config["condition"] == "label" and opened.facts.field_kinds["label"].classes == 10
    assert opened.data().given == ("label",)
    assert opened.vae.sample(2, given={"label": 3}).shape == (2, 1, 8, 8)  # type: ignore[call-arg]
    for command in ("sample", "reconstruct", "scatter"):
        assert pyro_vae(command, "run")[0] == 0
    assert pyro_vae("sample", "run", "--given.label", 3, "--num", 4, "--out", "three.png")[0] == 0
    status, _, err = pyro_vae("sample", "run", "--given.label", 30)
    assert status == 2 and "from 0 to 9, got 30 to 30" in err
    status, out, err = pyro_vae("evaluate", "run", "--particles", 10, "--num_data", 20)
    assert status == 0 and "given          label" in out, err
    for words in (("traverse",), ("interpolate", "--given.age", 3)):
        status, _, err = pyro_vae(words[0], "run", *words[1:])
        assert (
            status == 2 and "with what the model depends on, label, got " in err and "--given.label V" in err
        )
    for name, *options_of_it in (
        ("traverse", "--num", 2),
        ("interpolate",),
        ("interpolate", "--draws", "true"),
    ):
        status, _, err = pyro_vae(name, "run", *options_of_it, "--given.label", 3)
        assert status == 0, err
    status, _, err = pyro_vae("traverse", "run", "--given.label", 30)
    assert status == 2 and "from 0 to 9, got 30 to 30" in err
    assert pyro_vae("train", *options, "--seed", 1, "--out", "other")[0] == 0
    assert pyro_vae("evaluate", "other", "--particles", 10, "--num_data", 20)[0] == 0
    status, _, err = pyro_vae("compare", "run", "other")
    assert status == 0, err
    assert pyro_vae("train", *small, "--epochs", 1, "--out", "plain")[0] == 0
    status, _, err = pyro_vae("compare", "run", "plain")
    assert status == 2 and "hash" in err
    digits = pv.Digits()
    np.savez("new.npz", x=digits.test.values[:5].numpy(), label=digits.test.fields["label"][:5].numpy())
    for command in ("score", "encode"):
        status, out, err = pyro_vae(command, "run", "new.npz")
        assert status == 0 and len(out.splitlines()) == 6, err
    few = ("--num_data", 10, "--chains", 2, "--temperatures", 5, "--num_steps", 5)
    status, out, err = pyro_vae("diagnose", "run", *few)
    assert status == 0 and "Given is label: log p(x) is that of x given label" in out, err


def test_options_of_runs_that_are_older_than_conditions_are_the_same() -> None:
    old = {"seed": 0, "data": {"class_path": "pyro_vae.Digits", "init_args": {"seed": 0}}}
    new = {**old, "data": {"class_path": "pyro_vae.Digits", "init_args": {"seed": 0, "given": None}}}
    assert options_in({**new, "condition": None}) == options_in(old)
    assert options_in({**new, "condition": "label"})["condition"] == "label"
