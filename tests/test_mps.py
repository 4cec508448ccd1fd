"""Apple's MPS, which has no float64, pretended on the CPU: what works there makes no float64 on it."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import diagnosis
from pyro_vae.importance.running import Running
from pyro_vae.precision import home, moved, wide
from pyro_vae.randomness import own_draws, random_state
from pyro_vae.training import resolve_device
from tests.components import data_for, vae
from tests.pretended_mps import pretended_mps

DATA = pv.Digits()
#: Four steps in an epoch.
FEW = pv.Dataset(DATA.train.values[:200], DATA.train.values[200:250], form=pv.Dynamic(), maximum=16)


@pytest.fixture
def mps() -> Iterator[torch.device]:
    with pretended_mps() as device:
        yield device


@pytest.fixture
def short_pilots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.annealing.kernels._FIRST", 2)
    monkeypatch.setattr("pyro_vae.annealing.kernels.pilot_steps", lambda _: 3)


def small(device: torch.device) -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,))).to(device)


def fitted(family: Any) -> pv.LocalProposal:
    return pv.LocalProposal(family, steps=2, above=-math.inf)


def some(device: torch.device, num: int = 4) -> Tensor:
    return DATA.test.batch(slice(0, num)).to(device)


# The pretended device


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x.double(),
        lambda x: x.to(torch.float64),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.zeros(2, dtype=torch.float64, device=x.device),
        lambda x: x.new_zeros(2, dtype=torch.float64),
        lambda x: torch.zeros(2, dtype=torch.float64).to(x.device),
        lambda x: x.sum(dtype=torch.float64),
    ],
)
def test_float64_is_refused(refused: Any, mps: torch.device) -> None:
    with pytest.raises(TypeError, match="MPS framework doesn't support float64"):
        refused(torch.ones(2, device=mps))


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x + torch.ones(2),
        lambda x: x * wide(x),
        lambda x: wide(x)[x > 0],
        lambda x: torch.ones(2).copy_(x) + x,
    ],
)
def test_tensors_of_two_devices_are_refused(refused: Any, mps: torch.device) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        refused(torch.ones(2, device=mps))


def test_a_gradient_comes_back_to_the_device(mps: torch.device) -> None:
    x = torch.ones(2, device=mps, requires_grad=True)
    (gradient,) = torch.autograd.grad((wide(x) * 2).square().sum(), x)
    assert gradient.tolist() == [8.0, 8.0] and gradient.dtype == torch.float32
    assert (gradient + x).device == mps


# What the package has for it


def test_wide_numbers_are_at_home(mps: torch.device) -> None:
    x = torch.ones(2, device=mps)
    assert (home(mps), wide(x).device, wide(x).dtype) == (torch.device("cpu"), home(mps), torch.float64)
    assert moved(wide(x), mps).device == home(mps) and moved(x.cpu(), mps).device == mps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_elsewhere_a_wide_number_is_as_by_double(dtype: torch.dtype) -> None:
    x = torch.arange(3).to(dtype)
    assert torch.equal(wide(x), x.double()) and wide(x).dtype == torch.float64
    assert wide(wide(x)) is wide(x) or dtype != torch.float64


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch, mps: torch.device) -> None:
    with monkeypatch.context() as patch:  # undone before the pretended device is
        patch.setattr("torch.cuda.is_available", lambda: False)
        assert resolve_device("auto") == mps
        patch.setattr("torch.backends.mps.is_available", lambda: False)
        assert resolve_device("auto") == torch.device("cpu")


def test_random_numbers_of_the_device_go_on(mps: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []
    monkeypatch.setattr("torch.mps.get_rng_state", lambda: torch.tensor([7]))
    monkeypatch.setattr("torch.mps.set_rng_state", states.append)
    assert [each.tolist() for each in random_state(mps)[1:]] == [[7]]
    with own_draws(mps):
        assert states == []
    assert [each.tolist() for each in states] == [[7]]


def test_sums_of_weights_go_on_from_a_checkpoint(mps: torch.device) -> None:
    log_w = torch.randn(6, 2, device=mps)
    whole, first, second = (Running(2, (1, 6), 3, mps) for _ in range(3))
    whole.add(log_w)
    first.add(log_w[:4])
    second.load(first.state())
    second.add(log_w[4:])
    for each in (whole, second):
        each.flush()
    assert all(torch.equal(whole.tensors[name], second.tensors[name]) for name in whole.tensors)


# Training, and what comes after


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_training_is_that_of_the_cpu(compile: Any, mps: torch.device) -> None:
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 50,
        "kl_warm_up": 1,
        "clip_norm": 1.0,
        "compile": compile,
    }
    history = pv.fit(model := small(mps), FEW, **options, device="mps")
    other = pv.fit(small(home(mps)), FEW, **options, device="cpu")
    assert model.device == mps
    assert history.column("train_elbo") == other.column("train_elbo")
    assert history.column("valid_elbo") == other.column("valid_elbo")


def test_a_training_goes_on_from_a_checkpoint(mps: torch.device, tmp_path: Any) -> None:
    pv.fit(small(mps), FEW, epochs=1, batch_size=50, device="mps", checkpoints=tmp_path)
    history = pv.fit(
        small(mps), FEW, epochs=2, batch_size=50, device="mps", checkpoints=tmp_path, resume=True
    )
    assert history.column("train_elbo") == pv.fit(small(mps), FEW, epochs=2, batch_size=50).column(
        "train_elbo"
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compile": "off"},
        {"proposal": fitted("normal")},
        {"proposal": fitted("guide")},
        {"until_standard_error": 0.3},
    ],
)
def test_log_evidence_is_that_of_the_cpu(options: dict[str, Any], mps: torch.device) -> None:
    def found(device: torch.device) -> pv.LogEvidence:
        model = small(device)
        torch.manual_seed(1)
        return pv.log_evidence(model.model, model.guide, some(device), num_particles=100, **options)

    there, here = found(mps), found(home(mps))
    assert there.estimate.device == home(mps)
    assert torch.equal(there.estimate, here.estimate)
    assert torch.equal(there.pareto_k, here.pareto_k)


@pytest.mark.usefixtures("short_pilots")
@pytest.mark.parametrize("schedule", ["sigmoid", "adaptive"])
def test_annealing_is_that_of_the_cpu(schedule: Any, mps: torch.device) -> None:
    def found(device: torch.device) -> pv.AnnealedEvidence:
        model = small(device)
        torch.manual_seed(1)
        return pv.annealed_log_evidence(
            model.model,
            model.guide,
            some(device, 2),
            num_chains=2,
            num_temperatures=3,
            leapfrog_steps=1,
            schedule=schedule,
            compile="off",
        )

    assert torch.equal(found(mps).estimate, found(home(mps)).estimate)


@pytest.mark.usefixtures("short_pilots")
def test_the_gap_of_both_directions_is_measured(mps: torch.device) -> None:
    model = small(mps)
    found = pv.bidirectional_gap(
        model.model, model.guide, 3, like=some(mps), num_chains=2, num_temperatures=3, leapfrog_steps=1
    )
    assert bool(found.gap.isfinite().all()) and found.gap.dtype == torch.float64


@pytest.mark.parametrize(
    ("likelihood", "posterior"),
    [
        ("Poisson", "DiagonalNormal"),
        ("NegativeBinomial, in quarters", "FullNormal"),
        ("Normal, shared scale", "LowRankNormal"),
        ("DiscretizedLogistic", "Flow, inverse autoregressive"),
    ],
)
def test_the_elbo_of_parts_is_that_of_the_cpu(likelihood: str, posterior: str, mps: torch.device) -> None:
    model = vae("Mixture", likelihood, posterior)
    x = data_for(likelihood)

    def found(device: torch.device) -> Tensor:
        there = model.to(device)
        torch.manual_seed(1)
        return pv.elbo(there.model, there.guide, x.to(device)).elbo

    assert torch.equal(found(mps), found(home(mps)))


def test_draws_codes_and_missing_entries(mps: torch.device) -> None:
    model = small(mps)
    assert model.sample(3).device == mps
    assert model.encode(some(mps)).device == mps
    x = DATA.train.batch(slice(0, 40))
    masked = pv.Dataset(torch.where(torch.rand_like(x) < 0.2, torch.nan, x), missing=True)
    program = pv.assemble(masked, latent_dim=2, network=pv.MLP((8,))).to(mps)
    found = pv.impute(program.model, program.guide, masked.train.batch(slice(0, 3)).to(mps), num_particles=20)
    assert bool(((found.mean >= 0) & (found.mean <= 1)).all()) and found.mean.device == mps


def test_calibration(mps: torch.device) -> None:
    model = small(mps)
    sizes: dict[str, Any] = {"num_data": 25, "num_draws": 9}
    assert len(pv.calibrate(model.model, model.guide, like=some(mps), **sizes).mean_z) == 3
    assert pv.tarp(model.model, model.guide, like=some(mps), **sizes).ranks.shape == (25, 3)


@pytest.mark.parametrize(
    "measure",
    [
        partial(diagnosis.latent_units, num_draws=10),
        partial(diagnosis.mutual_information, num_draws=3),
        partial(diagnosis.optimise_locally, num_steps=2, num_draws=2, num_particles=5),
        partial(diagnosis.prior_gap, components=(1, 2), num_draws=3),
    ],
    ids=lambda measure: measure.func.__name__,
)
def test_each_part_of_a_diagnosis_is_that_of_the_cpu(measure: Any, mps: torch.device) -> None:
    def found(device: torch.device) -> list[Tensor]:
        model = small(device)
        torch.manual_seed(1)
        result = vars(measure(model.model, model.guide, some(device, 8)))
        return [each for each in result.values() if isinstance(each, Tensor)]

    for there, here in zip(found(mps), found(home(mps)), strict=True):
        assert there.device == home(mps) and torch.equal(there, here)


def test_classes_and_their_reliability(mps: torch.device) -> None:
    data = pv.Digits()
    torch.manual_seed(0)
    model = pv.assemble(data, condition="label", latent_dim=2, network=pv.MLP((8,))).to(mps)
    found = pv.label_posterior(model.model, model.guide, some(mps), num_classes=10, num_particles=5)
    labels = data.test.labels[:4].to(mps)
    assert found.probabilities.sum(1).tolist() == pytest.approx([1.0] * 4)
    assert 0 <= pv.reliability(found.probabilities, labels).accuracy <= 1


def test_a_report_is_made(mps: torch.device) -> None:
    found = pv.evaluate(small(mps), DATA, particles=20, num_data=10)
    assert found.content["device"].startswith("mps")
