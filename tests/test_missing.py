"""Models of data with missing entries: log p(x_obs), held against loops and closed forms."""

import itertools
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from tests.commands import arrays_in

from .commands import Run
from .components import DATA_SHAPE, LATENT_DIM, LIKELIHOODS, SMALL, data_for, refused

NAN = float("nan")
QUICK = ("--optimiser.lr", "1e-2")
FEW = ("--network.hidden_dims", "[8]", "--latent_dim", "2", "--particles", "10", "--batch_size", "50")


def with_holes(x: Tensor, share: float = 0.4) -> Tensor:
    """About so many entries missing, never all of a datum."""
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < share
    holes.flatten(1)[:, 0] = False
    return torch.where(holes, NAN, x)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_p_is_the_sum_over_observed_entries(name: str) -> None:
    torch.manual_seed(0)
    full = LIKELIHOODS[name](DATA_SHAPE, LATENT_DIM).double()
    observed = pv.ObservedLikelihood(full)
    whole, z = data_for(name).double(), torch.randn(2, 6, LATENT_DIM, dtype=torch.float64, requires_grad=True)
    x = with_holes(whole)
    log_px = observed(z).log_prob(x)
    entries: Any = full(z)
    assert entries.event_shape == torch.Size(DATA_SHAPE)
    entries = entries.base_dist.log_prob(whole)  # (2, 6, *data_shape)
    sums = torch.zeros(2, 6, dtype=torch.float64)
    for k, b in itertools.product(range(2), range(6)):
        for place in itertools.product(*map(range, DATA_SHAPE)):
            if not bool(x[(b, *place)].isnan()):
                sums[k, b] = sums[k, b] + entries[(k, b, *place)]
    assert torch.allclose(log_px, sums, rtol=1e-10, atol=1e-10)
    parameters = [z, *(each for each in full.parameters() if each.requires_grad)]
    found, expected = (
        torch.autograd.grad(each.sum(), parameters, retain_graph=True) for each in (log_px, sums)
    )
    assert all(
        bool(one.isfinite().all()) and torch.allclose(one, other, rtol=1e-7, atol=1e-9)
        for one, other in zip(found, expected, strict=True)
    )
    assert torch.equal(observed(z).log_prob(whole), full(z).log_prob(whole))
    assert torch.equal(observed(z).mean, full(z).mean)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_observed_entries_are_held_against_the_support(name: str) -> None:
    full = LIKELIHOODS[name](DATA_SHAPE, LATENT_DIM)
    observed, x = pv.ObservedLikelihood(full), with_holes(data_for(name))
    px = observed(torch.zeros(1, LATENT_DIM))
    observed.check(px, x)
    observed.check(px, torch.full((2, *DATA_SHAPE), NAN))
    assert px.support.is_discrete == full(torch.zeros(1, LATENT_DIM)).support.is_discrete
    x[1].flatten()[0] = -7.3
    if "Normal" not in name and "Laplace" not in name:
        with refused(f"{type(full).__name__} expects .*, got -7.3 among values from -7.3 to"):
            observed.check(px, x)


@pytest.mark.parametrize(
    "base",
    [
        dist.Gamma(2.0, 3.0),
        dist.Beta(0.5, 0.5),
        dist.Exponential(1.0),
        dist.LogNormal(0.0, 1.0),
        dist.Uniform(2.0, 3.0),
        dist.StudentT(3.0),
        dist.Geometric(0.3),
        dist.Binomial(5, 0.3),
        dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Beta(torch.tensor([0.5, 0.4]), 0.5)),
    ],
    ids=lambda base: type(base).__name__,
)
def test_gradients_of_other_densities_are_finite(base: Any) -> None:
    shift = torch.zeros(3, requires_grad=True)
    x = base.sample((3,))
    x = torch.where(torch.tensor([True, False, True]), NAN, x)
    law = pv.Observed(base.expand((3,)))
    log_prob = law.log_prob(x + shift)
    assert log_prob[0] == log_prob[2] == 0
    assert torch.isclose(log_prob[1], base.log_prob(x[1]))
    assert law.expand((2, 3)).log_prob(x).shape == (2, 3)
    (log_prob + 0 * shift).sum().backward()  # of a uniform law, there is no gradient
    assert shift.grad is not None and bool(shift.grad.isfinite().all())


class Joint(pv.Likelihood):
    """Entries that are no product."""

    def __init__(self, decoder: Any, data_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.decoder, self.data_shape = decoder, data_shape
        self.loc = pv.head(decoder, data_shape)

    def forward(self, z: Tensor) -> Any:
        return dist.MultivariateNormal(self.loc(self.decoder(z)), torch.eye(self.data_shape[0]))


class OwnWay(Joint):
    """The same, that knows what to do."""

    takes_missing = True


REAL = with_holes(torch.randn(60, 4, generator=torch.Generator().manual_seed(2))).numpy()


def real(**options: Any) -> pv.Dataset:
    return pv.Dataset(REAL[:40], REAL[40:50], REAL[50:], **{"missing": True, **options})


def test_what_is_no_product_over_entries_is_refused() -> None:
    text = "Joint takes no missing entries: .* got a MultivariateNormal of .4,. numbers at once: make p"
    with refused(text):
        pv.fit(pv.assemble(real(), likelihood=Joint, network=SMALL), real(), epochs=1)
    vae = pv.assemble(real(), likelihood=OwnWay, network=SMALL)
    assert isinstance(vae.likelihood, OwnWay)


def test_a_model_that_knows_of_no_missing_entries_refuses_them() -> None:
    vae = pv.assemble(pv.Dataset(np.nan_to_num(REAL)), likelihood=pv.NormalLikelihood, network=SMALL)
    assert type(vae.likelihood) is pv.NormalLikelihood and type(vae.posterior.encoder) is pv.Network
    with refused(
        r"NormalLikelihood expects finite numbers, got \d+ NaN: where that means not observed, make the data "
        "with missing=True and the model by assemble"
    ):
        pv.fit(vae, real(), epochs=1)
    autoencoder = pv.assemble(real(), program=pv.Autoencoder, network=SMALL)
    with refused(r"an Autoencoder takes no missing entries, got \d+ NaN: train a VAE"):
        pv.fit(autoencoder, real(), epochs=1)
    with refused("sees_mask shows the encoder which entries are observed, got data without missing ones"):
        pv.assemble(pv.Dataset(np.nan_to_num(REAL)), sees_mask=True)


def test_an_encoder_sees_the_mean_and_if_asked_the_mask() -> None:
    x = torch.tensor([[1.0, NAN, 3.0], [NAN, NAN, 5.0]])
    blind, seeing = (
        pv.ObservedEncoder(
            pv.Network(torch.nn.Identity(), (width,), (width,)), (3,), fill=torch.tensor([7.0, 8.0, 9.0])
        )
        for width in (3, 6)
    )
    assert blind(x).tolist() == [[1, 8, 3], [7, 8, 5]]
    assert seeing(x).tolist() == [[1, 8, 3, 1, 0, 1], [7, 8, 5, 0, 0, 1]]
    assert (blind.sees_mask, seeing.sees_mask) == (False, True)
    plain = pv.ObservedEncoder(pv.Network(torch.nn.Identity(), (3,), (3,)), (3,))
    plain.fill[0] = 1.0  # one number for all is kept as one for each, which a training can restore
    assert plain(x[:1]).tolist() == [[1, 0, 3]]
    with refused(
        r"expected an encoder of shape \(3,\), or \(6,\) for one that sees which entries .*, got \(4,\)"
    ):
        pv.ObservedEncoder(pv.MLP().encoder((4,)), (3,))
    with refused(r"the network expects inputs of shape \(3,\), got a tensor of shape \(2, 4\)"):
        blind(torch.zeros(2, 4))
    vae = pv.assemble(real(), likelihood=pv.NormalLikelihood, network=SMALL, sees_mask=True)
    assert vae.posterior.encoder.sees_mask
    assert np.allclose(np.asarray(vae.posterior.encoder.fill), np.nanmean(REAL[:40], 0), atol=1e-6)


PICTURES = with_holes(
    (torch.rand(60, 2, 5, 4, generator=torch.Generator().manual_seed(2)) < 0.5).float()
).numpy()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sees_mask": True},
        {"network": pv.Convolutional((3, 4), hidden_dim=6), "sees_mask": True},
        {"prior": partial(pv.VampPrior, components=5)},
        {"program": pv.HierarchicalVAE, "latent_dim": (3, 2), "upper_network": SMALL},
        {"posterior": pv.FlowPosterior},
    ],
    ids=["plain", "mask", "convolutions and mask", "VampPrior", "layers", "flow"],
)
def test_all_parts_train_on_missing_entries(options: Any) -> None:
    data = pv.Dataset(PICTURES[:40], PICTURES[40:], missing=True)
    vae = pv.assemble(data, **{"latent_dim": 3, "network": SMALL, **options})
    history = pv.fit(vae, data, epochs=3, batch_size=20, compile="flat")
    assert all(np.isfinite(history.column("valid_elbo")))
    x = data.valid.batch()
    assert bool(vae.reconstruct(x).isfinite().all()) and bool(vae.encode(x).isfinite().all())
    assert bool(pv.log_evidence(vae.model, vae.guide, x, num_particles=50).estimate.isfinite().all())


def test_the_flat_graph_takes_the_steps_of_pyro() -> None:
    found = []
    for compile in ("off", "flat"):
        torch.manual_seed(0)
        vae = pv.assemble(real(), latent_dim=2, likelihood=pv.NormalLikelihood, network=SMALL)
        pv.fit(vae, real(), epochs=4, batch_size=20, compile=compile)
        found.append(torch.cat([each.flatten() for each in vae.parameters()]))
    assert torch.equal(*found)


def test_data_without_missing_entries_give_the_very_model_and_numbers() -> None:
    complete = np.nan_to_num(REAL)
    found = []
    for missing in (False, True):
        torch.manual_seed(0)
        data = pv.Dataset(complete[:40], complete[40:], missing=missing)
        vae = pv.assemble(data, latent_dim=2, likelihood=pv.NormalLikelihood, network=SMALL)
        pv.fit(vae, data, epochs=2, batch_size=20, compile="off")
        found.append(torch.cat([each.flatten() for each in vae.parameters()]))
    assert torch.equal(*found)


def test_an_encoder_that_does_not_know_missing_entries_is_refused() -> None:
    x = torch.tensor([[0.5, torch.nan], [1.0, 2.0]])
    likelihood = pv.ObservedLikelihood(pv.NormalLikelihood(SMALL.decoder(LATENT_DIM, (2,)), (2,)))
    prior = pv.StandardNormalPrior(LATENT_DIM)
    for encoder in (SMALL.encoder((2,)), pv.ObservedEncoder(SMALL.encoder((2,)), (2,))):
        vae = pv.VAE(prior, likelihood, pv.DiagonalNormalPosterior(encoder, LATENT_DIM))
        if isinstance(encoder, pv.ObservedEncoder):
            vae.check(x)
            return
        vae.check(x[1:])
        with refused(
            "DiagonalNormalPosterior gives NaN where entries are missing: put ObservedEncoder around"
        ):
            vae.check(x)


def hollow_digits(path: str, share: float = 0.4) -> tuple[str, ...]:
    """Grey digits of which so many pixels are missing, in a file, with the options that train on it."""
    grey = torch.from_numpy(pv.Digits(form=pv.Levels()).all.values.numpy()[:300].astype(np.float32))
    np.save(path, with_holes(grey, share).numpy())
    return ("--data", "ArrayFile", "--data.path", path, "--data.maximum", "16", "--data.missing", "true")


@pytest.mark.parametrize(
    "options",
    [
        ("--data.form", "Dynamic"),
        ("--data.form", "Dequantised", "--likelihood", "NormalLikelihood", "--sees_mask", "true"),
        ("--likelihood", "DiscretizedLogisticLikelihood"),
    ],
    ids=["bits", "dequantised", "levels"],
)
def test_the_command_line_trains_evaluates_and_imputes(pyro_vae: Run, options: tuple[str, ...]) -> None:
    data, mask = hollow_digits("holes.npy"), "--sees_mask" in options
    status, out, err = pyro_vae("train", *data, *options, "--epochs", 40, *FEW, *QUICK, "--out", "run")
    assert status == 0, err
    summary = json.loads(Path("run/summary.json").read_text())
    assert "of 19200 entries missing" in summary["protocol"]
    missing, total = summary["missing_entries"], summary["entries"]
    assert total == 30 * 64 and 0.35 < missing / total < 0.45
    assert f"{missing} of 1920 entries of the test data, left out of p(x)" in out
    if "Dynamic" not in options:
        estimate = summary["log_evidence"]["estimate"] * 30 / (total - missing)  # nats per observed entry
        width = 1 / 17 if "Dequantised" in options else 1
        expected = -(estimate + math.log(width)) / math.log(2)
        assert summary["log_evidence"]["bits_per_dim"] == pytest.approx(expected)
        assert "per observed dimension" in out
    for command in (
        ("evaluate", "run", "--particles", 10, "--num_data", 5),
        ("train", "--resume", "run", "--epochs", 41),
        ("score", "run", "holes.npy", "--particles", 10, "--out", "s.csv"),
        *((("encode", "run", "holes.npy", "--out", "e.csv"), ("reconstruct", "run")) if mask else ()),
    ):
        status, _, err = pyro_vae(*command)
        assert status == 0, (command, err)
    before = np.load("holes.npy")
    holes = np.isnan(before)
    scores = np.genfromtxt("s.csv", delimiter=",", names=True)
    assert np.array_equal(scores["missing"], holes.reshape(300, -1).sum(1))
    for name in ("f.npy", "f.npz", "f.csv"):
        assert pyro_vae("impute", "run", "holes.npy", "--particles", 30, "--out", name)[0] == 0
    filled, arrays = np.load("f.npy"), arrays_in("f.npz")
    assert np.array_equal(filled[~holes], before[~holes]) and np.isfinite(filled).all()
    assert np.array_equal(filled, arrays["filled"])
    assert abs(float(filled[holes].mean()) - np.nanmean(before)) < 1.5  # in the units of the file
    if "Dequantised" not in options:
        assert filled.min() >= 0 and filled.max() <= 16
    assert (arrays["low"][holes] <= arrays["high"][holes]).all()
    assert (arrays["standard_deviation"][~holes] == 0).all() and (
        arrays["standard_deviation"][holes] > 0
    ).all()
    assert arrays["pareto_k"].shape == arrays["log_evidence"].shape == (300,)
    lines = Path("f.csv").read_text().splitlines()
    assert lines[0] == "datum,entry,mean,standard_deviation,low,high,effective_sample_size,pareto_k"
    assert len(lines) == 1 + holes.sum()
    datum, entry, mean, *_ = lines[-1].split(",")
    assert float(mean) == pytest.approx(filled.reshape(300, -1)[int(datum), int(entry)])


def test_what_the_command_refuses(pyro_vae: Run) -> None:
    data = hollow_digits("holes.npy")
    assert pyro_vae("train", "--epochs", 1, *FEW, "--out", "plain")[0] == 0
    for words, text in (
        (
            ("impute", "plain", "holes.npy", "--out", "f.npy"),
            "expected a run on data with missing entries, got plain",
        ),
        (
            ("impute", "plain", "holes.npy", "--out", "f.txt"),
            "--out expects a .npy, .npz or .csv file, got f.txt",
        ),
        (
            ("train", *data[:-2], *FEW),
            "or give missing=True (--data.missing true) where NaN means not observed",
        ),
        (("train", "--sees_mask", "true", *FEW), "sees_mask shows the encoder which entries are observed"),
    ):
        status, _, err = pyro_vae(*words)
        assert (status, err.count("\n")) == (2, 1) and text in err, err


@pytest.fixture(scope="module")
def hollow() -> tuple[pv.VAE, Tensor]:
    """A model of a Gaussian with missing entries, a little trained, and data of it."""
    torch.manual_seed(0)
    data = pv.Dataset(
        with_holes(torch.randn(300, 4) + torch.randn(300, 1), 0.3).numpy(),
        missing=True,
    )
    vae = pv.assemble(
        data, latent_dim=1, likelihood=pv.NormalLikelihood, network=pv.MLP((16,)), sees_mask=True
    )
    pv.fit(vae, data, epochs=30, batch_size=100, optimiser=partial(torch.optim.Adam, lr=1e-2))
    return vae, data.train.batch()[:30]


def on_a_grid(vae: pv.VAE, x: Tensor) -> Tensor:
    """log p(x_obs) of a model of one latent, by loops over entries and a grid."""
    z = torch.linspace(-9, 9, 3001)[:, None]
    px = vae.likelihood.likelihood(z).base_dist
    log_pz = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    found = []
    for row in x:
        log_joint = log_pz.clone()
        for d in range(4):
            if not row[d].isnan():
                log_joint = log_joint + px.log_prob(row.nan_to_num())[:, d]
        found.append(log_joint.logsumexp(0) + math.log(float(z[1, 0] - z[0, 0])))
    return torch.stack(found).detach()


def test_every_estimator_gives_the_value_on_a_grid(hollow: tuple[pv.VAE, Tensor]) -> None:
    vae, x = hollow
    expected = on_a_grid(vae, x)
    found = pv.log_evidence(vae.model, vae.guide, x, num_particles=2000)
    assert bool(((found.estimate - expected).abs() < 5 * found.standard_error + 1e-3).all())
    annealed = pv.annealed_log_evidence(vae.model, vae.guide, x[:8], num_temperatures=60, num_chains=30)
    assert bool(((annealed.estimate - expected[:8]).abs() < 5 * annealed.standard_error + 0.02).all())
    gap = pv.bidirectional_gap(vae.model, vae.guide, 6, like=x[:6], num_temperatures=60)
    assert abs(float(gap.gap.mean())) < 0.3


def test_diagnosis_and_calibration_are_of_the_observed_entries(hollow: tuple[pv.VAE, Tensor]) -> None:
    vae, x = hollow
    torch.manual_seed(1)
    found = pv.diagnose(vae.model, vae.guide, x[:10], num_steps=50)
    assert bool(torch.isfinite(torch.tensor(found.log_evidence.mean)))
    assert abs(float(found.log_evidence.mean) - float(on_a_grid(vae, x[:10]).mean())) < 0.2
    ranks = pv.calibrate(vae.model, vae.guide, like=x, num_data=100)
    assert "nan" not in repr(ranks).lower()
