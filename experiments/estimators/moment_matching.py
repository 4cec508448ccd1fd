"""Importance sampling from a guide whose draws are moved until their weights have a light tail.

Paananen, Piironen, Bürkner & Vehtari, "Implicitly adaptive importance sampling" (2021).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.importance.results import RELIABLE_K
from pyro_vae.importance.summary import summary_of_weights
from pyro_vae.programs import Latents

#: Rounds at the most.
_ROUNDS = 30


class Affine(NamedTuple):
    """u = A θ + b for each datum, θ being a draw from the guide."""

    #: A, (B, n, n).
    matrix: Tensor
    #: b, (B, n).
    shift: Tensor

    def __call__(self, theta: Tensor) -> Tensor:
        """All draws θ (K, B, n), moved."""
        return torch.einsum("bij,kbj->kbi", self.matrix, theta) + self.shift

    def at(self, chosen: Tensor) -> "Affine":
        """Those of some data."""
        return Affine(self.matrix[chosen], self.shift[chosen])

    def put(self, chosen: Tensor, other: "Affine") -> None:
        """Take over those of some data."""
        self.matrix[chosen], self.shift[chosen] = other

    def then(self, matrix: Tensor, old: Tensor, new: Tensor) -> "Affine":
        """Followed by u → M (u − old) + new."""
        shift = (matrix @ (self.shift - old)[..., None])[..., 0] + new
        return Affine(matrix @ self.matrix, shift)


class Matched(NamedTuple):
    """What was found, (B,) each."""

    #: log p̂(x) by fresh draws from the matched proposal: E p̂(x) = p(x).
    estimate: Tensor
    #: k̂ of the draws of the matching, at its end.
    pareto_k: Tensor
    #: Densities per datum, in the mean.
    densities: float


@torch.no_grad()
def moment_matched(latents: Latents, batch: Batch, num: int, enough: float = RELIABLE_K) -> Matched:
    """Log p(x) of each datum by `num` fresh draws from the guide, moved as `num` others have shown.

    A step matches the mean of u to its weighted mean; or with it the standard deviations; or the whole
    covariance. In each round the first that lowers k̂ is taken, until k̂ is `enough` at the most or none does.
    w = p(x, u) |A| / q(θ). Given the steps, which fresh draws do not change, E w = p(x).
    """
    matching = _Matching(latents, batch, num)
    active = torch.arange(len(batch))
    for _ in range(_ROUNDS):
        active = rest = active[matching.k[active] > enough]
        for step in (_mean, _deviations, _covariance):
            rest = matching.without_taken(step, rest)
        active = active[~torch.isin(active, rest)]
    fresh = latents.from_guide(batch, num)
    log_q = _log_densities(latents, batch, fresh, guide=True)
    log_w = _log_weights(latents, batch, fresh, log_q, matching.map)
    return Matched(log_w.logsumexp(0) - math.log(num), matching.k, num * (matching.tried + 1))


class _Matching:
    """Draws of all data from the guide, and how they are moved."""

    def __init__(self, latents: Latents, batch: Batch, num: int) -> None:
        self.latents, self.batch = latents, batch
        self.theta, self.map = latents.from_guide(batch, num), _identity(latents, batch)
        self.log_q = _log_densities(latents, batch, self.theta, guide=True)
        self.log_w = _log_weights(latents, batch, self.theta, self.log_q, self.map)
        self.k = _tail(self.log_w)
        #: How often a datum has been weighed, in the mean.
        self.tried = 1.0

    def without_taken(self, step: Callable[[Affine, Tensor, Tensor], Affine], rest: Tensor) -> Tensor:
        """Take a step for those data of `rest` whose k̂ it lowers; returns the others."""
        if not len(rest):
            return rest
        theta, log_q = self.theta[:, rest], self.log_q[:, rest]
        moved = step(self.map.at(rest), theta, self.log_w[:, rest])
        log_w = _log_weights(self.latents, self.batch[rest], theta, log_q, moved)
        k = _tail(log_w)
        better = k < self.k[rest]
        taken = rest[better]
        self.map.put(taken, moved.at(better))
        self.log_w[:, taken], self.k[taken] = log_w[:, better], k[better]
        self.tried += len(rest) / len(self.batch)
        return rest[~better]


def _identity(latents: Latents, batch: Batch) -> Affine:
    like = latents.from_guide(batch, 1)[0]
    eye = torch.eye(latents.size, dtype=like.dtype)
    return Affine(eye.repeat(len(batch), 1, 1), torch.zeros_like(like))


def _mean(now: Affine, theta: Tensor, log_w: Tensor) -> Affine:
    return _matched(now, theta, log_w, lambda old, new: torch.eye(old.shape[-1]).to(old).expand_as(old))


def _deviations(now: Affine, theta: Tensor, log_w: Tensor) -> Affine:
    def ratio(old: Tensor, new: Tensor) -> Tensor:
        return torch.diag_embed((_diagonal(new) / _diagonal(old)).sqrt())

    return _matched(now, theta, log_w, ratio)


def _covariance(now: Affine, theta: Tensor, log_w: Tensor) -> Affine:
    """By Cholesky factors; NaN, which lowers no k̂, where a weighted covariance has none."""

    def ratio(old: Tensor, new: Tensor) -> Tensor:
        (root, bad), (target, worse) = (torch.linalg.cholesky_ex(each) for each in (old, new))
        found = torch.linalg.solve_triangular(root, target, upper=False, left=False)
        return found.masked_fill(((bad + worse) > 0)[:, None, None], torch.nan)

    return _matched(now, theta, log_w, ratio)


def _matched(now: Affine, theta: Tensor, log_w: Tensor, ratio: Callable[[Tensor, Tensor], Tensor]) -> Affine:
    """`now`, followed by the step whose matrix `ratio` makes of both covariances."""
    u = now(theta)
    old, new = (_moments(u, each) for each in (torch.zeros_like(log_w), log_w))
    return now.then(ratio(old[1], new[1]), old[0], new[0])


def _moments(u: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean (B, n) and covariance (B, n, n)."""
    weights = log_w.softmax(0).to(u)
    mean = torch.einsum("kb,kbi->bi", weights, u)
    return mean, torch.einsum("kb,kbi,kbj->bij", weights, u - mean, u - mean)


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _log_weights(latents: Latents, batch: Batch, theta: Tensor, log_q: Tensor, map_: Affine) -> Tensor:
    """Log p(x, u) |A| / q(θ) at u = A θ + b: (K, B), 0 for a map that is none."""
    good = map_.matrix.isfinite().all(-1).all(-1)
    u = torch.where(good[:, None], map_(theta), theta)
    found = _log_densities(latents, batch, u) + torch.linalg.slogdet(map_.matrix)[1].double() - log_q
    return found.masked_fill(~good, -torch.inf)


def _log_densities(latents: Latents, batch: Batch, u: Tensor, *, guide: bool = False) -> Tensor:
    """Log p(x, u), or log q(u|x), of all draws u (K, B, n): (K, B), float64."""
    parts = []
    for part in u.split(max(latents.pair.rows // len(batch), 2)):
        found = latents.log_probs(batch, part, guide=guide)
        log_p = found.log_qz if guide else found.log_px + found.log_pz
        parts.append((log_p + found.log_det).double())
    return torch.cat(parts)


def _tail(log_w: Tensor) -> Tensor:
    """k̂ of each datum, (B,); infinite where no weight is positive or k̂ is unknown."""
    none = log_w.isneginf().all(0)
    found = summary_of_weights(log_w.masked_fill(none, 0.0), rounding=1e-7)["pareto_k"]
    return found.nan_to_num(torch.inf).masked_fill(none, torch.inf)
