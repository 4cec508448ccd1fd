"""Fields: what is known of each datum beside x, by name."""

from collections.abc import Iterable, Mapping
from keyword import iskeyword
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.checks import Array, as_labels, check_rounding
from pyro_vae.data.stored import Values
from pyro_vae.errors import InputError

#: Fields of one split, by name: (N, …) each.
Fields = Mapping[str, Tensor]
#: The same as a user gives them.
GivenFields = Mapping[str, Array]

SplitName = Literal["train", "valid", "test"]
#: What data are split into.
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")

#: The field of classes.
LABEL = "label"
#: The field that says, by 1 and 0, which entries are observed.
MASK = "mask"
#: What it holds where the label of a datum was not seen, as in scikit-learn.
UNSEEN = -1


class FieldKind(NamedTuple):
    """What a model must know of a field."""

    #: Of one datum.
    shape: tuple[int, ...]
    #: Number of classes 0, 1, … where the field is one whole number for each datum, else None.
    classes: int | None

    @classmethod
    def of(cls, tensors: Iterable[Tensor], lowest: int = 0) -> Self:
        """That of a field, from its tensors in all splits; a class is `lowest` at least.

        >>> FieldKind.of([torch.tensor([0, 2]), torch.tensor([1])])
        FieldKind(shape=(), classes=3)
        """
        first, *others = tensors
        shape = tuple(first.shape[1:])
        found = [tensor for tensor in (first, *others) if tensor.numel()]
        whole = shape == () and first.dtype == torch.int64
        is_class = whole and all(int(each.min()) >= lowest for each in found)
        return cls(shape, max(int(each.max()) for each in found) + 1 if is_class and found else None)

    def in_words(self) -> str:
        """For a message."""
        return (
            f"numbers of shape {self.shape}" if self.classes is None else f"classes 0 to {self.classes - 1}"
        )


def as_fields(
    fields: Mapping[str, GivenFields] | None,
    labels: Mapping[str, Array | None],
    values: Mapping[str, Values],
    where: str = "",
) -> dict[str, dict[str, Tensor]]:
    """Fields by split and name, held against the data that they lie beside.

    Args:
        fields: By split and name, as a user gives them.
        labels: The field `label` by split, given apart.
        values: The data, by split.
        where: What follows the name of a split in errors.

    Raises:
        InputError: where a field is none of its split, or is another one in another split.
    """
    found: dict[str, dict[str, Tensor]] = {split: {} for split in labels}
    for split, of_split in (fields or {}).items():
        if split not in found or not isinstance(of_split, Mapping):
            raise InputError(
                "fields expects a dictionary of arrays for each of train, valid and test, got "
                f"{split!r}: give fields={{'train': {{'exposure': array}}, ...}}"
            )
        for name, array in of_split.items():
            found[split][_checked_name(name)] = as_field(name, array, values.get(split), split + where)
    for split, of_split_labels in labels.items():
        if of_split_labels is not None and LABEL in found[split]:
            raise InputError(f"expected labels of {split} once, got {split}_labels and the field 'label'")
        if of_split_labels is not None:
            found[split][LABEL] = as_field(LABEL, of_split_labels, values.get(split), split + where)
    return _alike(found, values)


def _checked_name(name: str) -> str:
    if not (isinstance(name, str) and name.isidentifier()) or iskeyword(name) or name == "x":
        raise InputError(
            f"expected a field's name that an argument of a program can have beside x, got {name!r}: "
            "rename it, as exposure"
        )
    return name


def as_field(name: str, array: Array, values: Values | None, split: str) -> Tensor:
    """A field as int64, bool or float32 on the CPU."""
    if name == LABEL:
        labels = as_labels(array, values, split)
        assert labels is not None
        return labels
    if not isinstance(array, (np.ndarray, Tensor)):
        raise InputError(
            f"expected the field {name!r} of {split} as a NumPy array or a tensor, got "
            f"{type(array).__name__}: use numpy.asarray"
        )
    numbers = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if numbers.dtype.kind not in "biuf" or numbers.ndim == 0:
        raise InputError(
            f"expected the field {name!r} of {split} as numbers (N, ...), got {numbers.dtype} of shape "
            f"{numbers.shape}: convert it with .astype"
        )
    num_data = 0 if values is None else len(values)
    if len(numbers) != num_data:
        raise InputError(
            f"expected the field {name!r} for each of {num_data} data of {split}, got shape "
            f"{numbers.shape}: take both from one source"
        )
    dtype = {"b": np.bool_, "f": np.float32}.get(numbers.dtype.kind, np.int64)
    if numbers.dtype.kind == "f" and numbers.dtype.itemsize == 8:
        _check_told_apart(torch.tensor(numbers.astype(np.float64)), name, split)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        tensor = torch.from_numpy(np.array(numbers, dtype, order="C"))
    if not bool(tensor.isfinite().all()):
        raise InputError(
            f"expected finite numbers in the field {name!r} of {split}, got NaN or infinite ones: say what "
            "is missing by a field of 0 and 1 beside it"
        )
    return tensor


def _check_told_apart(tensor: Tensor, name: str, split: str) -> None:
    """Refuse numbers whose spread is lost in float32, in which programs compute."""
    if tensor.numel():
        check_rounding(tensor.double().reshape(len(tensor), -1), f"the field {name!r} of {split}")


def _alike(found: dict[str, dict[str, Tensor]], values: Mapping[str, Values]) -> dict[str, dict[str, Tensor]]:
    """The fields, those of splits without data being empty; refused where splits differ."""
    for name in {name: None for of_split in found.values() for name in of_split}:
        have = {split: fields[name] for split, fields in found.items() if name in fields}
        (first, like), *others = have.items()
        for split, other in others:
            if (other.shape[1:], other.dtype) != (like.shape[1:], like.dtype):
                raise InputError(
                    f"expected the field {name!r} in one form, got {tuple(like.shape[1:])} and {like.dtype} "
                    f"in {first}, {tuple(other.shape[1:])} and {other.dtype} in {split}: bring them to one"
                )
        for split, fields in found.items():
            if not len(values.get(split, ())):
                fields.setdefault(name, like[:0])
    return found


def masked(values: Mapping[str, Values], fields: Mapping[str, dict[str, Tensor]]) -> dict[str, Values]:
    """Data with NaN where their field `mask` is 0; the field is taken out, since NaN says it all.

    Raises:
        InputError: where a mask is none of 0 and 1, or of another shape than its data.
    """
    found = dict(values)
    masks = {split: of_split.pop(MASK) for split, of_split in fields.items() if MASK in of_split}
    for split, data in values.items():
        mask = masks.get(split)
        if mask is None:
            continue
        if mask.numel() != len(data) * data.shape[1:].numel() or bool(((mask != 0) & (mask != 1)).any()):
            raise InputError(
                f"expected the mask of {split} as 0 and 1 for each entry of shape {tuple(data.shape)}, got "
                f"shape {tuple(mask.shape)} from {float(mask.min()):g} to {float(mask.max()):g}"
            )
        seen = mask.reshape(data.shape).bool()
        found[split] = torch.where(seen, data[:].to(torch.float32), torch.nan)
    return found


def checked_given(
    given: Iterable[str] | None, fields: Mapping[str, Fields], sizes: Mapping[str, int]
) -> tuple[str, ...]:
    """The names of the fields that programs get.

    Args:
        given: As the user says; None for all but the labels.
        fields: By split.
        sizes: Number of data of each split.

    Raises:
        InputError: where one is no field, or is missing in a split that has data, or would be rounded.
    """
    names = list({name: None for of_split in fields.values() for name in of_split})
    if given is None:
        given = [name for name in names if name != LABEL]
    elif isinstance(given, str):
        raise InputError(f"given expects names of fields, got the text {given!r}: give ({given!r},)")
    for name in dict.fromkeys(given):
        if name not in names:
            raise InputError(
                f"given expects names of fields beside x, got {name!r} for data with "
                f"{', '.join(names) or 'none'}: choose among these, or give the field"
            )
        missing = [split for split, size in sizes.items() if size and name not in fields[split]]
        if missing:
            raise InputError(
                f"expected the field {name!r} in {' and '.join(missing)}, too, since programs get it, got "
                "none: give it, or leave it out of `given`"
            )
        for split, of_split in fields.items():
            if name in of_split and not of_split[name].is_floating_point():
                _check_told_apart(of_split[name], name, split)
    return tuple(dict.fromkeys(given))
