"""Data, split in three, in the form in which they are x."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch

from pyro_vae.columns import Columns
from pyro_vae.data.checks import Array, as_values, check_alike, check_observed, check_seed, note_channels
from pyro_vae.data.fields import (
    LABEL,
    MASK,
    SPLITS,
    UNSEEN,
    FieldKind,
    Fields,
    GivenFields,
    as_fields,
    checked_given,
    masked,
)
from pyro_vae.data.forms import FORMS, Form, usual_form
from pyro_vae.data.labelled import labels_kept
from pyro_vae.data.raw import RawValues
from pyro_vae.data.splits import Sizes, Split
from pyro_vae.data.stored import Rows, Values
from pyro_vae.errors import InputError


class Dataset:
    """Tensors, split in three, in the form in which they are x.

    | form | x | train | valid and test |
    |---|---|---|---|
    | `AsGiven` | the values, divided by `maximum` where it is named | | |
    | `Standardised` | the values; the model takes (x − mean)/deviation | | |
    | `Counts` | the values, whole numbers | | |
    | `Levels` | values / maximum | | |
    | `Dequantised` | (values + u) / (maximum + 1) | u drawn anew at every use | u drawn once |
    | `Dynamic` | 1 with probability values / maximum, else 0 | drawn anew at every use | drawn once |
    | `Static` | the same | drawn once | drawn once |
    | `Threshold` | 1 where values / maximum > 1/2 | | |

    Fixed draws are u = `RandomState([seed, i]).random_sample(shape)` with i = 0, 1, 2 for train, valid,
    test, and bits are u < values / maximum, so no split's draw depends on the size of another. Which form a
    likelihood is a density of, its `form_for` says: `data.for_likelihood(pv.PoissonLikelihood)` are the same
    data in it, and `data.in_form(pv.Counts())` in any.

    With `missing`, NaN stands for an entry that was not observed; it stays NaN in every form. So does an
    entry where a field `mask`, of the shape of the data, is 0.
    Models that `assemble` makes for such data leave these entries out of log p(x|z).

    Args:
        train: Array or tensor (N, H, W), (N, C, H, W) or (N, D) of whole numbers of any width, bool or float;
            (N, H, W) becomes (N, 1, H, W), and float64 becomes float32. An array of bytes, int32 or float32
            that `numpy.load(path, mmap_mode="r")` has mapped from its file is read only where it is used.
        valid: As train; None is a split of length 0.
        test: As train.
        form: How values become x; by default `Levels` of bytes, `Counts` of other whole numbers, and
            `AsGiven` of floats and bits.
        seed: Seed of the fixed draws, 0 to 2**32 - 1.
        maximum: The value that means 1. By default 255 for bytes above 1, the highest value for other whole
            numbers, else 1.
        missing: Whether NaN means not observed; without it NaN is refused.
        train_labels: (N,) whole numbers.
        valid_labels: As train_labels.
        test_labels: As train_labels.
        fields: What is known of each datum beside x, by split and name: arrays (N, …) of whole numbers
            (int64), truth values, or floats (float32). `label` is the field that train_labels and so on give.
        given: Names of the fields that programs get, called as `model(x, **given)`; by default all but
            `label`. They are part of the hash; the others are there for pictures.

    Raises:
        InputError: No training data; another shape or dtype; NaN or infinite values; splits that differ in
            shape or dtype; values that cannot take the form; labels or fields that do not match their data;
            with `missing`, a datum of which nothing is observed.

    >>> import numpy as np
    >>> data = Dataset(np.full((4, 2, 2), 51, dtype=np.uint8))
    >>> data.sizes, data.data_shape, data.form
    (Sizes(train=4, valid=0, test=0), torch.Size([1, 2, 2]), Levels())
    >>> from pyro_vae import Dynamic
    >>> data.in_form(Dynamic()).protocol
    'dynamic binarisation, evaluated on one fixed draw (seed 0)'

    Counts with an exposure, which programs get as `model(x, exposure=...)`:

    >>> counts = Dataset(np.ones((4, 3)), fields={"train": {"exposure": np.array([1.0, 2.0, 1.0, 3.0])}})
    >>> counts.given, counts.train.take(slice(0, 2)).given
    (('exposure',), {'exposure': tensor([1., 2.])})
    >>> Dataset(np.array([[0.5, np.nan], [0.1, 0.3]]), missing=True).protocol
    'as given, 1 of 4 entries missing'
    """

    #: Names of the fields that programs get.
    given: tuple[str, ...] = ()
    #: The columns of a table; none of other data.
    columns: Columns = ()
    #: Names of those that they get of the training data only, as the labels that `with_labels` leaves.
    given_in_training: tuple[str, ...] = ()

    def __init__(
        self,
        train: Array | Rows,
        valid: Array | Rows | None = None,
        test: Array | Rows | None = None,
        *,
        form: Form | None = None,
        seed: int = 0,
        maximum: float | None = None,
        missing: bool = False,
        train_labels: Array | None = None,
        valid_labels: Array | None = None,
        test_labels: Array | None = None,
        fields: Mapping[str, GivenFields] | None = None,
        given: Sequence[str] | None = None,
    ) -> None:
        _check_options(form, seed, maximum)
        arrays = dict(zip(SPLITS, (train, valid, test), strict=True))
        values: dict[str, Values] = {
            name: as_values(array, name, missing=missing)
            for name, array in arrays.items()
            if array is not None
        }
        labels = {"train": train_labels, "valid": valid_labels, "test": test_labels}
        beside = as_fields(fields, labels, values)
        if missing:
            if maximum is None and any(MASK in each for each in beside.values()):
                maximum = _maximum_of_bytes(values)
            values = masked(values, beside)
        check_alike(values)
        note_channels(values["train"].shape, "data")
        if missing:
            check_observed(values)
        #: Whether NaN stands for entries that were not observed.
        self.missing = missing
        self.seed = seed
        empty = values["train"][:0]
        by_split: dict[str, Values] = {name: values.get(name, empty) for name in SPLITS}
        #: The values before they take a form.
        self.raw = RawValues(by_split, maximum, missing, seed)
        #: The form in which they were made.
        self.first_form = form or usual_form(self.raw)
        self._take_form(self.first_form, beside)
        self._take_given(given)

    def _take_form(self, form: Form, fields: Mapping[str, Fields]) -> None:
        form.check(self.raw)
        #: How values become x.
        self.form = form
        self.train, self.valid, self.test = (
            replace(form.kept(self.raw, values, stream), fields=fields[name])
            for stream, (name, values) in enumerate(self.raw.by_split.items())
        )

    def in_form(self, form: Form) -> Self:
        """The same data in another form.

        Raises:
            InputError: where the values cannot take it.

        >>> from pyro_vae import Digits, Levels
        >>> Digits().in_form(Levels()).protocol
        '17 levels, divided by 16'
        """
        _check_options(form, self.seed, None)
        other = copy(self)
        other.__dict__.pop("_missing_in_words", None)
        other._take_form(form, {name: split.fields for name, split in self._splits.items()})
        other._take_given(self.given)
        return other

    def for_likelihood(self, likelihood: Any) -> Self:
        """The same data in the form that a likelihood is a density of, by its `form_for`.

        Args:
            likelihood: A class, an instance, or a `partial` of a class.

        >>> from pyro_vae import Digits, NormalLikelihood
        >>> Digits().for_likelihood(NormalLikelihood).form
        Dequantised()
        """
        likelihood = getattr(likelihood, "func", likelihood)
        choose = getattr(likelihood, "form_for", lambda _: None)
        form = choose(self.raw)
        if form is None or form.name == self.form.name:
            return self
        try:
            return self.in_form(form)
        except InputError as error:
            name = getattr(likelihood, "__name__", type(likelihood).__name__)
            raise InputError(f"{error}, or another likelihood than {name}") from error

    @property
    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def _take_given(self, given: Iterable[str] | None) -> None:
        self.given = checked_given(
            given,
            {name: split.fields for name, split in self._splits.items()},
            {name: len(split) for name, split in self._splits.items()},
        )
        of_train = (*self.given, *(name for name in self.given_in_training if name not in self.given))
        self.train, self.valid, self.test = (
            split if split.given == names else replace(split, given=names)
            for split, names in zip(self._splits.values(), (of_train, self.given, self.given), strict=True)
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
        other._take_given(names)
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
        other.train = replace(self.train, fields={**self.train.fields, LABEL: labels})
        other._take_given([name for name in self.given if name != LABEL])
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
        fixed = self.form.evaluated(self.raw, self.raw.by_split["train"], 0)
        train = replace(fixed, fields=self.train.fields, given=self.given)
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
        """The value that means x = 1."""
        return self.form.maximum(self.raw)

    @property
    def dtype(self) -> str:
        """Type in which the values are stored: `uint8`, `int32` or `float32`."""
        return str(self.raw.dtype).removeprefix("torch.")

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
        """Number of levels k/(levels − 1) of x: 2 for bits, None for real numbers and counts.

        >>> import numpy as np
        >>> Dataset(np.arange(17, dtype=np.uint8)[:, None], maximum=16).levels
        17
        """
        return self.form.levels(self.raw)

    @property
    def bin_width(self) -> float | None:
        """Distance 1/(maximum + 1) of neighbouring levels where the data are dequantised, else None."""
        return self.form.bin_width(self.raw)

    @property
    def protocol(self) -> str:
        """The form, in words that differ wherever results must not be compared."""
        return self.form.protocol(self.raw) + self._missing_in_words

    @cached_property
    def _missing_in_words(self) -> str:
        if not self.missing:
            return ""
        total = sum(self.sizes) * self.data_shape.numel()
        return f", {sum(part.num_missing for part in self._splits.values())} of {total} entries missing"


def _maximum_of_bytes(values: Mapping[str, Values]) -> float | None:
    """255 of bytes that are no bits, which are about to become floats; None of all else."""
    raw = RawValues(values)
    return raw.maximum if "train" in values and raw.dtype == torch.uint8 and not raw.bits else None


def _check_options(form: object, seed: int, maximum: float | None) -> None:
    if form is not None and not isinstance(form, Form):
        got = f"the class {form.__name__}" if isinstance(form, type) else repr(form)
        raise InputError(f"form expects one of {', '.join(map(repr, FORMS.values()))}, got {got}")
    check_seed(seed)
    if maximum is not None and not 0 < maximum < float("inf"):
        raise InputError(f"expected a positive finite maximum, got {maximum}: give the value that means 1")
