"""Draws from q(z|x) in units of its own mean and spread, and x in a few numbers."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.batch import Batch, is_per_datum
from pyro_vae.diagnosis.common import unusable
from pyro_vae.precision import wide
from pyro_vae.programs import Latents

#: Draws from which the mean and the spread of q(z|x) are taken; they are used for nothing else.
SCALE_DRAWS = 16
#: Numbers that x is reduced to.
_FEATURES = 10
#: Spread below which q(z|x) is one point, beside which nothing has a distance.
_LEAST = 1e-9


class Guide(NamedTuple):
    """q(z|x) by some of its draws, in unconstrained latents: (B, n) each, float64."""

    mean: Tensor
    scale: Tensor

    def standard(self, u: Tensor) -> Tensor:
        """Latents u (…, B, n) less the mean, in units of the spread."""
        return (wide(u) - self.mean) / self.scale

    def features(self, batch: Batch) -> list[Tensor]:
        """What may tell how q is wrong at x: x and what is given beside it, and where q lies."""
        return [*_columns(batch), self.mean]


def look(latents: Latents, batch: Batch, more: int) -> tuple[Guide, Tensor]:
    """q(z|x) by draws of its own, and `more` draws besides: (more, B, n) float64.

    Raises:
        InputError: where a draw is NaN.
    """
    rows = max(latents.pair.rows // (SCALE_DRAWS + more), 1)
    parts = [wide(latents.from_guide(part, SCALE_DRAWS + more)) for part in batch.split(rows)]
    u = torch.cat(parts, dim=1)
    refuse_nan(latents, u)
    scale, mean = torch.std_mean(u[:SCALE_DRAWS], dim=0)
    return Guide(mean, scale.clamp(min=_LEAST)), u[SCALE_DRAWS:]


def refuse_nan(latents: Latents, u: Tensor) -> None:
    """Refuse unconstrained latents (K, B, n) that are NaN."""
    if u.isnan().any():
        raise unusable(u.isnan().any(0), tuple(latents.columns()))


class Features:
    """A few numbers for each datum: the principal components of standardised columns, with variance 1.

    Each block of columns has the same weight, whatever its width. A missing entry counts as the mean.

    Args:
        blocks: (B, …) each, from which the components are learned.
        most: Components at the most.

    >>> features = Features([torch.randn(50, 2, 3), torch.ones(50, 1)])
    >>> features([torch.randn(7, 2, 3), torch.ones(7, 1)]).shape
    torch.Size([7, 6])
    """

    def __init__(self, blocks: list[Tensor], most: int = _FEATURES) -> None:
        columns = [wide(block).flatten(1) for block in blocks]
        self._centres = [block.nanmean(0).nan_to_num() for block in columns]
        # a column that never changes says nothing
        spreads = [(b - c).square().nanmean(0).sqrt() for b, c in zip(columns, self._centres, strict=True)]
        self._scales = [
            torch.where(spread > _LEAST, spread, torch.inf).nan_to_num(torch.inf) for spread in spreads
        ]
        rows = self._rows(blocks)
        _, sizes, axes = torch.linalg.svd(rows, full_matrices=False)
        kept = sizes[:most] > 1e-6 * sizes[:1].clamp(min=_LEAST)
        self._axes = (axes[:most] / sizes[:most, None] * len(rows) ** 0.5)[kept].T

    def __call__(self, blocks: list[Tensor]) -> Tensor:
        """(B, k), within four standard deviations, so that nothing is extrapolated far."""
        return (self._rows(blocks) @ self._axes).clamp(-4, 4)

    def _rows(self, blocks: list[Tensor]) -> Tensor:
        rows = [
            ((wide(block).flatten(1) - centre) / scale).nan_to_num(0.0) / max(len(centre), 1) ** 0.5
            for block, centre, scale in zip(blocks, self._centres, self._scales, strict=True)
        ]
        return torch.cat(rows, dim=1)


def _columns(batch: Batch) -> list[Tensor]:
    """x, and the numbers that are given with each datum, as (B, …) each."""
    given = [value for value in batch.given.values() if is_per_datum(value)]
    return [tensor.reshape(len(batch), -1) for tensor in (batch.x, *given)]
