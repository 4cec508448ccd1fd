"""Data, split in three, with the binarisation protocol under which they are evaluated."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.checks import (
    Array,
    as_values,
    check_alike,
    check_grey,
    check_levels,
    check_observed,
    check_seed,
)
from pyro_vae.data.fields import LABEL, UNSEEN, FieldKind, Fields, GivenFields, as_fields, checked_given
from pyro_vae.data.labelled import labels_kept
from pyro_vae.data.splits import Sizes, Split
from pyro_vae.data.stored import Rows, Values, blocks, extremes
from pyro_vae.errors import InputError

Binarization = Literal["dynamic", "static", "threshold", "none", "dequantised"]

_DRAWN_AT_ONCE = 2**22  # values per block of a fixed draw: 32 MiB of noise


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

    With `missing`, NaN stands for an entry that was not observed; it stays NaN under every binarisation.
    Models that `assemble` makes for such data leave these entries out of log p(x|z).

    Args:
        train: Array or tensor (N, H, W), (N, C, H, W) or (N, D) of dtype uint8, bool or float; (N, H, W)
            becomes (N, 1, H, W), and float64 becomes float32. An array of bytes or float32 that
            `numpy.load(path, mmap_mode="r")` has mapped from its file is read only where it is used.
        valid: Likewise; None is a split of length 0.
        test: Likewise.
        binarization: The protocol.
        seed: Seed of the fixed draws, 0 to 2**32 - 1.
        maximum: The value that means 1. By default 255 for uint8 values above 1, else 1.
        missing: Whether NaN means not observed; without it NaN is refused.
        train_labels: (N,) whole numbers.
        valid_labels: Likewise.
        test_labels: Likewise.
        fields: What is known of each datum beside x, by split and name: arrays (N, …) of whole numbers
            (int64), truth values, or floats (float32). `label` is the field that train_labels and so on give.
        given: Names of the fields that programs get, called as `model(x, **given)`; by default all but
            `label`. They are part of the hash; the others are there for pictures.

    Raises:
        InputError: No training data; another shape or dtype; NaN or infinite values; splits that differ in
            shape or dtype; grey values outside [0, 1] that are to be binarised; data without levels that
            are to be dequantised; labels or fields that do not match their data; with `missing`, a datum of
            which nothing is observed.

    >>> data = Dataset(np.full((4, 2, 2), 51, dtype=np.uint8), binarization="dynamic")
    >>> data.sizes, data.data_shape
    (Sizes(train=4, valid=0, test=0), torch.Size([1, 2, 2]))
    >>> data.protocol
    'dynamic binarisation, evaluated on one fixed draw (seed 0)'

    Counts with an exposure, which programs get as `model(x, exposure=...)`:

    >>> counts = Dataset(np.ones((4, 3)), fields={"train": {"exposure": np.array([1.0, 2.0, 1.0, 3.0])}})
    >>> counts.given, counts.train.take(slice(0, 2)).given
    (('exposure',), {'exposure': tensor([1., 2.])})
    >>> Dataset(np.array([[0.5, np.nan], [0.1, 0.3]]), missing=True).protocol
    'as given, not binarised, 1 of 4 entries missing'
    """

    #: Names of the fields that programs get.
    given: tuple[str, ...] = ()
    #: Names of those that they get of the training data only, as the labels that `with_labels` leaves.
    given_in_training: tuple[str, ...] = ()

    def __init__(
        self,
        train: Array | Rows,
        valid: Array | Rows | None = None,
        test: Array | Rows | None = None,
        *,
        binarization: Binarization = "none",
        seed: int = 0,
        maximum: float | None = None,
        missing: bool = False,
        train_labels: Array | None = None,
        valid_labels: Array | None = None,
        test_labels: Array | None = None,
        fields: Mapping[str, GivenFields] | None = None,
        given: Sequence[str] | None = None,
    ) -> None:
        _check_options(binarization, seed, maximum)
        arrays = {"train": train, "valid": valid, "test": test}
        values = {
            name: as_values(array, name, missing=missing)
            for name, array in arrays.items()
            if array is not None
        }
        check_alike(values)
        if missing:
            check_observed(values)
        #: Whether NaN stands for entries that were not observed.
        self.missing = missing
        self.binarization: Binarization = binarization
        self.seed = seed
        self._maximum = _usual_maximum(values) if maximum is None else float(maximum)
        self._grey_levels = _whole_levels(values, self._maximum, missing)
        if binarization == "dequantised":
            check_levels(values, self._maximum, self._grey_levels)
        elif binarization != "none":
            check_grey(values, self._maximum, binarization)
        empty = values["train"][:0]
        labels = {"train": train_labels, "valid": valid_labels, "test": test_labels}
        beside = as_fields(fields, labels, values)
        splits = (
            self._split(stream, values.get(name, empty), beside[name]) for stream, name in enumerate(arrays)
        )
        self._take_splits(splits, given)

    def _split(self, stream: int, values: Values, fields: Fields) -> Split:
        plain = Split(values, fields, self._maximum, missing=self.missing)
        if self.binarization == "none":
            return plain
        if self.binarization == "threshold":
            return replace(plain, stored=_thresholded(values, self._maximum, self.missing), maximum=1.0)
        if self.binarization == "dynamic" and stream == 0:
            return replace(plain, resample=True)
        if self.binarization == "dequantised" and stream == 0:
            return replace(plain, dequantise=True)
        return self._drawn(plain, stream)

    def _drawn(self, split: Split, stream: int) -> Split:
        """The one fixed draw of a split."""
        draw = _dequantised if self.binarization == "dequantised" else _fixed_draw
        stored = draw(split.stored, split.maximum, [self.seed, stream], self.missing)
        return replace(split, stored=stored, maximum=1.0, resample=False, dequantise=False)

    def _take_splits(self, splits: Iterable[Split], given: Iterable[str] | None) -> None:
        train, valid, test = splits
        named = {"train": train, "valid": valid, "test": test}
        self.given = checked_given(
            given,
            {name: split.fields for name, split in named.items()},
            {name: len(split) for name, split in named.items()},
        )
        of_train = (*self.given, *(name for name in self.given_in_training if name not in self.given))
        self.train, self.valid, self.test = (
            split if split.given == names else replace(split, given=names)
            for split, names in zip(named.values(), (of_train, self.given, self.given), strict=True)
        )

    def giving(self, *names: str) -> Self:
        """The same data, of which programs get the fields of these names, called as `model(x, **given)`.

        Raises:
            InputError: where one is no field, or is missing in a split that has data.

        >>> from pyro_vae import Digits
        >>> Digits().giving("label").test.take(slice(0, 3)).given
        {'label': tensor([8, 8, 2])}
        """
        other = copy(self)
        other._take_splits((self.train, self.valid, self.test), names)
        return other

    def with_labels(self, num: int | None = None, *, seed: int = 0) -> Self:
        """The same data, `num` training labels of which are seen, as many of each class, the rest −1.

        Programs get them in training only, as `model(x, label)`: validation and test data keep their labels
        for accuracy and pictures, and are evaluated without. The choice is that of `RandomState(seed)`;
        that of fewer labels is a part of that of more. Where `num` is no multiple of the number of classes,
        some have one more.

        Args:
            num: How many; None for all that there are.
            seed: Of the choice, 0 to 2**32 - 1.

        Raises:
            InputError: where the training data have no labels, or too few of a class.

        >>> from pyro_vae import Digits
        >>> data = Digits().with_labels(20)
        >>> data.train.labels[data.train.labels >= 0].bincount()
        tensor([2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
        >>> data.train.given, data.test.given
        (('label',), ())
        """
        labels = labels_kept(self.train.labels, num, check_seed(seed))
        other = copy(self)
        other.given_in_training = (LABEL,)
        train = replace(self.train, fields={**self.train.fields, LABEL: labels})
        given = [name for name in self.given if name != LABEL]
        other._take_splits((train, self.valid, self.test), given)
        return other

    @property
    def field_kinds(self) -> Mapping[str, FieldKind]:
        """Shape of each field, and the number of its classes.

        >>> from pyro_vae import Digits
        >>> Digits().field_kinds
        {'label': FieldKind(shape=(), classes=10)}
        """
        splits = (self.train, self.valid, self.test)
        names = {name: None for split in splits for name in split.fields}
        return {
            name: FieldKind.of(
                (split.fields[name] for split in splits if name in split.fields),
                lowest=UNSEEN if name == LABEL else 0,
            )
            for name in names
        }

    @property
    def all(self) -> Split:
        """Train, valid and test, one after the other, as they are evaluated: each on its fixed draw."""
        train = self.train
        if train.resample or train.dequantise:
            train = self._drawn(train, 0)
        parts = [part for part in (train, self.valid, self.test) if len(part)]
        in_all = [name for name in train.fields if all(name in part.fields for part in parts)]
        return replace(
            train,
            stored=torch.cat([part.values for part in parts]),
            fields={name: torch.cat([part.fields[name] for part in parts]) for name in in_all},
            given=self.given,
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

        Data have levels where they are bytes up to a whole `maximum`, and are not dequantised. With
        `missing`, floats that are such whole numbers wherever they are observed have levels, too.

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
        return self._form + self._missing_in_words

    @cached_property
    def _missing_in_words(self) -> str:
        if not self.missing:
            return ""
        parts = (self.train, self.valid, self.test)
        total = sum(self.sizes) * self.data_shape.numel()
        return f", {sum(part.num_missing for part in parts)} of {total} entries missing"

    @property
    def _form(self) -> str:
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


def _usual_maximum(values: dict[str, Values]) -> float:
    # bytes that are only 0 and 1 are bits: as grey levels of 255 they would be all but black
    is_bytes = values["train"].dtype == torch.uint8
    return 255.0 if is_bytes and any(len(v) and extremes(v)[1] > 1 for v in values.values()) else 1.0


def _whole_levels(values: dict[str, Values], maximum: float, missing: bool) -> int | None:
    """Return the number of levels 0 … maximum of bytes, None for floats and where they do not fit.

    Floats count as bytes where they are whole as far as they are observed, since bytes cannot be NaN.
    """
    if maximum != int(maximum):
        return None
    is_bytes = values["train"].dtype == torch.uint8 or (missing and all(map(_are_whole, values.values())))
    fits = is_bytes and all(extremes(v)[1] <= maximum for v in values.values() if len(v))
    return int(maximum) + 1 if fits else None


def _are_whole(values: Values) -> bool:
    return all(
        bool((block.isnan() | ((block >= 0) & (block == block.round()))).all()) for block in blocks(values)
    )


def _thresholded(values: Values, maximum: float, missing: bool) -> Tensor:
    """Return bits (N, *data_shape), 1 where grey > 1/2."""
    return _in_blocks(
        values, _type_of_bits(values, missing), _bits(lambda block: block > maximum / 2, missing)
    )


def _type_of_bits(values: Values, missing: bool) -> torch.dtype:
    return torch.float32 if missing and values.dtype.is_floating_point else torch.uint8


def _bits(make: Callable[[Tensor], Tensor], missing: bool) -> Callable[[Tensor], Tensor]:
    """Return `make`, with NaN left where it is."""
    if not missing:
        return make
    return lambda block: torch.where(block.isnan(), torch.nan, make(block).to(torch.float32))


def _fixed_draw(values: Values, maximum: float, seed: list[int], missing: bool) -> Values:
    """Return bits (N, *data_shape) drawn from RandomState(seed)."""
    if values.dtype == torch.uint8 and maximum == 1:
        return values  # bits are their own draw
    if _type_of_bits(values, missing) == torch.uint8:
        return _with_noise(values, seed, torch.uint8, lambda stored, noise: noise < stored / maximum)
    return _with_noise(
        values,
        seed,
        torch.float32,
        lambda stored, noise: np.where(np.isnan(stored), np.nan, noise < stored / maximum),
    )


def _dequantised(values: Values, maximum: float, seed: list[int], missing: bool) -> Values:
    """Return float32 (values + u) / (maximum + 1) with u drawn from RandomState(seed)."""
    return _with_noise(values, seed, torch.float32, lambda stored, noise: (stored + noise) / (maximum + 1))


def _with_noise(
    values: Values,
    seed: list[int],
    dtype: torch.dtype,
    draw: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Tensor:
    """Return `draw(values, noise)` in float64, stored as `dtype`; made in blocks, which keep the stream."""
    random = np.random.RandomState(seed)

    def make(block: Tensor) -> Tensor:
        stored = block.numpy().astype(np.float64)
        return torch.from_numpy(draw(stored, random.random_sample(stored.shape)))

    return _in_blocks(values, dtype, make)


def _in_blocks(values: Values, dtype: torch.dtype, make: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `make(values)`, one after the other for a few rows."""
    made = torch.empty(values.shape, dtype=dtype)
    rows = max(1, _DRAWN_AT_ONCE // values.shape[1:].numel())
    for start in range(0, len(values), rows):
        made[start : start + rows] = make(values[start : start + rows])
    return made
