"""What a report says of its numbers, for any joint program."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import reports
from tests.components import DISCRETE, LIKELIHOODS, data_for, vae


class Annotated(pv.VAE):
    """A VAE whose model notes a number and weights its data."""

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("more", x.shape[0], dim=-1):
            pyro.deterministic("brightness", x.flatten(1).mean(-1))
            pyro.factor("weight", torch.zeros(len(x)))
        return super().model(x)


class Labelled(pv.VAE):
    """A VAE that observes a real number beside its data."""

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("more", x.shape[0], dim=-1):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=x.flatten(1).mean(-1))
        return super().model(x)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_is_observed_tells_a_mass_from_a_density(name: str) -> None:
    parts = vae(likelihood=name)
    x = data_for(name)
    state = torch.get_rng_state()
    assert reports.is_mass(parts, x) == (name in DISCRETE)
    assert torch.equal(torch.get_rng_state(), state)
    annotated = Annotated(parts.prior, parts.likelihood, parts.posterior)
    assert reports.is_mass(annotated, x) == (name in DISCRETE)
    assert not reports.is_mass(Labelled(parts.prior, parts.likelihood, parts.posterior), x)


def test_bits_need_levels_or_bins() -> None:
    grey, dequantised, bits = (
        pv.Digits(binarization=binarization) for binarization in ("none", "dequantised", "dynamic")
    )
    assert reports.bits(grey, True, -64.0 * 2) == {"bits_per_dim": pytest.approx(2 / 0.6931471805599453)}
    assert reports.bits(dequantised, False, 0.0) == {"bits_per_dim": pytest.approx(4.087462841250339)}
    for data, mass in ((grey, False), (bits, True), (bits, False), (pv.Dataset(torch.rand(3, 2)), False)):
        assert reports.bits(data, mass, -1.0) == {}
