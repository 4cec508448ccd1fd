"""How raw values become x: one option swaps the likelihood, on any data, and nats stay what they are of."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.data import FORMS, DataFacts
from pyro_vae.distributions import Affine
from tests.commands import Run, arrays_in
from tests.components import refused

RANDOM = np.random.RandomState(0)
BYTES = RANDOM.randint(0, 256, (40, 1, 4, 4)).astype(np.uint8)
COUNTS = RANDOM.poisson(4.0, (40, 6))
BITS = RANDOM.randint(0, 2, (40, 6))
GREY = RANDOM.rand(40, 6)
INCOMES = np.stack([RANDOM.normal(52e3, 9e3, 40), RANDOM.normal(1.7, 0.1, 40)], 1)

ARRAYS: dict[str, Any] = {"bytes": BYTES, "counts": COUNTS, "bits": BITS, "grey": GREY, "incomes": INCOMES}

#: The form that each likelihood takes of each array; None where there is none, in one line.
CHOSEN: dict[str, dict[str, str | None]] = {
    "BernoulliLikelihood": {"bytes": "Dynamic", "counts": "Dynamic", "bits": "AsGiven", "grey": "Dynamic"},
    "CategoricalLikelihood": {"bytes": "Levels", "counts": "Levels", "bits": "Levels", "grey": None},
    "DiscretizedLogisticLikelihood": {"bytes": "Levels", "counts": "Levels", "bits": "Levels", "grey": None},
    "PoissonLikelihood": {"bytes": "Counts", "counts": "Counts", "bits": "Counts", "grey": None},
    "NegativeBinomialLikelihood": {"bytes": "Counts", "counts": "Counts", "bits": "Counts", "grey": None},
    "ContinuousBernoulliLikelihood": {"bytes": "Dequantised", "counts": "Dequantised", "grey": "AsGiven"},
    "NormalLikelihood": {
        **{"bytes": "Dequantised", "counts": "Dequantised", "grey": "AsGiven", "incomes": "Standardised"},
    },
    "LaplaceLikelihood": {"counts": "Dequantised", "grey": "AsGiven", "incomes": "Standardised"},
}


@pytest.mark.parametrize(
    ("likelihood", "array", "form"),
    [(name, array, form) for name, forms in CHOSEN.items() for array, form in forms.items()],
)
def test_a_likelihood_takes_any_array_in_its_own_form(likelihood: str, array: str, form: str | None) -> None:
    kind: Any = getattr(pv, likelihood)
    data = pv.Dataset(ARRAYS[array][:30], test=ARRAYS[array][30:])
    if form is None:
        with refused(f"expected whole numbers .* for the form .*, or another likelihood than {likelihood}"):
            data.for_likelihood(kind)
        return
    formed = data.for_likelihood(partial(kind))
    assert formed.form.name == form
    assert torch.equal(formed.test.batch(), pv.Dataset(*_parts(array), form=FORMS[form]).test.batch())
    vae = pv.assemble(formed, latent_dim=2, network=pv.MLP((8,)), likelihood=kind)
    vae.check(formed.test.batch())
    assert bool(pv.elbo(vae.model, vae.guide, formed.test.batch()).elbo.isfinite().all())


def _parts(array: str) -> tuple[Any, ...]:
    return ARRAYS[array][:30], None, ARRAYS[array][30:]


def test_what_no_form_of_bits_holds_is_refused_by_the_bernoulli_itself() -> None:
    data = pv.Dataset(INCOMES).for_likelihood(pv.BernoulliLikelihood)
    assert data.form.name == "AsGiven"
    with refused(
        "BernoulliLikelihood expects the values 0 and 1, got .*, NormalLikelihood for other numbers"
    ):
        pv.assemble(data).check(data.train.batch())


def test_the_same_data_in_another_form_keep_all_else() -> None:
    data = pv.Dataset(
        BYTES[:30],
        test=BYTES[30:],
        seed=3,
        train_labels=np.arange(30),
        test_labels=np.arange(10),
        given=("label",),
    )
    for name, form in FORMS.items():
        other, whole = data.in_form(form), pv.Dataset(BYTES[:30], None, BYTES[30:], form=form, seed=3)
        assert other.form.name == name and other.given == ("label",) and data.form.name == "Levels"
        assert other.protocol == whole.protocol and other.levels == whole.levels
        assert torch.equal(other.test.batch(), whole.test.batch())
        assert other.test.labels is not None and other.test.labels.tolist() == list(range(10))
        assert other.in_form(pv.Levels()).test.hash() == data.test.hash()
        assert torch.equal(other.all.batch()[30:], other.test.batch())
        facts = DataFacts.from_plain(json.loads(json.dumps(DataFacts.of(other).plain())))
        assert facts.form.name == name
        new = facts.test(BYTES[30:], "new", {"label": np.arange(10)})
        drawn = name in ("Dynamic", "Static", "Dequantised")  # in their own order, by the same stream
        assert new.hash() == other.test.hash() or drawn
        assert torch.equal(new.batch(), other.test.batch())


def test_facts_of_counts_do_not_divide_new_ones_by_the_largest_old_one() -> None:
    for form in (pv.Counts(), pv.AsGiven()):
        facts = DataFacts.of(pv.Dataset(COUNTS, form=form))
        assert torch.equal(facts.test(COUNTS * 7, "new").batch(), torch.from_numpy(COUNTS * 7).float())


def test_bytes_are_not_taken_for_the_real_numbers_of_the_training() -> None:
    for form in (pv.AsGiven(), pv.Standardised()):
        facts = DataFacts.of(pv.Dataset(GREY, form=form))
        with refused("expected real numbers as in training, got bytes up to 2.* in new: convert them"):
            facts.test(BYTES.reshape(-1, 8)[:9, :6], "new")


class Halved(pv.Form):
    """x = value/2."""

    def evaluated(self, raw: pv.RawValues, values: Any, stream: int) -> Any:
        return pv.AsGiven().evaluated(pv.RawValues({"train": values}, 2.0), values, stream)

    def protocol(self, raw: pv.RawValues) -> str:
        return "halved"


def test_a_form_of_ones_own() -> None:
    data = pv.Dataset(GREY, form=Halved())
    assert torch.equal(data.train.batch(), torch.from_numpy(GREY).float() / 2)
    facts = DataFacts.from_plain(dict(DataFacts.of(data).plain()))
    assert facts.form.name == "Halved"
    with refused("expected facts about data, got something else"):
        DataFacts.from_plain({**DataFacts.of(data).plain(), "form": "Unknown"})


# standardised


def exact(vae: pv.VAE, x: Tensor) -> Tensor:
    """log p(x) of a linear decoder under N(0, 1) and a normal likelihood: that of a normal of x itself."""
    likelihood: Any = vae.likelihood
    with torch.no_grad():
        offset, *columns = (likelihood(z).mean for z in (torch.zeros(2), *torch.eye(2)))
        weights = torch.stack(columns, -1) - offset[:, None]
        noise = likelihood(torch.zeros(2)).variance
    covariance = weights @ weights.T + noise.diag()
    return torch.distributions.MultivariateNormal(offset, covariance).log_prob(x)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("missing", [False, True])
def test_nats_of_standardised_data_are_those_of_the_data_in_their_own_units(missing: bool) -> None:
    values = INCOMES.copy()
    if missing:
        values[RANDOM.rand(*values.shape) < 0.2] = np.nan
        values = values[~np.isnan(values).all(1)]
    data = pv.Dataset(values, form=pv.Standardised(), missing=missing)
    identity = partial(pv.MLP, hidden_dims=())
    torch.manual_seed(1)
    vae = pv.assemble(data, latent_dim=2, network=identity(), likelihood=pv.NormalLikelihood).double()
    x = data.train.batch().double()[:4]
    found = pv.log_evidence(vae.model, vae.guide, x, num_particles=20_000)
    inner = pv.Dataset(values[:4], form=pv.AsGiven(), missing=missing)
    assert data.protocol.startswith("as given") and inner.protocol.startswith("as given")
    whole = ~x.isnan().any(1)
    error = (found.estimate - exact(vae, x.nan_to_num(0.0)))[whole]
    assert bool((error.abs() < 5 * found.standard_error[whole] + 0.02).all())
    scale = np.nanstd(values, 0)
    assert vae.likelihood.likelihood.scale.tolist() == pytest.approx(scale) if missing else True


def test_means_and_deviations_are_those_of_the_training_data_of_each_entry_or_channel() -> None:
    data = pv.Dataset(INCOMES[:30], INCOMES[30:], form=pv.Standardised())
    vae = pv.assemble(data, latent_dim=2, likelihood=pv.LaplaceLikelihood)
    for part in (vae.likelihood, vae.posterior):
        assert part.loc.tolist() == pytest.approx(INCOMES[:30].mean(0), rel=1e-5)
        assert part.scale.tolist() == pytest.approx(INCOMES[:30].std(0), rel=1e-5)
    pictures = RANDOM.normal((10.0, 500.0), (1.0, 30.0), (20, 5, 4, 2)).transpose(0, 3, 1, 2)
    vae = pv.assemble(
        pv.Dataset(pictures, form=pv.Standardised()), latent_dim=2, likelihood=pv.NormalLikelihood
    )
    assert vae.likelihood.loc.shape == (2, 1, 1)
    assert vae.likelihood.loc.flatten().tolist() == pytest.approx(pictures.mean((0, 2, 3)), rel=1e-5)
    assert vae.likelihood.scale.flatten().tolist() == pytest.approx(pictures.std((0, 2, 3)), rel=1e-5)
    constant = pv.Dataset(np.stack([np.full(9, 7.0), np.arange(9.0)], 1), form=pv.Standardised())
    assert pv.assemble(constant, latent_dim=1, likelihood=pv.NormalLikelihood).likelihood.scale[0] == 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["entries", "whole"])
def test_a_law_of_a_linear_function_is_normalised_and_has_its_moments(kind: str) -> None:
    import pyro.distributions as dist

    loc, scale = torch.tensor([3.0, -2.0]), torch.tensor([2.0, 0.5])
    covariance = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
    base: Any = dist.Normal(torch.tensor([0.1, 0.2]), torch.tensor([1.0, 1.5])).to_event(1)
    if kind == "whole":
        base = dist.MultivariateNormal(torch.tensor([0.1, 0.2]), covariance)
    else:
        covariance = torch.tensor([1.0, 2.25]).diag()
    law = Affine.entries(base, loc, scale)
    exact = torch.distributions.MultivariateNormal(
        loc + scale * torch.tensor([0.1, 0.2]), scale.diag() @ covariance @ scale.diag()
    )
    x = torch.randn(7, 2) * 3
    assert torch.allclose(law.log_prob(x), exact.log_prob(x))
    assert torch.allclose(law.mean, exact.mean) and torch.allclose(law.variance, exact.variance)
    assert law.expand((7,)).log_prob(x).shape == (7,)
    torch.manual_seed(0)
    drawn = law.sample((20_000,))
    assert torch.allclose(drawn.mean(0), exact.mean, atol=0.06)
    assert torch.allclose(drawn.T.cov(), exact.covariance_matrix, rtol=0.05, atol=0.03)


def test_only_densities_of_real_numbers_are_standardised() -> None:
    data = pv.Dataset(COUNTS, form=pv.Standardised())
    with refused(
        "expected a density of all real numbers to standardise, got a Lattice: use the form AsGiven"
    ):
        pv.assemble(data, likelihood=pv.PoissonLikelihood).check(data.train.batch())


@pytest.mark.parametrize(
    "options",
    [
        {"prior": partial(pv.VampPrior, components=5)},
        {"program": pv.HierarchicalVAE, "latent_dim": (3, 2)},
        {"condition": "kind"},
        {"posterior": pv.FlowPosterior},
    ],
    ids=["VampPrior", "layers", "condition", "flow"],
)
def test_every_part_of_a_model_of_incomes_learns_them(options: dict[str, Any]) -> None:
    kind = (INCOMES[:, 0] > 52e3).astype(int)
    given = ("kind",) if "condition" in options else ()
    data = pv.Dataset(
        INCOMES[:30],
        test=INCOMES[30:],
        form=pv.Standardised(),
        fields={"train": {"kind": kind[:30]}, "test": {"kind": kind[30:]}},
        given=given,
    )
    options = {"latent_dim": 2, "network": pv.MLP((8,)), **options}
    torch.manual_seed(0)
    vae = pv.assemble(data, likelihood=pv.NormalLikelihood, **options)
    pv.fit(vae, data, epochs=30, batch_size=30, compile="off")
    batch = data.test.take()
    found = pv.elbo(vae.model, vae.guide, batch, num_particles=50).elbo.mean()
    mean, deviation = (torch.from_numpy(each) for each in (INCOMES.mean(0), INCOMES.std(0)))
    normal = torch.distributions.Normal(mean, deviation)
    assert abs(float(found) - float(normal.log_prob(torch.from_numpy(INCOMES[30:])).sum(1).mean())) < 1.0
    assert vae.sample(3, **({"given": {"kind": 1}} if given else {})).shape == (3, 2)


def test_missing_entries_go_together_with_conditions(pyro_vae: Run) -> None:
    hollow = np.where(RANDOM.rand(*INCOMES.shape) < 0.2, np.nan, INCOMES)
    hollow[np.isnan(hollow).all(1), 0] = 5e4
    np.savez("a.npz", x=hollow, kind=(INCOMES[:, 0] > 52e3).astype(int))
    options = ("--data", "ArrayFile", "--data.path", "a.npz", "--data.missing", "true", "--condition", "kind")
    more = ("--likelihood", "NormalLikelihood", "--epochs", 3, "--particles", 20, "--batch_size", 8)
    for sees_mask in ("false", "true"):
        words = ("--sees_mask", sees_mask, "--latent_dim", 2, "--out", f"run_{sees_mask}")
        status, _, err = pyro_vae("train", *options, *more, *words)
        assert status == 0, err
        assert "in the form Standardised, for NormalLikelihood (as given); --data.form names another" in err
        assert pyro_vae("evaluate", f"run_{sees_mask}", "--particles", 10)[0] == 0


@pytest.mark.parametrize(
    ("array", "likelihood", "form", "bits"),
    [
        ("bytes", "BernoulliLikelihood", "Dynamic", False),
        ("bytes", "DiscretizedLogisticLikelihood", "Levels", True),
        ("bytes", "NormalLikelihood", "Dequantised", True),
        ("counts", "PoissonLikelihood", "Counts", False),
        ("incomes", "NormalLikelihood", "Standardised", False),
    ],
)
def test_one_option_swaps_the_likelihood_on_an_array_of_ones_own(
    pyro_vae: Run, array: str, likelihood: str, form: str, bits: bool
) -> None:
    np.save("a.npy", ARRAYS[array])
    words = ("--data", "ArrayFile", "--data.path", "a.npy", "--likelihood", likelihood, "--out", "run")
    status, _, err = pyro_vae("train", *words, "--epochs", 2, "--particles", 10, "--batch_size", 8)
    assert status == 0, err
    usual = {"bytes": "Levels", "counts": "Counts", "incomes": "AsGiven"}[array]
    assert (f"become x in the form {form}, for {likelihood}" in err) == (form != usual)
    summary = json.loads(Path("run/summary.json").read_text())
    assert ("bits_per_dim" in summary["log_evidence"]) == bits
    assert summary["protocol"] == pv.Dataset(ARRAYS[array], form=FORMS[form]).protocol + ", split by seed 0"
    for command in (("evaluate", "run", "--particles", 5), ("sample", "run"), ("reconstruct", "run")):
        status, _, err = pyro_vae(*command)
        assert (status, "error" in err) == (0, False), (command, err)
    status, _, err = pyro_vae("score", "run", "a.npy", "--particles", 20, "--out", "s.npz")
    assert status == 0, err
    run = pv.load("run")
    assert run.facts.form.name == form and run.data().form.name == form
    assert math.isfinite(float(arrays_in("s.npz")["log_evidence"].mean()))
