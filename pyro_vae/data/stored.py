"""Rows of an array that lies on the disk or in memory, read where they are used."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

_READ_AT_ONCE = 2**20  # values
#: Blocks that are read at once, where reading in the order of the file is faster than in that of the rows.
_BLOCKS_READ = 8
#: Bytes of a window, where none is named.
_WINDOW_BYTES = 2**27
#: Blocks of neighbours that a window is made of.
_BLOCKS_OF_WINDOW = 16


class Source(Protocol):
    """An array (M, *data_shape) that need not be in memory: mapped, in files, or made when asked for."""

    @property
    def shape(self) -> torch.Size:
        """(M, *data_shape)."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""

    @property
    def device(self) -> torch.device:
        """Where the values are, once they are read."""

    def __getitem__(self, index: Tensor) -> Tensor:
        """The data at `index`, (B,) int64: (B, *data_shape), a copy."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The data `tensor[index]`, which is never made as a whole.

    So an array of more than the memory, mapped from its file, is permuted and cut by its index alone. What is
    read is a copy, since the memory behind a map may not be written to.

    Attributes:
        tensor: (M, *data_shape), mapped, or in files.
        index: (N,) int64, on the CPU.
        named_window: How many data are shuffled with one another; None for as many as 128 MiB hold.

    >>> rows = Rows(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0]))
    >>> len(rows), rows[:1]
    (2, tensor([[3.]]))
    """

    tensor: Source
    index: Tensor
    named_window: int | None = None

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
        return len(self.tensor.shape)

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
        return replace(self, index=self.index[where])

    @property
    def window(self) -> int:
        """How many data are shuffled with one another, and held in memory when they are trained on."""
        row = self.shape[1:].numel() * self.dtype.itemsize
        return max(1, self.named_window or _WINDOW_BYTES // max(1, row))

    @property
    def unhashed(self) -> str | None:
        """What stands for the hash of data that may be others at each use; None of data that are fixed."""
        found: str | None = getattr(self.tensor, "unhashed", None)
        return found

    @property
    def is_streamed(self) -> bool:
        """Whether the data are more than a window, or made anew at each use, and are not to be held."""
        return self.unhashed is not None or len(self) > self.window

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the data, (N,) int64, that is read in runs; each of them is there once.

        The data as they lie in the file are cut into blocks of a sixteenth of a window. The blocks are
        permuted, and each sixteen of them, a window, are shuffled. One window of all data is
        `torch.randperm(N)`.

        >>> rows = Rows(torch.zeros(6, 1), torch.arange(6), named_window=3)
        >>> rows.order(torch.Generator().manual_seed(0)).sort().values
        tensor([0, 1, 2, 3, 4, 5])
        """
        if self.unhashed is not None or self.window >= len(self):
            return _permuted(len(self), generator)
        blocks = self.index.argsort().split(max(1, self.window // _BLOCKS_OF_WINDOW))
        row = torch.cat([blocks[number] for number in _permuted(len(blocks), generator).tolist()])
        windows = row.split(self.window)
        return torch.cat([each[_permuted(len(each), generator).cpu()] for each in windows])

    @cached_property
    def held(self) -> Tensor:
        """All rows in memory, the same tensor at each use."""
        return self[:]

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value that is not NaN, read in the order of the file."""
        known: tuple[float, float] | None = getattr(self.tensor, "ends", None)
        if known is not None:
            return known
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
    read = (_BLOCKS_READ if isinstance(values, Rows) else 1) * rows
    return (
        block for start in range(0, len(values), read) for block in values[start : start + read].split(rows)
    )


def _permuted(num: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(num, generator=generator, device=generator.device)
