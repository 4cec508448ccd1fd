"""`fit_many`: each member is what it would be by itself, on one core or in one batched program."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.training import together

DATA = pv.Digits()


def small(**parts: Any) -> pv.VAE:
    return pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,)), **parts)


def alone(make: Any, seed: int, **options: Any) -> tuple[pv.JointProgram, pv.History]:
    torch.manual_seed(seed)
    model = make()
    return model, pv.fit(model, DATA, seed=seed, **options)


def deviation(one: nn.Module, other: nn.Module) -> float:
    """The largest difference in a parameter or buffer."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())


def without_time(history: pv.History) -> Tensor:
    return torch.tensor([list(epoch._replace(seconds=0.0)) for epoch in history.epochs], dtype=torch.float64)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kl_weight": 0.5, "kl_warm_up": 3, "clip_norm": 5.0},
        {"objective": pv.ImportanceWeightedELBO, "num_particles": 3},
        {"schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), "keep": "last"},
    ],
    ids=["plain", "KL warm-up, clipped", "importance-weighted", "scheduled"],
)
def test_each_seed_equals_its_training_alone(options: dict[str, Any]) -> None:
    found = pv.fit_many(small, DATA, seeds=[3, 5, 8], epochs=8, **options)
    for member in found:
        model, history = alone(small, member.seed, epochs=8, **options)
        assert deviation(member.program, model) < 1e-9
        assert torch.allclose(without_time(member.history), without_time(history), rtol=1e-9)
        assert member.history.best_epoch == history.best_epoch
