"""What holds on a GPU as on a CPU: each test runs on the CPU, and on CUDA where that is there."""

import gc
import os
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compiled import capture
from pyro_vae.processes import on_all_cores
from pyro_vae.reports.facts import circumstances

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ONE_GPU = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
DEVICE = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])

DATA = pv.Digits()


def small(**parts: Any) -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,)), **parts)


def close(one: nn.Module, other: nn.Module, tolerance: float) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def without_time(history: pv.History) -> Tensor:
    return torch.tensor([list(epoch._replace(seconds=0.0)) for epoch in history.epochs], dtype=torch.float64)


def falling(optimiser: Any) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)


@DEVICE
@pytest.mark.parametrize(
    "options",
    [{}, {"kl_warm_up": 8, "kl_weight": 0.5, "schedule": falling, "clip_norm": 5.0}],
    ids=["plain", "schedule and KL weights"],
)
@pytest.mark.usefixtures("float64")
def test_200_steps_equal_those_of_svi(
    options: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 5)
    fast, eager = small(), small()
    settings: dict[str, Any] = {"epochs": 16, "keep": "last", "device": device, **options}
    history = pv.fit(fast, DATA, **settings)
    other = pv.fit(eager, DATA, **settings, compile="off")
    assert history.epochs[-1].step == 16 * 13
    assert torch.allclose(without_time(history), without_time(other), rtol=1e-6)
    assert close(fast, eager, 1e-6)


@DEVICE
@pytest.mark.usefixtures("float64")
def test_members_equal_their_trainings_alone(device: str) -> None:
    options: dict[str, Any] = {"epochs": 3, "keep": "last", "device": device}

    def make() -> pv.VAE:
        return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,)))

    for member in pv.fit_many(make, DATA, seeds=[3, 5], **options):
        torch.manual_seed(member.seed)
        alone = make()
        history = pv.fit(alone, DATA, seed=member.seed, **options)
        assert close(member.program, alone, 1e-8)
        assert torch.allclose(without_time(member.history), without_time(history), rtol=1e-8)


@DEVICE
def test_noise_is_fresh_at_each_replay_and_the_same_from_the_same_seed(device: str) -> None:
    place = torch.device(device)
    generator, found = torch.Generator(place), torch.zeros(2, 4, device=place)

    def step() -> None:
        found[0] = torch.rand(4, device=place)
        found[1] = torch.rand(4, device=place, generator=generator)

    step()
    replay = capture(step, place, [generator]) if device == "cuda" else step

    def drawn() -> list[Tensor]:
        torch.manual_seed(1)
        generator.manual_seed(2)
        return [(replay(), found.clone())[1] for _ in range(3)]

    first, again = drawn(), drawn()
    values = torch.stack(first).flatten()
    assert len(values.unique()) == len(values)
    assert torch.equal(torch.stack(again), torch.stack(first))


@DEVICE
def test_a_loss_that_is_not_finite_ends_training(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 1)
    too_fast = partial(torch.optim.SGD, lr=1e12)
    model = small()
    with pytest.raises(pv.NonFiniteLossError, match="the loss is"):
        pv.fit(model, DATA, epochs=3, optimiser=too_fast, schedule=late, device=device)


def late(optimiser: Any) -> torch.optim.lr_scheduler.LRScheduler:
    """No rate in the first epoch, in which whole steps are captured."""
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: float(epoch > 0))


def held(device: str) -> int:
    """Bytes of all tensors that are alive, but for those that stand for values in a trace."""
    gc.collect()
    if device == "cuda":
        return torch.cuda.memory_allocated()
    tensors = [each for each in gc.get_objects() if type(each) in (Tensor, torch.nn.Parameter)]
    return sum(each.numel() * each.element_size() for each in tensors)


@DEVICE
def test_a_training_leaves_no_memory_behind(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.training.ways.EAGER_STEPS", 1)
    bytes_held = []
    for _ in range(4):
        pv.fit(small(), DATA, epochs=1, device=device)
        bytes_held.append(held(device))
    # the first one makes what stays, as constants; what other tests have left may go meanwhile
    assert bytes_held[-1] <= bytes_held[1]


@DEVICE
def test_bfloat16_is_near_float32(device: str) -> None:
    histories = [
        pv.fit(small(), DATA, epochs=2, device=device, precision=precision)
        for precision in ("full", "bfloat16")
    ]
    exact, rounded = (history.epochs[-1].valid_elbo for history in histories)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


@ONE_GPU
def test_the_second_gpu_is_used_and_the_first_stays_as_it_was() -> None:
    before = torch.cuda.memory_allocated(0)
    model = small()
    pv.fit(model, DATA, epochs=2, device="cuda:1")
    x = DATA.test.batch(slice(0, 10)).to(model.device)
    assert pv.log_evidence(model.model, model.guide, x, num_particles=10).estimate.device == x.device
    assert model.device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    assert torch.cuda.memory_allocated(0) == before


def test_nothing_is_forked_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert on_all_cores([os.getpid, os.getpid]) == [os.getpid()] * 2


def test_products_in_tf32_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "H100")
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda", 0))
    assert circumstances(on_gpu)["device"] == "H100"
    monkeypatch.setattr("torch.get_float32_matmul_precision", lambda: "high")
    assert circumstances(on_gpu)["device"] == "H100, float32 products of high precision only"
