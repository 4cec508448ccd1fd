"""VAEs of a table: a few settings, of which the validation data choose."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import pyro_vae as pv


class Found(NamedTuple):
    """A trained VAE."""

    #: The setting that was chosen.
    setting: str
    #: Mean log p(x) of the validation data, by importance sampling.
    valid: float
    #: Log p(x) of each test row, by importance sampling.
    log_p: NDArray[np.float64]
    #: Mean Monte Carlo error of these, and their share of k-hat above 0.7.
    error: float
    share_above: float


def settings(large: bool) -> Mapping[str, dict[str, Any]]:
    """What is tried: scales of all rows or by the network, and codes of several lengths."""
    by_row: dict[str, pv.ColumnDensity] = {
        kind: pv.NormalColumns(scale="per_datum", log_scale_bounds=(-3.0, 3.0))
        if kind == "real"
        else pv.LogNormalColumns(scale="per_datum", log_scale_bounds=(-3.0, 3.0))
        for kind in ("real", "positive")
    }
    per_row = partial(pv.ColumnsLikelihood, densities=by_row)
    dims = (4, 8) if large else (2, 6)
    width = 100 if large else 50
    common = {"network": pv.MLP((width, width)), "posterior": pv.FullNormalPosterior}
    return {
        f"{dims[0]} latent, σ of a column": {"latent_dim": dims[0], **common},
        f"{dims[1]} latent, σ of a column": {"latent_dim": dims[1], **common},
        f"{dims[0]} latent, σ of a row": {"latent_dim": dims[0], "likelihood": per_row, **common},
    }


def best_vae(table: pv.Table, *, large: bool, smoke: bool = False, particles: int = 2000) -> Found:
    """The setting with the best validation log p(x)."""
    found = [
        _trained(name, options, table, large, smoke, 20 if smoke else particles)
        for name, options in settings(large).items()
    ]
    return max(found, key=lambda each: each.valid)


def _trained(
    name: str, options: dict[str, Any], table: pv.Table, large: bool, smoke: bool, particles: int
) -> Found:
    torch.manual_seed(0)
    vae = pv.assemble(table, **options)
    optimiser: Callable[..., torch.optim.Optimizer] = partial(torch.optim.Adam, lr=2e-3, fused=True)
    epochs = 1 if smoke else 60 if large else 400
    pv.fit(
        vae,
        table,
        optimiser=optimiser,
        batch_size=100 if large else 32,
        patience=10 if large else 50,
        epochs=epochs,
    )
    valid, test = (
        pv.log_evidence(vae.model, vae.guide, part.batch(), num_particles=particles)
        for part in (table.valid, table.test)
    )
    return Found(
        name,
        valid.mean,
        test.estimate.double().numpy(),
        test.mean_monte_carlo_error,
        float((test.pareto_k > 0.7).double().mean()),
    )
