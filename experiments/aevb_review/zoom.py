"""log p(x) of a model with two latent dimensions where p(z|x) is too narrow for one grid."""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.grid import check_plane, log_joint_table

#: Squares that are divided at the least.
_FEWEST = 300


class ZoomedEvidence(NamedTuple):
    """log p(x) by squares that were divided where the integrand is."""

    #: log p(x) of each datum in nats: (B,), float64.
    estimate: Tensor
    #: How much the last division changed it, in nats: (B,), float64.
    change: Tensor
    #: Side of the smallest squares, in units of z: (B,), float64.
    width: Tensor

    def __repr__(self) -> str:
        mean, change = float(self.estimate.mean()), float(self.change.abs().max())
        return (
            f"log p(x) = {mean:.3f} nats, mean of {len(self.estimate)} data, by squares of side "
            f"{float(self.width.min()):.1e} and more; the last division changed none by over {change:.1e}"
        )


@torch.no_grad()
def zoomed_log_evidence(
    vae: pv.VAE,
    x: Tensor,
    *,
    limit: float = 6.0,
    points: int = 201,
    keep: float = 100.0,
    tolerance: float = 1e-3,
    levels: int = 8,
) -> ZoomedEvidence:
    """Integrate by the midpoint rule, log p(x) ≈ log Σ_c h² p(x|z_c) p(z_c), over squares c of side h.

    Begins with points² squares of the plane. A square whose log-joint is within `keep` nats of the largest,
    or among the 300 largest, since a mode narrower than its square shows at the middle less than it has, is
    divided into nine, and the others are left out, until an estimate is within `tolerance` of the one
    before. In float64, since small scales cancel large numbers.

    Args:
        vae: With two latent dimensions.
        x: Data: (B, *data_shape).
        limit: The plane reaches from −limit to limit along both axes.
        points: Squares along each axis at the start.
        keep: How far below the largest log-joint a square may be, in nats.
        tolerance: In nats.
        levels: Divisions at the most; `change` says how far the estimate had settled.

    Raises:
        InputError: where the latent has not two dimensions, or there are fewer than two points.
    """
    check_plane(vae)
    if points < 2:
        raise pv.InputError(f"points expects a number from 2, got {points}")
    exact = copy.deepcopy(vae).double()
    width = 2 * limit / points
    axis = torch.arange(points, dtype=torch.float64, device=vae.device) * width + (width / 2 - limit)
    z = torch.cartesian_prod(axis, axis)
    first = log_joint_table(exact, z, x.double())  # (points², B)
    found = [
        _divide(exact, datum, z, log_joint, width, keep, tolerance, levels)
        for datum, log_joint in zip(x.double().split(1), first.T, strict=True)
    ]
    return ZoomedEvidence(*torch.tensor(found, dtype=torch.float64, device=vae.device).T)


def _divide(
    vae: pv.VAE,
    x: Tensor,
    z: Tensor,
    log_joint: Tensor,
    width: float,
    keep: float,
    tolerance: float,
    levels: int,
) -> tuple[float, float, float]:
    """Estimate, last change and width of one datum (1, *data_shape), from its first squares."""
    third = torch.tensor([-1.0, 0.0, 1.0], dtype=z.dtype, device=z.device) / 3
    offsets = torch.cartesian_prod(third, third)
    estimate, change = float(log_joint.logsumexp(0)) + 2 * math.log(width), math.inf
    for _ in range(levels):
        if abs(change) < tolerance:
            break
        fewest = log_joint.topk(min(_FEWEST, len(z))).values[-1]
        near = log_joint >= torch.minimum(log_joint.max() - keep, fewest)
        z = (z[near, None] + offsets * width).flatten(0, 1)
        width /= 3
        log_joint = log_joint_table(vae, z, x)[:, 0]
        latest = float(log_joint.logsumexp(0)) + 2 * math.log(width)
        estimate, change = latest, latest - estimate
    return estimate, change, width
