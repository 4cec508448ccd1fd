"""A prior that asks for a warm-up of the KL term gets one, where nothing else is said."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_vae as pv
from tests.commands import SMALL, Run
from tests.components import refused

DATA = pv.Digits(form=pv.Static())
VAMP = partial(pv.VampPrior, components=5)


def vae(prior: Any = VAMP, **options: Any) -> pv.VAE:
    """A small one, always of the same parameters."""
    torch.manual_seed(0)
    return pv.assemble(DATA, **{"latent_dim": 2, "network": pv.MLP((8,)), "prior": prior, **options})


def weights(program: Any = None, **options: Any) -> list[float]:
    """Of each epoch's last step, in batches of 650: two steps an epoch."""
    history = pv.fit(program or vae(), DATA, **{"epochs": 4, "batch_size": 650, **options})
    return [epoch.kl_weight for epoch in history.epochs]


def test_half_of_the_training_with_a_vamp_prior() -> None:
    assert weights() == [0.5, 1, 1, 1]
    assert weights(epochs=5) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])  # 2.5 epochs, up to whole ones
    assert weights(kl_weight=2.0) == [1, 2, 2, 2]
    assert weights(steps=6) == [0.5, 1, 1]  # of three epochs, the last no part of one


@pytest.mark.parametrize("prior", [pv.StandardNormalPrior, pv.MixturePrior, pv.FlowPrior])
def test_none_with_others(prior: Any) -> None:
    assert weights(vae(prior), epochs=2) == [1, 1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kl_warm_up": 0}, [1, 1, 1, 1]),
        ({"kl_warm_up": 4}, [0.25, 0.5, 0.75, 1]),
        ({"kl_weight": lambda step: 0.5}, [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_what_is_given_counts(options: dict[str, Any], expected: list[float]) -> None:
    assert weights(**options) == expected


def test_a_cycle_still_needs_its_warm_up() -> None:
    with refused("kl_cycle begins the warm-up anew every 2 epochs, got no kl_warm_up"):
        weights(kl_cycle=2)


def test_it_is_the_training_with_that_warm_up_to_the_last_bit() -> None:
    asked, given = vae(), vae()
    weights(asked)
    weights(given, kl_warm_up=2)
    assert all(map(torch.equal, asked.parameters(), given.parameters()))
    without = vae()
    weights(without, kl_warm_up=0)
    assert not all(map(torch.equal, asked.parameters(), without.parameters()))


def test_the_uppermost_of_several_layers_asks_too() -> None:
    layers = vae(program=pv.HierarchicalVAE, latent_dim=(3, 2))
    assert weights(layers) == [0.5, 1, 1, 1]


def test_a_prior_of_ones_own_asks() -> None:
    class Slow(pv.StandardNormalPrior):
        warm_up_share = 1.0

    assert weights(vae(Slow)) == [0.25, 0.5, 0.75, 1]


def test_several_at_once() -> None:
    options: dict[str, Any] = {"epochs": 4, "batch_size": 650}
    each = [{}, {"kl_warm_up": 0}, {"kl_warm_up": 4}]
    members = pv.fit_many(vae, DATA, each=each, **options)
    found = [[epoch.kl_weight for epoch in member.history.epochs] for member in members]
    assert found == [[0.5, 1, 1, 1], [1, 1, 1, 1], [0.25, 0.5, 0.75, 1]]


def test_a_longer_training_keeps_to_the_warm_up_it_began_with(tmp_path: Path) -> None:
    folder: dict[str, Any] = {"checkpoints": tmp_path, "resume": True}
    weights(**folder)
    assert weights(epochs=12, **folder) == [0.5, *[1] * 11]
    with refused("made with kl_warm_up 2, got 6"):
        weights(epochs=12, kl_warm_up=6, **folder)


def test_a_training_without_one_goes_on_by_saying_so(tmp_path: Path) -> None:
    folder: dict[str, Any] = {"checkpoints": tmp_path, "resume": True}
    weights(kl_warm_up=0, **folder)
    with refused("made with kl_warm_up 0, got 3"):
        weights(epochs=6, **folder)
    assert weights(epochs=6, kl_warm_up=0, **folder) == [1] * 6


def test_the_command_says_so(pyro_vae: Run) -> None:
    few = ("--prior", "VampPrior", "--prior.components", 5, "--epochs", 2, *SMALL)
    said = (
        "over the first 50% of the training the weight of the KL term rises to its value, as VampPrior asks"
    )
    status, _, errors = pyro_vae("train", *few, "--out", "a")
    assert status == 0
    assert said in errors
    status, _, errors = pyro_vae("train", *few, "--kl_warm_up", 0, "--seeds", 2, "--out", "b")
    assert status == 0
    assert "KL term" not in errors
    assert pyro_vae("train", "--resume", "a", "--epochs", 3)[0] == 0
