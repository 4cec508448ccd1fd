"""What is measured of one trained model: its scales, and which pixels its log density comes from."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import pyro_vae as pv
from experiments.aevb_review.zoom import zoomed_log_evidence
from pyro_vae.randomness import own_randomness
from pyro_vae.storage.runs import Run

#: Pixels by the share of training images in which they differ from their most frequent level.
GROUPS = {"constant": 0.0, "up to 0.1 %": 0.001, "up to 1 %": 0.01, "up to 10 %": 0.1, "others": 1.0}


class Sizes(NamedTuple):
    """How much is measured."""

    #: Test data whose log density is looked at.
    data: int | None = None
    #: Test data whose log p(x) is integrated.
    integrated: int = 50
    #: Squares along each axis at the start of that.
    points: int = 201
    #: Divisions at the most.
    levels: int = 8


def changing(levels: Tensor) -> Tensor:
    """Share of the data in which each pixel differs from its most frequent level: (N, D) to (D,).

    >>> changing(torch.tensor([[0, 1], [0, 2], [0, 1], [0, 1]]))
    tensor([0.0000, 0.2500], dtype=torch.float64)
    """
    return (levels != levels.mode(0).values).double().mean(0)


def unusual(levels: Tensor, training: Tensor, *, rare: float = 0.001) -> Tensor:
    """Number of pixels, in each datum, with another level than the one they (almost) always have in training.

    Args:
        levels: (B, D).
        training: (N, D).
        rare: Largest share of the training data in which such a pixel may differ.

    >>> unusual(torch.tensor([[0, 7], [3, 7]]), torch.tensor([[0, 1], [0, 2], [0, 1]]))
    tensor([0, 1])
    """
    return ((levels != training.mode(0).values) & (changing(training) <= rare)).sum(1)


def group_of(share: Tensor) -> Tensor:
    """Index into GROUPS of each pixel, from what `changing` gives."""
    edges = torch.tensor(list(GROUPS.values()), dtype=share.dtype)
    return torch.bucketize(share, edges)


def levels_of(data: pv.Dataset, x: Tensor) -> Tensor:
    """The grey levels (B, D) of data x as a batch gives them."""
    per_unit = data.train.maximum + (1 if data.bin_width else 0)
    flat = x.flatten(1).double() * per_unit
    if not data.bin_width:
        return flat.round().long()
    # k / 17 in float32 may lie just below k / 17, while k / 256 is exact
    return (flat + (0.0 if math.log2(per_unit).is_integer() else 2e-6)).floor().long()


def constant_density(log_scale: float) -> float:
    """Log density of a pixel that equals its mean: −log s − ½ log 2π, in nats, without limit as s falls to 0.

    >>> round(constant_density(-20.0), 2)
    19.08
    """
    return -log_scale - 0.5 * math.log(2 * math.pi)


def uniform_density(bin_width: float) -> float:
    """Mean log density of the best normal for a pixel that is uniform over one bin: −log w − ½ log(2πe / 12).

    Its scale is s = w / √12. No density has more than −log w.

    >>> round(uniform_density(1 / 256), 3)
    5.369
    """
    return -math.log(bin_width) - 0.5 * math.log(2 * math.pi * math.e / 12)


@torch.no_grad()
def pixel_densities(vae: pv.VAE, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Log density and log scale of each pixel of each datum under p(x|z): both (B, D), float64."""
    px = vae.likelihood(z).base_dist
    parts = (px.log_prob(x), px.scale.log().expand(x.shape))
    density, log_scale = (part.double().flatten(1) for part in parts)
    return density, log_scale


def measured(
    run: Run, data: pv.Dataset, vae: pv.VAE, summary: dict[str, Any], sizes: Sizes
) -> dict[str, Any]:
    """All numbers of one run, for JSON."""
    evidence, training = summary["log_evidence"], summary["training"]
    x = vae.place(data.test.subset(sizes.data).batch())
    return {
        "protocol": data.protocol,
        "units": summary["units"],
        "elbo": {name: round(part["elbo"], 3) for name, part in summary["elbo"].items()},
        "kl": round(summary["elbo"]["test"]["kl"], 3),
        "log_evidence": round(evidence["estimate"], 3),
        "standard_error": round(evidence["standard_error"], 3),
        "bits_per_dim": evidence.get("bits_per_dim"),
        "rmse": round(float((vae.decode(vae.encode(x)) - x).square().mean().sqrt()), 5),
        "training": {name: training[name] for name in ("epochs", "best_epoch", "ended_by", "parameters")},
        "versions": summary["versions"],
        "curves": _curves(run),
        "integrated": _integrated(run, data, vae, sizes),
        "density": _density(data, vae, x),
    }


def _curves(run: Run) -> dict[str, list[float]]:
    """ELBO and seconds by epoch."""
    rows = np.genfromtxt(run.folder / "metrics.csv", delimiter=",", names=True)
    names = ("train_elbo", "valid_elbo", "seconds")
    return {name: np.atleast_1d(rows[name]).round(2).tolist() for name in names}


def _integrated(run: Run, data: pv.Dataset, vae: pv.VAE, sizes: Sizes) -> dict[str, Any]:
    """Importance sampling beside the integral, on the same data."""
    with np.load(run.folder / "per_datum.npz") as found:
        pareto_k, sampled = found["pareto_k"], found["log_evidence"]
    x = vae.place(data.test.subset(len(sampled)).batch(slice(0, sizes.integrated)))
    zoomed = zoomed_log_evidence(vae, x, points=sizes.points, levels=sizes.levels)
    return {
        "data": len(sampled),
        "unreliable": int((~(pareto_k <= 0.7)).sum()),
        "pareto_k": [None if math.isnan(k) else round(float(k), 3) for k in pareto_k[: len(x)]],
        "sampled": sampled[: len(x)].round(3).tolist(),
        "estimate": [round(each, 3) for each in zoomed.estimate.tolist()],
        "change": float(zoomed.change.abs().max()),
        "width": float(zoomed.width.min()),
    }


def _density(data: pv.Dataset, vae: pv.VAE, x: Tensor) -> dict[str, Any]:
    """Where the log density comes from, pixel by pixel and datum by datum."""
    with own_randomness(0, vae.device):
        z = vae.posterior(x).sample()
    parts = [pixel_densities(vae, *each) for each in zip(x.split(1000), z.split(1000), strict=True)]
    density, log_scale = (torch.cat(each) for each in zip(*parts, strict=True))
    training = data.train.values.flatten(1)
    group = group_of(changing(training))
    numbers = range(len(GROUPS))
    smallest = int(log_scale.argmin())
    return {
        "pixels": [int((group == each).sum()) for each in numbers],
        "nats": [round(float(density.mean(0)[group == each].sum()), 3) for each in numbers],
        "log_scale": [_mean(log_scale[:, group == each]) for each in numbers],
        "smallest": [round(float(log_scale.min()), 4), *divmod(smallest % x[0].numel(), x.shape[-1])],
        "by_pixel": [[round(each, 2) for each in part.mean(0).tolist()] for part in (log_scale, density)],
        "unusual": _outliers(unusual(levels_of(data, x), training.long()), density.sum(1)),
    }


def _mean(values: Tensor) -> float | None:
    return round(float(values.mean()), 4) if values.numel() else None


def _outliers(number: Tensor, density: Tensor) -> dict[str, Any]:
    """Log density of the data with a pixel that hardly ever changes in training, beside the others'."""
    has = number > 0
    ordered = density.sort().values
    return {
        "data": len(density),
        "number": int(has.sum()),
        "mean": _mean(density),
        "with": _mean(density[has]),
        "without": _mean(density[~has]),
        "median": _mean(density.median()),
        "lowest": [round(each, 1) for each in ordered[:3].tolist()],
        "lowest_unusual": number[density.argsort()[:3]].tolist(),
    }
