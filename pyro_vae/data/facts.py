"""What a model, and a report, must know of data that are not at hand."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import torch

from pyro_vae.columns import Columns, columns_from
from pyro_vae.data.checks import Array, as_values
from pyro_vae.data.dataset import Dataset
from pyro_vae.data.fields import FieldKind, GivenFields
from pyro_vae.data.forms import Form, form_named
from pyro_vae.data.splits import Sizes, Split
from pyro_vae.errors import InputError

#: Largest value from which bytes are no bits.
_BYTES = 15


@dataclass(frozen=True, eq=False)
class DataFacts:
    """What is kept of a data set beside a trained model: names and numbers of `Dataset` of the same names.

    Of `field_kinds` and `given` there are none in runs that are older than fields.

    >>> from pyro_vae import Digits
    >>> facts = DataFacts.of(Digits())
    >>> facts.data_shape, facts.levels
    (torch.Size([1, 8, 8]), 2)
    """

    name: str
    data_shape: torch.Size
    sizes: Sizes
    levels: int | None
    bin_width: float | None
    protocol: str
    form: Form
    #: Of the values before they take the form.
    dtype: str
    seed: int
    maximum: float
    field_kinds: Mapping[str, FieldKind] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    given_in_training: tuple[str, ...] = ()
    missing: bool = False
    columns: Columns = ()

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """Those of a data set."""
        return cls(**{each.name: getattr(data, each.name) for each in fields(cls)})

    @classmethod
    def from_plain(cls, content: Any) -> Self:
        """What `plain` gave.

        Raises:
            InputError: where `content` is something else.
        """
        try:
            found = cls(
                **{
                    **content,
                    "data_shape": torch.Size(content["data_shape"]),
                    "sizes": Sizes(*content["sizes"]),
                    "form": form_named(content["form"]),
                    "field_kinds": {
                        str(name): FieldKind(tuple(shape), classes)
                        for name, (shape, classes) in content.get("field_kinds", {}).items()
                    },
                    "given": tuple(content.get("given", ())),
                    "columns": columns_from(content.get("columns", ())),
                    "given_in_training": tuple(content.get("given_in_training", ())),
                }
            )
            kinds = found.field_kinds.values()
            of_fields = [number for kind in kinds for number in (*kind.shape, kind.classes or 0)]
            numbers = (*found.data_shape, *found.sizes, found.levels or 0, found.seed, *of_fields)
            fine = (
                all(isinstance(each, int) and 0 <= each < 2**40 for each in numbers)
                and all(isinstance(each, str) for each in (found.name, found.protocol, found.dtype))
                and (found.bin_width is None or 0 < found.bin_width <= 1)
                and all(name in found.field_kinds for name in (*found.given, *found.given_in_training))
                and 0 < found.maximum < math.inf
                and isinstance(found.missing, bool)
                and len(found.columns) in (0, found.data_shape.numel())
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            fine = False
        if not fine:
            raise InputError("expected facts about data, got something else")
        return found

    def test(self, values: Array, where: str, beside: GivenFields | None = None) -> Split:
        """New data as a test split of the same data set would be: (N, *data_shape).

        Args:
            values: As they are stored, in the type that the training data had.
            where: What the values are called in an error.
            beside: The fields that programs get, by name: (N, …).

        Raises:
            InputError: where their shape, type or range is another.
        """
        tensor = as_values(values, where, missing=self.missing)
        if tensor.shape[1:] != self.data_shape:
            raise InputError(
                f"expected data of shape {tuple(self.data_shape)} as in training, got "
                f"{tuple(tensor.shape[1:])} in {where}: give data of that shape"
            )
        fields = {name: array for name, array in (beside or {}).items() if name in self.given}
        like = Dataset(
            tensor,
            None,
            tensor,
            form=self.form,
            seed=self.seed,
            maximum=self.maximum,
            fields={"train": fields, "test": fields},
            given=self.given,
            missing=self.missing,
        )
        self.check_fields(like)
        bytes_for_floats = self.dtype == "float32" and like.dtype == "uint8" and not like.raw.bits
        if bytes_for_floats and like.levels is None:
            raise InputError(
                f"expected real numbers as in training, got bytes up to {like.raw.ends[1]:g} in {where}: "
                "convert them, as with .astype, to what the training data were"
            )
        floats_for_bytes = self.dtype == "uint8" and like.dtype == "float32" and self.maximum >= _BYTES
        low, high = like.raw.ends
        if floats_for_bytes and low >= 0 and high <= 1:
            raise InputError(
                f"expected values up to {self.maximum:g} as in training, got some from {low:g} to {high:g} "
                f"in {where}: give ({self.maximum:g} * x).round().astype('uint8')"
            )
        by_chance = self.missing and self.levels is None  # real numbers may happen to be whole
        if like.levels != self.levels and not by_chance:
            raise InputError(
                f"expected {_kind(self.levels)} as in training, got {_kind(like.levels)} in {where}: "
                "convert them, as with .astype"
            )
        return like.test

    def check_fields(self, data: Dataset) -> None:
        """Refuse data whose fields in `given` have another shape, or classes that training has not seen."""
        for name in self.given:
            wanted, got = self.field_kinds[name], data.field_kinds[name]
            if got.shape != wanted.shape or (got.classes or 0) > (wanted.classes or 0):
                raise InputError(
                    f"expected the field {name!r} as in training, {wanted.in_words()}, got {got.in_words()}"
                )

    def plain(self) -> Mapping[str, Any]:
        """The same as numbers, words and lists."""
        kinds = {name: [list(kind.shape), kind.classes] for name, kind in self.field_kinds.items()}
        return {
            **asdict(self),
            "data_shape": list(self.data_shape),
            "sizes": list(self.sizes),
            "form": self.form.name,
            "field_kinds": kinds,
            "given": list(self.given),
            "columns": [column.plain() for column in self.columns],
            "given_in_training": list(self.given_in_training),
        }


def _kind(levels: int | None) -> str:
    return "real numbers" if levels is None else f"bytes of {levels} levels"
