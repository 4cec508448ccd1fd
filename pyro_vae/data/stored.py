"""Rows of an array that lies on the disk or in memory, read where they are used."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_READ_AT_ONCE = 2**20  # values


@dataclass(frozen=True, eq=False)
class Rows:
    """The data `tensor[index]`, which is never made as a whole.

    So an array of more than the memory, mapped from its file, is permuted and cut by its index alone. What is
    read is a copy, since the memory behind a map may not be written to.

    Attributes:
        tensor: (M, *data_shape).
        index: (N,) int64, on the CPU.

    >>> rows = Rows(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0]))
    >>> len(rows), rows[:1]
    (2, tensor([[3.]]))
    """

    tensor: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, where: Tensor | slice) -> Tensor:
        return self.tensor[self.index[where]]

    @property
    def shape(self) -> torch.Size:
        """(N, *data_shape)."""
        return torch.Size((len(self), *self.tensor.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.tensor.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.tensor.device

    def take(self, where: Tensor | slice) -> "Rows":
        """Some of the rows, in another order, not read."""
        return Rows(self.tensor, self.index[where])

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value that is not NaN, read in the order of the file."""
        ordered = self.take(self.index.argsort())
        ends = [torch.stack(_ends(block)) for block in blocks(ordered)]
        low, high = torch.stack(ends).float().unbind(1)
        return float(low.min()), float(high.max())


#: (N, *data_shape), in memory or to be read.
Values = Tensor | Rows


def extremes(values: Values) -> tuple[float, float]:
    """The lowest and the highest of one value or more that are not NaN."""
    if isinstance(values, Rows):
        return values.extremes
    low, high = _ends(values)
    return float(low), float(high)


def _ends(block: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value that is not NaN; infinity and its negative where all are."""
    low, high = block.aminmax()
    if block.is_floating_point() and bool(low.isnan()):
        low, high = (torch.where(block.isnan(), end, block) for end in (math.inf, -math.inf))
        return low.amin(), high.amax()
    return low, high


def blocks(values: Values) -> Iterator[Tensor]:
    """All values in their order, a few rows at a time, in memory."""
    rows = max(1, _READ_AT_ONCE // max(1, values.shape[1:].numel()))
    return (values[start : start + rows] for start in range(0, len(values), rows))
