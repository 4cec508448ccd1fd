"""Arrays in files, one after the other, read where they are used."""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.errors import InputError

#: Rows that are taken from one map of a file, and bytes: what a map has read counts as resident memory, up to
#: 64 KiB for each row, until it is closed.
_ROWS_OF_MAP, _BYTES_OF_MAP = 2**12, 2**26

#: One row in so many, and fewer, is read by itself.
_SPARSE = 8

#: In which of torch's types values are kept: none is rounded.
_KEPT: dict[type[np.generic], torch.dtype] = {
    np.bool_: torch.uint8,
    np.uint8: torch.uint8,
    np.int8: torch.int32,
    np.int16: torch.int32,
    np.uint16: torch.int32,
    np.int32: torch.int32,
    np.float16: torch.float32,
    np.float32: torch.float32,
}


@dataclass(frozen=True, eq=False)
class Shard:
    """An array (rows, …) that lies in a file in C order.

    Attributes:
        path: The file.
        offset: Bytes before the array.
        rows: Its length.
        written: When the file was written, and its bytes, as `written` gives them.
    """

    path: Path
    offset: int
    rows: int
    written: tuple[int, int] | None = None

    def take(self, index: NDArray[np.int64], dtype: "np.dtype[Any]", width: int) -> NDArray[Any]:
        """Some rows, in rising order, of `width` numbers each: (B, width), a copy.

        Raises:
            InputError: where the file is not there any more, or was changed.
        """
        taken = np.empty((len(index), width), dtype)
        row_bytes = max(1, width * dtype.itemsize)
        at_once = max(1, min(_ROWS_OF_MAP, _BYTES_OF_MAP // row_bytes))
        for start in range(0, len(index), at_once):
            self._take_into(taken[start : start + at_once], index[start : start + at_once])
        return taken

    def _take_into(self, taken: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Map the file, take rows, and close it, so that no page of it stays resident."""
        shape = self.rows, taken.shape[1]
        needed = self.offset + prod(shape) * taken.itemsize
        try:
            with self.path.open("rb") as file:
                now = written(os.fstat(file.fileno()))
                size = now[1]
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size >= needed else None
        except (OSError, ValueError) as error:
            raise InputError(
                f"expected the file {self.path}, which was there when the data were opened, got "
                f"{type(error).__name__}: put it back, and go on"
            ) from error
        if mapped is None:
            raise InputError(
                f"expected {self.path} of {needed:,} bytes, as when the data were opened, got {size:,}: put "
                "it back as it was, and go on"
            )
        if self.written not in (None, now):
            mapped.close()
            raise InputError(
                f"expected {self.path} as when the data were opened, got one that was written since: put it "
                "back as it was, or open the data anew"
            )
        with mapped:
            if index[-1] - index[0] >= _SPARSE * len(index) and hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)  # else 128 KiB are read for each row
            array = np.frombuffer(mapped, taken.dtype, prod(shape), self.offset).reshape(shape)
            np.take(array, index, axis=0, out=taken, mode="clip")  # without "clip", a second copy is made
            del array  # a map with a view of it cannot be closed


def written(found: os.stat_result) -> tuple[int, int]:
    """When a file was written, in nanoseconds, and its bytes."""
    return found.st_mtime_ns, found.st_size


@dataclass(frozen=True, eq=False)
class Shards:
    """Arrays of one shape in files, as if they were one (N, *data_shape).

    Nothing is kept open, so that resident memory is that of what was taken, any number of files may be used,
    and threads may read at once.

    Attributes:
        parts: The arrays, one after the other.
        stored: Their type of numbers.
        data_shape: Of one datum.
    """

    parts: Sequence[Shard]
    stored: "np.dtype[Any]"
    data_shape: torch.Size

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(part.rows for part in self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> torch.Size:
        """(N, *data_shape)."""
        return torch.Size((len(self), *self.data_shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values, once they are read.

        Raises:
            InputError: where torch has none that holds each of them.
        """
        kept = _KEPT.get(self.stored.type)
        if kept is None:
            raise InputError(
                f"expected files of bytes, int32 or float32 (or narrower numbers), got {self.stored} in "
                f"{self.parts[0].path}: save them by numpy.save(path, array.astype('float32')) or 'int32'"
            )
        return kept

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def __getitem__(self, index: Tensor) -> Tensor:
        """The data at `index` (B,): (B, *data_shape), a copy, each file being read from its beginning on."""
        order = index.argsort(stable=True)
        values = torch.from_numpy(self._rising(index[order].numpy())).to(self.dtype)
        if not bool((order[1:] > order[:-1]).all()):
            values = values[order.argsort()]
        return values.reshape(len(index), *self.data_shape)

    def _rising(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Rows in rising order, in the machine's order of bytes: (B, width)."""
        width = self.data_shape.numel()
        cuts = np.searchsorted(index, self._starts)
        found = [
            part.take(index[begin:end] - first, self.stored, width)
            for part, first, begin, end in zip(self.parts, self._starts, cuts[:-1], cuts[1:], strict=False)
            if begin < end
        ]
        if not found:
            return np.empty((0, width), self.stored.newbyteorder("="))
        joined = found[0] if len(found) == 1 else np.concatenate(found)
        return joined.astype(self.stored.newbyteorder("="), copy=False)

    def whole(self) -> NDArray[Any]:
        """All of it in memory, in the type of the files: (N, *data_shape)."""
        return self._rising(np.arange(len(self))).reshape(self.shape)

    def as_pictures(self) -> "Shards":
        """The same data (N, H, W) with a channel, (N, 1, H, W)."""
        return replace(self, data_shape=torch.Size((1, *self.data_shape)))


def shards_of_map(array: NDArray[Any]) -> Shards | None:
    """The file behind an array that was mapped from it for reading; None of any other array."""
    if not (isinstance(array, np.memmap) and array.mode == "r" and isinstance(array.base, mmap.mmap)):
        return None
    if array.filename is None or not array.flags.c_contiguous or array.ndim == 0:
        return None
    path = Path(array.filename)
    part = Shard(path, array.offset, len(array), written(path.stat()) if path.exists() else None)
    return Shards((part,), array.dtype, torch.Size(array.shape[1:]))
