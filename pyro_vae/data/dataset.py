"""Data in memory, split in three, with the binarisation protocol under which they are evaluated."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.checks import (
    Array,
    as_labels,
    as_values,
    check_alike,
    check_grey,
    check_levels,
    check_seed,
)
from pyro_vae.errors import InputError

Binarization = Literal["dynamic", "static", "threshold", "none", "dequantised"]

_DRAWN_AT_ONCE = 2**22  # values per block of a fixed draw: 32 MiB of noise


class Sizes(NamedTuple):
    """Number of data in each split."""

    train: int
    valid: int
    test: int


@dataclass(frozen=True, eq=False)
class Split:
    """N data in memory, as they are stored: bytes stay bytes until a batch is taken.

    Attributes:
        values: (N, *data_shape), uint8 or float32.
        labels: (N,) int64, or None.
        maximum: The stored value that means 1: 255 for bytes, 16 for `Digits`, 1 for bits and floats.
        resample: Binarise anew at every use.
        dequantise: Add uniform noise anew at every use.

    >>> split = Split(torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), maximum=255.0)
    >>> split.batch()
    tensor([[0.0000, 1.0000],
            [0.2000, 0.4000]])
    """

    values: Tensor
    labels: Tensor | None = None
    maximum: float = 1.0
    resample: bool = False
    dequantise: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def data_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.values.shape[1:]

    def to(self, device: torch.device | str) -> Self:
        """Return the split with its tensors on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, values=self.values.to(device), labels=labels)

    def batch(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Tensor:
        """Return the data at `index` as float32 (B, *data_shape): values / maximum.

        Where `resample`, each value is 1 with the probability that its grey level names, else 0. Where
        `dequantise`, it is (value + u) / (maximum + 1) with u uniform in [0, 1). The noise is drawn with
        `generator`, which must be on the device of the values.
        """
        values = self.values[index].to(torch.float32)
        if not (self.resample or self.dequantise):
            is_new = isinstance(index, Tensor)  # a slice is a view
            return values if is_new and self.maximum == 1 else values / self.maximum
        noise = torch.rand(values.shape, generator=generator, dtype=torch.float32, device=values.device)
        if self.dequantise:
            return (values + noise) / (self.maximum + 1)
        # comparison, since torch.bernoulli takes up to a quarter of a training step on the CPU
        return (noise < values / self.maximum).to(torch.float32)

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
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(self))[:num]).to(self.values.device)
        return replace(
            self, values=self.values[order], labels=None if self.labels is None else self.labels[order]
        )

    def hash(self) -> str:
        """Return the first 16 hex digits of a SHA-256 that names the data as they are evaluated.

        Hashed are shape, dtype, `maximum`, `resample` and, where it is true, `dequantise`, then the bytes of
        the stored values, so that two splits with one hash give the same numbers. Labels are left out.
        """
        values = self.values.cpu().contiguous().numpy()
        use = f"{self.resample} dequantised" if self.dequantise else f"{self.resample}"
        digest = hashlib.sha256(f"{values.shape} {values.dtype} {self.maximum} {use}".encode())
        digest.update(values.data)
        return digest.hexdigest()[:16]


def batches(split: Split, batch_size: int, *, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield one epoch of `split` in random order, as float32 batches (B, *data_shape).

    All randomness comes from one generator on the split's device, whose seed is
    2654435761 · (1000003 · seed + epoch + 1) mod 2³², so an epoch can be repeated without those before it. It
    draws first `torch.randperm(N)`, then the noise of each batch. The last batch may be smaller
    and is kept.

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
    generator = torch.Generator(split.values.device)
    order = shuffle(split, generator, seed=seed, epoch=epoch)
    return (split.batch(index, generator) for index in order.split(batch_size))


def shuffle(split: Split, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor:
    """Seed `generator` for one epoch of `split`, as `batches` does, and return the order of its data (N,).

    The noise of each batch is then what `split.batch(index, generator)` draws in this order.
    """
    generator.manual_seed(_epoch_seed(seed, epoch))
    return torch.randperm(len(split), generator=generator, device=split.values.device)


def _epoch_seed(seed: int, epoch: int) -> int:
    # 32 bits, since the CPU generator drops the rest; scattered, so that the stream is not the one that
    # torch.manual_seed(seed) gives to parameters and latents
    return 2_654_435_761 * (1_000_003 * seed + epoch + 1) % 2**32


class Dataset:
    """Tensors, split in three, and the binarisation protocol under which they are evaluated.

    | binarization | train | valid and test |
    |---|---|---|
    | `dynamic` | drawn anew at every use | drawn once, by the seed |
    | `static` | drawn once, by the seed | drawn once, by the seed |
    | `threshold` | grey > 1/2 | grey > 1/2 |
    | `none` | values / maximum | values / maximum |
    | `dequantised` | (values + u) / (maximum + 1), u drawn anew at every use | the same, u drawn once |

    Fixed draws are u = `RandomState([seed, i]).random_sample(shape)` with i = 0, 1, 2 for train, valid,
    test, and bits are u < grey, so no split's draw depends on the size of another. Evaluating on one fixed
    binarisation follows Salakhutdinov and Murray (2008); binarising the training data anew follows Burda,
    Grosse and Salakhutdinov (2016); uniform dequantisation, Theis, van den Oord and Bethge (2016).

    Args:
        train: Array or tensor (N, H, W), (N, C, H, W) or (N, D) of dtype uint8, bool or float; (N, H, W)
            becomes (N, 1, H, W), and float64 becomes float32.
        valid: Likewise; None is a split of length 0.
        test: Likewise.
        binarization: The protocol.
        seed: Seed of the fixed draws, 0 to 2**32 - 1.
        maximum: The value that means 1. By default 255 for uint8 values above 1, else 1.
        train_labels: (N,) whole numbers.
        valid_labels: Likewise.
        test_labels: Likewise.

    Raises:
        InputError: No training data; another shape or dtype; NaN or infinite values; splits that differ in
            shape or dtype; grey values outside [0, 1] that are to be binarised; data without levels that
            are to be dequantised; labels that do not match their data.

    >>> data = Dataset(np.full((4, 2, 2), 51, dtype=np.uint8), binarization="dynamic")
    >>> data.sizes, data.data_shape
    (Sizes(train=4, valid=0, test=0), torch.Size([1, 2, 2]))
    >>> data.protocol
    'dynamic binarisation, evaluated on one fixed draw (seed 0)'
    """

    def __init__(
        self,
        train: Array,
        valid: Array | None = None,
        test: Array | None = None,
        *,
        binarization: Binarization = "none",
        seed: int = 0,
        maximum: float | None = None,
        train_labels: Array | None = None,
        valid_labels: Array | None = None,
        test_labels: Array | None = None,
    ) -> None:
        _check_options(binarization, seed, maximum)
        given = {"train": train, "valid": valid, "test": test}
        values = {name: as_values(array, name) for name, array in given.items() if array is not None}
        check_alike(values)
        self.binarization: Binarization = binarization
        self.seed = seed
        self._maximum = _usual_maximum(values) if maximum is None else float(maximum)
        self._grey_levels = _whole_levels(values, self._maximum)
        if binarization == "dequantised":
            check_levels(values, self._maximum, self._grey_levels)
        elif binarization != "none":
            check_grey(values, self._maximum, binarization)
        empty = values["train"][:0]
        labels = {"train": train_labels, "valid": valid_labels, "test": test_labels}
        self.train, self.valid, self.test = (
            self._split(stream, values.get(name, empty), as_labels(labels[name], values.get(name), name))
            for stream, name in enumerate(given)
        )

    def _split(self, stream: int, values: Tensor, labels: Tensor | None) -> Split:
        if self.binarization == "none":
            return Split(values, labels, self._maximum)
        if self.binarization == "threshold":
            return Split((values > self._maximum / 2).to(torch.uint8), labels)
        if self.binarization == "dynamic" and stream == 0:
            return Split(values, labels, self._maximum, resample=True)
        if self.binarization == "dequantised" and stream == 0:
            return Split(values, labels, self._maximum, dequantise=True)
        draw = _dequantised if self.binarization == "dequantised" else _fixed_draw
        return Split(draw(values, self._maximum, [self.seed, stream]), labels)

    @property
    def all(self) -> Split:
        """Train, valid and test, one after the other, as they are evaluated: each on its fixed draw."""
        train = self.train
        if train.resample:
            train = Split(_fixed_draw(train.values, train.maximum, [self.seed, 0]), train.labels)
        elif train.dequantise:
            train = Split(_dequantised(train.values, train.maximum, [self.seed, 0]), train.labels)
        parts = [part for part in (train, self.valid, self.test) if len(part)]
        labels = [part.labels for part in parts if part.labels is not None]
        return replace(
            train,
            values=torch.cat([part.values for part in parts]),
            labels=torch.cat(labels) if len(labels) == len(parts) else None,
        )

    @property
    def maximum(self) -> float:
        """The value that means 1."""
        return self._maximum

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self).__name__

    @property
    def data_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.data_shape

    @property
    def sizes(self) -> Sizes:
        """Number of data in train, valid and test."""
        return Sizes(len(self.train), len(self.valid), len(self.test))

    @property
    def levels(self) -> int | None:
        """Number of grey levels k/maximum, k = 0 … maximum: 2 for bits, None for real numbers.

        Data have levels where they are bytes up to a whole `maximum`, and are not dequantised.

        >>> Dataset(np.arange(17, dtype=np.uint8)[:, None], maximum=16).levels
        17
        """
        if self.binarization in ("none", "dequantised"):
            return self._grey_levels if self.binarization == "none" else None
        return 2

    @property
    def bin_width(self) -> float | None:
        """Distance 1/(maximum + 1) of neighbouring levels where the data are dequantised, else None."""
        return 1 / (self._maximum + 1) if self.binarization == "dequantised" else None

    @property
    def protocol(self) -> str:
        """How the data were binarised, in words that differ wherever results must not be compared."""
        if self.binarization == "dynamic":
            return f"dynamic binarisation, evaluated on one fixed draw (seed {self.seed})"
        if self.binarization == "static":
            return f"static binarisation, one fixed draw of all data (seed {self.seed})"
        if self.binarization == "dequantised":
            levels = f"{self._grey_levels} levels"
            return f"uniform dequantisation of {levels}, evaluated on one fixed draw (seed {self.seed})"
        scale = "as given" if self._maximum == 1 else f"divided by {self._maximum:.9g}"
        return "binarised at grey > 1/2" if self.binarization == "threshold" else f"{scale}, not binarised"


def _check_options(binarization: str, seed: int, maximum: float | None) -> None:
    known = get_args(Binarization)
    if binarization not in known:
        raise InputError(
            f"expected a binarization among {', '.join(known)}, got {binarization!r}: choose one of these"
        )
    check_seed(seed)
    if maximum is not None and not 0 < maximum < float("inf"):
        raise InputError(f"expected a positive finite maximum, got {maximum}: give the value that means 1")


def _usual_maximum(values: dict[str, Tensor]) -> float:
    # bytes that are only 0 and 1 are bits: as grey levels of 255 they would be all but black
    is_bytes = values["train"].dtype == torch.uint8
    return 255.0 if is_bytes and any(len(v) and int(v.max()) > 1 for v in values.values()) else 1.0


def _whole_levels(values: dict[str, Tensor], maximum: float) -> int | None:
    """Return the number of levels 0 … maximum of bytes, None for floats and where they do not fit."""
    is_bytes = values["train"].dtype == torch.uint8
    fits = is_bytes and all(int(v.max()) <= maximum for v in values.values() if len(v))
    return int(maximum) + 1 if fits and maximum == int(maximum) else None


def _fixed_draw(values: Tensor, maximum: float, seed: list[int]) -> Tensor:
    """Return bits (N, *data_shape) drawn from RandomState(seed)."""
    if values.dtype == torch.uint8 and maximum == 1:
        return values  # bits are their own draw
    return _with_noise(values, seed, torch.uint8, lambda stored, noise: noise < stored / maximum)


def _dequantised(values: Tensor, maximum: float, seed: list[int]) -> Tensor:
    """Return float32 (values + u) / (maximum + 1) with u drawn from RandomState(seed)."""
    return _with_noise(values, seed, torch.float32, lambda stored, noise: (stored + noise) / (maximum + 1))


def _with_noise(
    values: Tensor,
    seed: list[int],
    dtype: torch.dtype,
    draw: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Tensor:
    """Return `draw(values, noise)` in float64, stored as `dtype`; made in blocks, which keep the stream."""
    random = np.random.RandomState(seed)
    drawn = torch.empty(values.shape, dtype=dtype)
    rows = max(1, _DRAWN_AT_ONCE // values.shape[1:].numel())
    for start in range(0, len(values), rows):
        stored = values[start : start + rows].numpy().astype(np.float64)
        drawn[start : start + rows] = torch.from_numpy(draw(stored, random.random_sample(stored.shape)))
    return drawn
