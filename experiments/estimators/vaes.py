"""Trained VAEs whose log p(x) is integrated over a grid, or estimated at length in two ways."""

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyro_vae as pv
from experiments.count_table.setting import CountMLP
from experiments.count_table.truth import data_of, truth_of
from experiments.estimators.setting import Options, Reference
from experiments.grid import grid_log_evidence

_HIDDEN = (64, 64)


def digits() -> tuple[pv.VAE, pv.Dataset]:
    """Eight latent dimensions, Bernoulli pixels."""
    data = pv.Digits(form=pv.Static())
    return pv.assemble(data, latent_dim=8, network=pv.MLP(_HIDDEN)), data


def layered() -> tuple[pv.HierarchicalVAE, pv.Dataset]:
    """Two layers of eight and four latent dimensions, and a flow for p(z₂)."""
    data = pv.Digits(form=pv.Static())
    vae = pv.assemble(
        data,
        program=pv.HierarchicalVAE,
        latent_dim=(8, 4),
        network=pv.MLP(_HIDDEN),
        upper_network=pv.MLP((32,)),
        prior=partial(pv.FlowPrior, transforms=2, hidden_dims=(16,)),
    )
    return vae, data


def counts() -> tuple[pv.VAE, pv.Dataset]:
    """Twenty counts of a simulated cell, negative binomial, two latent dimensions."""
    data = data_of(truth_of(20), (2000, 200, 200))
    likelihood = pv.NegativeBinomialLikelihood
    return pv.assemble(data, latent_dim=2, network=CountMLP(_HIDDEN), likelihood=likelihood), data


def table() -> tuple[pv.VAE, pv.Dataset]:
    """Numbers, counts, truth values and categories in one row, two latent dimensions."""
    random = np.random.RandomState(0)
    old, rich = random.normal(size=(2, 1200))
    near = np.stack([old, rich, 0.5 - old], axis=1) + random.gumbel(size=(1200, 3))
    columns = {
        "age": 45 + 12 * old + 2 * random.normal(size=1200),
        "income": np.exp(10 + 0.5 * rich + 0.2 * random.normal(size=1200)),
        "visits": random.poisson(np.exp(1 + 0.6 * old)),
        "smokes": np.where(random.logistic(size=1200) < -1 - rich, "yes", "no"),
        "city": np.array(["Bonn", "Kiel", "Ulm"])[near.argmax(1)],
    }
    rows = pv.Table.from_columns(columns)
    return pv.assemble(rows, latent_dim=2, network=pv.MLP(_HIDDEN)), rows


def trained(make: Callable[[], tuple[Any, pv.Dataset]], folder: Path, options: Options) -> tuple[Any, Tensor]:
    """The model, trained or read where it is, and the first test data."""
    torch.manual_seed(0)
    vae, data = make()
    optimiser = partial(torch.optim.Adam, lr=2e-3)
    pv.fit(
        vae,
        data,
        epochs=options.epochs,
        batch_size=50,
        optimiser=optimiser,
        seed=0,
        checkpoints=folder,
        resume=True,
    )
    return vae, data.test.batch()[: options.num_data]


def over_grid(vae: pv.VAE, x: Tensor, options: Options) -> Reference:
    """By integration in float64; the difference is that to half as many points along each axis."""
    found = grid_log_evidence(copy.deepcopy(vae).double(), x.double(), limit=7.0, points=options.points)
    distance = float((found.estimate - found.coarse).abs().max())
    return Reference(found.estimate.tolist(), "grid", distance)


def at_length(vae: Any, x: Tensor, options: Options) -> Reference:
    """By many draws from proposals fitted at length; the difference is that to annealing at length."""
    fit = pv.LocalProposal(steps=400, draws=20, above=-math.inf)
    sampled = pv.log_evidence(vae.model, vae.guide, x, num_particles=options.many, proposal=fit)
    chains, temperatures = options.long
    annealed = pv.annealed_log_evidence(
        vae.model, vae.guide, x, num_chains=chains, num_temperatures=temperatures, start="guide"
    )
    distance = float((annealed.estimate - sampled.estimate).abs().max())
    k = float(sampled.pareto_k.max())
    how = f"{options.many:,} draws (largest k̂ {k:.2f}), and annealing"
    return Reference(sampled.estimate.tolist(), how, distance)
