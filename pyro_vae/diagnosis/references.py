"""The points from which distances are measured in coverage with random points."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.diagnosis.ranking import Quantities
from pyro_vae.diagnosis.standardised import Features, Guide, look, refuse_nan
from pyro_vae.programs import Latents, simulate
from pyro_vae.randomness import OwnStream

#: Each rule by which a point is chosen.
REFERENCES = ("a draw", "the shift", "the spread")
#: How far the points of the last two lie from the mean of q(z|x), in its standard deviations.
_DISTANCE = 3.0
#: Data on which the rules are learned, draws of q(z|x) on each, and what keeps them from fitting noise.
_PILOT, _DRAWS, _RIDGE, _JITTER = 300, 4, 10.0, 0.05
#: Between the seeds of the data that are ranked and of those from which the rules are learned.
_APART = 1_540_483_477


class References(Quantities):
    """Distances from three points for each x, in standard deviations of q(z|x).

    The rules are learned from simulated data of their own; at other data the points depend on x, and on
    draws from q(z|x) that are used for nothing else, so that ranks of distances are uniform for the exact
    posterior, whatever was learned.

    Args:
        latents: Of the programs.
        like: Data of the shape that they are called with.
        seed: Of the ranked data; what is drawn here has another one, made of it.
    """

    def __init__(self, latents: Latents, like: Batch, seed: int) -> None:
        self.latents = latents
        self._stream = OwnStream(seed + _APART, like.device)
        with self.randomness():
            batch, truth = simulate(latents, like, _PILOT)
            guide, draws = look(latents, batch, _DRAWS)
        self._features = Features(guide.features(batch))
        true, own = guide.standard(truth), guide.standard(draws)
        self._slopes = _regression(self._with_one(guide, batch), true - own[0])
        self._direction = _direction(true, own.flatten(0, 1))

    def randomness(self) -> AbstractContextManager[object]:
        """The random numbers of the points."""
        return self._stream()

    def of(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Mean squared distances of u (K, B, n) from each point: (K, B, 3)."""
        guide, draws = look(self.latents, batch, 1)
        shift = torch.nn.functional.normalize(self._with_one(guide, batch) @ self._slopes, dim=-1)
        points = torch.stack(
            [guide.standard(draws[0]), _DISTANCE * shift, _DISTANCE * self._direction.expand_as(shift)]
        )

        def distances(u: Tensor) -> Tensor:
            refuse_nan(self.latents, u)
            standard = guide.standard(u)
            return torch.stack([(standard - point).square().mean(-1) for point in points], dim=-1)

        return distances

    def _with_one(self, guide: Guide, batch: Batch) -> Tensor:
        found = self._features(guide.features(batch))
        return torch.cat([torch.ones_like(found[:, :1]), found], dim=1)


def _regression(features: Tensor, errors: Tensor) -> Tensor:
    """Slopes (k, n) by which features (B, k) tell the errors (B, n) of q(z|x), by ridge regression."""
    penalty = _RIDGE * torch.eye(features.shape[1]).to(features)
    return torch.linalg.solve(features.T @ features + penalty, features.T @ errors.clamp(-10, 10))


def _direction(true: Tensor, own: Tensor) -> Tensor:
    """The direction (n,) in which the variance of the truth (B, n) differs most from that of q's draws."""
    true, own = (_covariance(part.clamp(-10, 10)) for part in (true, own))
    root = torch.linalg.cholesky(own)
    half = torch.linalg.solve_triangular(root, true, upper=False)
    ratio = torch.linalg.solve_triangular(root, half.T, upper=False)
    values, vectors = torch.linalg.eigh((ratio + ratio.T) / 2)
    chosen = vectors[:, values.clamp(min=1e-12).log().abs().argmax()]
    return torch.nn.functional.normalize(torch.linalg.solve(root.T, chosen), dim=0)


def _covariance(values: Tensor) -> Tensor:
    """Of the columns, kept away from singular ones."""
    size = values.shape[1]
    return values.T.cov().reshape(size, size) + _JITTER * torch.eye(size).to(values)
