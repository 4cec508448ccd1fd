"""Weights of the data in training: as if a datum were there so many times."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

import pyro_vae as pv
from tests.commands import Run
from tests.components import refused

RANDOM = np.random.RandomState(0)
VALUES = RANDOM.normal(size=(12, 3))
WEIGHT = np.array([0.0, 1, 2, 0.5, 3, 1, 0, 4, 1, 1, 2, 0.5])


def dataset(weight: Any = WEIGHT, valid: bool = False) -> pv.Dataset:
    fields = {"train": {"w": weight}}
    return pv.Dataset(VALUES, VALUES[:4] if valid else None, fields=fields, given=())


def small() -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(dataset(), latent_dim=2, network=pv.MLP((4,)), likelihood=pv.NormalLikelihood).double()


def parameters(vae: pv.VAE) -> Tensor:
    return torch.cat([each.detach().flatten() for each in vae.parameters()])


OPTIONS: dict[str, Any] = {"epochs": 4, "batch_size": 12, "progress": False}
SGD = partial(torch.optim.SGD, lr=1e-2)


@pytest.mark.parametrize("objective", [Trace_ELBO, TraceMeanField_ELBO])
def test_a_step_is_that_of_a_loop_over_the_data(objective: Any) -> None:
    vae, other = small(), small()
    pv.fit(vae, dataset(), weight="w", optimiser=SGD, objective=objective, compile="off", **OPTIONS)
    optimiser = SGD(other.parameters())
    x = torch.from_numpy(VALUES).float().double()
    torch.manual_seed(0)
    weight = torch.from_numpy(WEIGHT / WEIGHT.mean())
    for _ in range(4):
        optimiser.zero_grad()
        qz = other.posterior(x)
        z = qz.rsample()
        terms = other.likelihood(z).log_prob(x)
        if objective is Trace_ELBO:
            terms = terms + other.prior().log_prob(z) - qz.log_prob(z)
        else:
            terms = terms - torch.distributions.kl_divergence(qz, other.prior().expand((12,)))
        (-(weight * terms).sum()).backward()
        optimiser.step()
    assert torch.allclose(parameters(vae), parameters(other), rtol=1e-9)


def test_whole_weights_are_copies_of_the_data_in_the_exact_gradient() -> None:
    """At a posterior without spread the gradient has no noise, so copies and weights agree."""
    copies = VALUES.repeat(np.array([2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]), axis=0)
    found = []
    for values, weight in ((VALUES, np.array([2, 1, 0, 0, 3] + [0] * 7)), (copies, np.ones(6))):
        pyro.clear_param_store()
        vae = small()
        data = pv.Dataset(values, fields={"train": {"w": weight}})

        def mean_only(x: Tensor, vae: pv.VAE = vae) -> Any:
            pyro.module("posterior", vae.posterior)
            with pyro.plate("data", len(x), dim=-1):
                return pyro.sample("z", dist.Delta(vae.posterior(x).mean, event_dim=1))

        rate = 1e-3 / len(values)  # of the sum over the batch
        options = {**OPTIONS, "epochs": 20, "batch_size": len(values)}
        pv.fit(
            (vae.model, mean_only), data, weight="w", optimiser=partial(torch.optim.SGD, lr=rate), **options
        )
        found.append(parameters(vae))
    assert torch.allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("compile", ["flat", "off"])
def test_weights_of_one_change_nothing_to_the_last_bit(compile: Any) -> None:
    plain, weighted = small(), small()
    without = pv.fit(plain, pv.Dataset(VALUES, VALUES[:4]), compile=compile, **OPTIONS)
    with_ones = pv.fit(weighted, dataset(np.ones(12), valid=True), weight="w", compile=compile, **OPTIONS)
    assert torch.equal(parameters(plain), parameters(weighted))
    assert [each.valid_elbo for each in without.epochs] == [each.valid_elbo for each in with_ones.epochs]
    assert [each.train_elbo for each in without.epochs] == pytest.approx(
        [each.train_elbo for each in with_ones.epochs]
    )


def test_flat_steps_are_those_of_svi_and_see_the_weights_of_each_batch() -> None:
    found = []
    for compile in ("off", "flat"):
        vae = small()
        options = {**OPTIONS, "batch_size": 4, "kl_warm_up": 2}
        history = pv.fit(vae, dataset(), weight="w", compile=compile, **options)
        found.append((parameters(vae), [each.train_elbo for each in history.epochs]))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    other = small()
    pv.fit(other, dataset(WEIGHT[::-1].copy()), weight="w", compile="flat", **{**OPTIONS, "batch_size": 4})
    assert not torch.allclose(found[0][0], parameters(other))


def test_what_is_logged_has_no_weights() -> None:
    vae = small()
    history = pv.fit(
        vae, dataset(), weight="w", optimiser=partial(torch.optim.SGD, lr=1e-12), compile="off", **OPTIONS
    )
    x = dataset().train.batch().double()
    expected = pv.elbo(vae.model, vae.guide, x, num_particles=2000).elbo.mean()
    assert np.mean([each.train_elbo for each in history.epochs]) == pytest.approx(float(expected), abs=1.5)


def test_a_tensor_and_a_program_of_ones_own() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1e-3))
            pyro.sample("x", dist.Normal(loc + z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 1e-3))

    x = torch.from_numpy(VALUES[:, 0]).float()
    data = pv.Batch(x, {"w": torch.from_numpy(WEIGHT).float()})
    options = {**OPTIONS, "epochs": 300, "compile": "off"}
    pv.fit((model, guide), data, weight="w", optimiser=partial(torch.optim.Adam, lr=3e-2), **options)
    assert float(pyro.param("loc").detach()) == pytest.approx(
        np.average(VALUES[:, 0], weights=WEIGHT), abs=0.01
    )


def test_refusals() -> None:
    with refused("weight expects the name of a field of the data, got 'v' for data with w: give it"):
        pv.fit(small(), dataset(), weight="v", **OPTIONS)
    for weight in (-WEIGHT, np.zeros(12), np.ones((12, 2))):
        with refused("weight expects one number from 0 for each datum, and some above it, got 'w' of shape"):
            pv.fit(small(), dataset(weight), weight="w", **OPTIONS)
    for objective in (pv.ImportanceWeightedELBO, pv.FreeBitsELBO):
        with refused(
            f"weight multiplies the ELBO of each datum, got the objective {objective.__name__}: use"
        ):
            pv.fit(small(), dataset(), weight="w", objective=objective, **OPTIONS)

    def model(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    x = torch.from_numpy(VALUES[:, 0])
    with refused(
        "weight expects programs whose sites lie in a plate of the data at axis -1, got 'z' outside"
    ):
        pv.fit((model, guide), pv.Batch(x, {"w": torch.from_numpy(WEIGHT)}), weight="w", **OPTIONS)


def test_the_command_line_takes_and_resumes_them(pyro_vae: Run) -> None:
    np.savez("a.npz", x=RANDOM.normal(size=(40, 3)), w=RANDOM.rand(40))
    data = ("--data", "ArrayFile", "--data.path", "a.npz", "--likelihood", "NormalLikelihood")
    more = ("--particles", 10, "--batch_size", 8, "--latent_dim", 2)
    for out, first in (("whole", 4), ("parts", 2)):
        words = ("train", *data, *more, "--weight", "w", "--epochs", first, "--out", out)
        status, _, err = pyro_vae(*words)
        assert status == 0, err
    assert pyro_vae("train", "--resume", "parts", "--epochs", 4)[0] == 0
    parts, whole = (
        [
            line.rpartition(",")[0] for line in Path(f"{run}/metrics.csv").read_text().splitlines()
        ]  # no seconds
        for run in ("parts", "whole")
    )
    assert parts == whole
    status, _, err = pyro_vae("train", *data, *more, "--epochs", 2, "--out", "plain")
    assert status == 2 and "w" in err  # the programs take no w
    assert pyro_vae("evaluate", "whole", "--particles", 5)[0] == 0
    assert pv.load("whole").data().given == ()


def test_svi_of_weighted_programs_is_pyros_own() -> None:
    from pyro_vae.training.weights import Weighted

    vae = small()
    x, weight = dataset().train.batch().double(), torch.from_numpy(WEIGHT)
    programs = [Weighted(each, "w", 1.0) for each in (vae.model, vae.guide)]
    pyro.set_rng_seed(1)
    loss = SVI(*programs, pyro.optim.SGD({"lr": 0.0}), Trace_ELBO()).evaluate_loss(x, w=weight)
    pyro.set_rng_seed(1)
    trace = pyro.poutine.trace(vae.guide).get_trace(x)
    replayed = pyro.poutine.trace(pyro.poutine.replay(vae.model, trace=trace)).get_trace(x)
    for each in (trace, replayed):
        each.compute_log_prob()
    terms = sum(replayed.nodes[name]["log_prob"] for name in ("z", "x")) - trace.nodes["z"]["log_prob"]
    assert loss == pytest.approx(-float((weight * terms).sum().detach()))
