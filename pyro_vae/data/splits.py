"""Splits of a data set, and the batches that are taken from them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.data.fields import LABEL, Fields
from pyro_vae.data.stored import Rows, Values, blocks
from pyro_vae.errors import InputError


class Sizes(NamedTuple):
    """Number of data in each split."""

    train: int
    valid: int
    test: int


@dataclass(frozen=True, eq=False)
class Split:
    """N data as they are stored, in memory or mapped from a file: bytes stay bytes until a batch is taken.

    Attributes:
        stored: (N, *data_shape), uint8, int32 or float32.
        fields: What is known of each datum beside x, by name: (N, …) each. Classes are `label`, (N,) int64.
        maximum: The stored value that means 1: 255 for bytes, 16 for `Digits`, 1 for bits and floats.
        resample: Binarise anew at every use.
        dequantise: Add uniform noise anew at every use.
        given: Names of the fields that programs get, called as `model(x, **given)`.
        missing: Whether NaN stands for entries that were not observed.

    >>> split = Split(torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), maximum=255.0)
    >>> split.batch()
    tensor([[0.0000, 1.0000],
            [0.2000, 0.4000]])
    """

    stored: Values
    fields: Fields = field(default_factory=lambda: MappingProxyType({}))
    maximum: float = 1.0
    resample: bool = False
    dequantise: bool = False
    given: tuple[str, ...] = ()
    missing: bool = False

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def labels(self) -> Tensor | None:
        """The field `label`, (N,) int64, or None."""
        return self.fields.get(LABEL)

    @property
    def values(self) -> Tensor:
        """(N, *data_shape), as they are stored, in memory: a copy where they are mapped from a file."""
        return self.stored[:] if isinstance(self.stored, Rows) else self.stored

    @property
    def device(self) -> torch.device:
        """Where the data are."""
        return self.stored.device

    @property
    def data_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.stored.shape[1:]

    def to(self, device: torch.device | str) -> Self:
        """Return the split with its tensors on `device`.

        Data in files stay there on the CPU, and on other devices where they are more than a window.
        """
        if self.is_streamed:
            return self
        fields = {name: tensor.to(device) for name, tensor in self.fields.items()}
        mapped = isinstance(self.stored, Rows) and torch.device(device) == self.device
        return replace(self, stored=self.stored if mapped else self.values.to(device), fields=fields)

    @property
    def is_streamed(self) -> bool:
        """Whether the data are read when they are used: more than a window, or items of torch's."""
        return isinstance(self.stored, Rows) and self.stored.is_streamed

    @property
    def unhashed(self) -> str | None:
        """What stands for a hash where data may be others at each use; None of all others."""
        return self.stored.unhashed if isinstance(self.stored, Rows) else None

    def batch(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Tensor:
        """Return the data at `index` as float32 (B, *data_shape): values / maximum.

        Where `resample`, each value is 1 with the probability that its grey level names, else 0. Where
        `dequantise`, it is (value + u) / (maximum + 1) with u uniform in [0, 1). The noise is drawn with
        `generator`, which must be on the device of the values. What is missing is NaN in all cases.
        """
        values = self.stored[index].to(torch.float32)
        if not (self.resample or self.dequantise):
            is_new = isinstance(index, Tensor)  # a slice is a view
            return values if is_new and self.maximum == 1 else values / self.maximum
        noise = torch.rand(values.shape, generator=generator, dtype=torch.float32, device=values.device)
        return self._with(noise, values)

    def batch_of_each(self, places: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A batch as by `batch` for each of M generators, at places (M, B): (M, B, *data_shape)."""
        values = self.stored[places.flatten()].to(torch.float32).reshape(*places.shape, *self.data_shape)
        if not (self.resample or self.dequantise):
            return values if self.maximum == 1 else values / self.maximum
        noise = torch.empty_like(values)
        for own, generator in zip(noise, generators, strict=True):
            torch.rand(own.shape, generator=generator, out=own)
        return self._with(noise, values)

    def _with(self, noise: Tensor, values: Tensor) -> Tensor:
        """The data of stored values and uniform noise."""
        if self.dequantise:
            return (values + noise) / (self.maximum + 1)
        # comparison, since torch.bernoulli takes up to a quarter of a training step on the CPU
        bits = (noise < values / self.maximum).to(torch.float32)
        return torch.where(values.isnan(), values, bits) if self.missing else bits

    @property
    def num_missing(self) -> int:
        """Number of entries that were not observed."""
        if not (self.missing and self.stored.dtype.is_floating_point):
            return 0
        return sum(int(block.isnan().sum()) for block in blocks(self.stored))

    def take(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Batch:
        """The data at `index` as programs get them: x as by `batch`, and beside it the fields in `given`.

        >>> split = Split(torch.zeros(3, 2), {"label": torch.tensor([2, 0, 1])}, given=("label",))
        >>> split.take(torch.tensor([2, 0])).given
        {'label': tensor([1, 2])}
        """
        return Batch(self.batch(index, generator), {name: self.fields[name][index] for name in self.given})

    def subset(self, num: int | None) -> Self:
        """Return `num` data chosen by a fixed permutation, since some test sets are sorted by class.

        All of them, in their own order, where `num` is None or not below their number.

        Raises:
            InputError: `num` is below 1.
        """
        if num is not None and num < 1:
            raise InputError(
                f"expected a number of data of at least 1, got {num}: give more, or None for all"
            )
        if num is None or num >= len(self):
            return self
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(self))[:num]).to(self.device)
        fields = {name: tensor[order] for name, tensor in self.fields.items()}
        return replace(self, stored=self.stored[order], fields=fields)

    def hash(self) -> str:
        """Return the first 16 hex digits of a SHA-256 that names the data as they are evaluated.

        Hashed are shape, dtype, `maximum`, `resample` and, where it is true, `dequantise`, then the bytes of
        the stored values, then name, shape, dtype and bytes of each field that programs get, so that two
        splits with one hash give the same numbers. All other fields are left out. Training data of
        `TorchData` have none; what is returned says so.
        """
        if self.unhashed is not None:
            return self.unhashed
        use = f"{self.resample} dequantised" if self.dequantise else f"{self.resample}"
        dtype = str(self.stored.dtype).removeprefix("torch.")
        digest = hashlib.sha256(f"{tuple(self.stored.shape)} {dtype} {self.maximum} {use}".encode())
        for block in blocks(self.stored):
            if self.missing and block.is_floating_point():
                block = torch.where(block.isnan(), torch.nan, block)  # NaN has many patterns of bits
            digest.update(block.cpu().contiguous().numpy().data)
        for name, value in sorted(self._beside().items()):
            digest.update(f" {name} ".encode() + _bytes_of(value))
        return digest.hexdigest()[:16]

    def _beside(self) -> Mapping[str, Any]:
        """All that programs get beside x."""
        return {name: self.fields[name] for name in self.given}


def _bytes_of(value: object) -> bytes:
    """What names a value that is given beside x."""
    if not isinstance(value, Tensor):
        return repr(value).encode()
    tensor = value.detach().cpu().contiguous()
    head = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} ".encode()
    plain = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # which NumPy has not
    return head + plain.numpy().tobytes()


def batches(split: Split, batch_size: int, *, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield one epoch of `split` in random order, as float32 batches (B, *data_shape).

    All randomness comes from one generator on the split's device, whose seed is
    2654435761 · (1000003 · seed + epoch + 1) mod 2³², so an epoch can be repeated without those before it. It
    draws first `torch.randperm(N)`, then the noise of each batch. The last batch may be smaller
    and is kept. Data in files, of more than a window, are in the order of `Rows.order`.

    Raises:
        InputError: The split is empty, or has fewer data than a batch, or `batch_size` is below 1.

    >>> split = Split(torch.arange(5.0).reshape(5, 1))
    >>> [len(x) for x in batches(split, 2, seed=0, epoch=0)]
    [2, 2, 1]
    """
    if batch_size < 1:
        raise InputError(f"expected a batch size of at least 1, got {batch_size}: give a larger one")
    if len(split) == 0:
        raise InputError(
            "expected data to take batches from, got an empty split: use a data set that has this split"
        )
    if len(split) < batch_size:
        raise InputError(
            f"expected at least one full batch of {batch_size}, got {len(split)} data: reduce the batch size"
        )
    generator = torch.Generator(split.device)
    order = shuffle(split, generator, seed=seed, epoch=epoch)
    return (split.batch(index, generator) for index in order.split(batch_size))


def shuffle(split: Split, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor:
    """Seed `generator` for one epoch of `split`, as `batches` does, and return the order of its data (N,).

    The noise of each batch is then what `split.batch(index, generator)` draws in this order.
    """
    generator.manual_seed(_epoch_seed(seed, epoch))
    if isinstance(split.stored, Rows):
        return split.stored.order(generator)
    return torch.randperm(len(split), generator=generator, device=split.device)


def _epoch_seed(seed: int, epoch: int) -> int:
    # 32 bits, since the CPU generator drops the rest; scattered, so that the stream is not the one that
    # torch.manual_seed(seed) gives to parameters and latents
    return 2_654_435_761 * (1_000_003 * seed + epoch + 1) % 2**32
