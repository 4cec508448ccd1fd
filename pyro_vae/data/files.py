"""A user's own arrays, in a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.checks import as_values, channels_last
from pyro_vae.data.dataset import Dataset
from pyro_vae.data.fields import LABEL, SPLITS, as_fields
from pyro_vae.data.forms import Form
from pyro_vae.data.reading import Parts, cut_by_seed, existing, load_array_file
from pyro_vae.data.shard_folders import check_beside, load_folder
from pyro_vae.data.shards import Shards
from pyro_vae.data.stored import Rows, Values
from pyro_vae.errors import InputError, count

#: An array in memory or in files.
Stored = NDArray[Any] | Shards

#: What others call the data, and the classes.
_DATA = ("x", "data", "images", "values", "counts")
_LABELS = dict.fromkeys(("y", "label", "labels", "target", "targets"), LABEL)


class ArrayFile(Dataset):
    """Data from a `.npy` or `.npz` file, or a folder of them: numbers (N, H, W), (N, C, H, W) or (N, D).

    An `.npz` with `train` and at least one of `valid` and `test` is split as it says: one that it lacks is
    empty, and nothing is taken out of `train` for it. One array alone, of any name, is permuted by the seed
    and split 80/10/10. What lies beside `train`, `valid` and `test` are fields: `train_label` (or
    `train_labels`) the classes, `train_exposure` a field `exposure`, and so on. `images` (or `x`, `data`,
    `counts`) with `labels` (or `y`) and other arrays of its length beside it are split 80/10/10 together;
    `x_train`, `y_train`, `x_test`, `y_test` are understood, too.

    Bytes, int32 and float32 that are not compressed (`numpy.save`, `numpy.savez`) are mapped from the file
    and read only where they are used, so that it may be larger than the memory; it must not change meanwhile.
    What is drawn once by the seed, and numbers of other types, are held in memory.

    A folder of `.npy` files, in the order of their names, is the array that they make one after the other. A
    folder of such folders is read as an `.npz`, the name of each being that of its array: `train` and
    `valid`, or `images` and `label`. The files of a field have the names and the lengths of those of the
    data. Files of `numpy.bool_`, integers of up to 32 bits, float16 and float32 stay where they are.

    Training data of more than a window are taken in blocks of neighbours in random order, shuffled within a
    window, while the next window is read; each datum is taken once in an epoch. Other data are shuffled as a
    whole, as in memory.

    Args:
        path: The file, or the folder.
        form: How values become x; by default `Levels` of bytes, `Counts` of other whole numbers, and
            `AsGiven` of floats and bits.
        seed: Seed of the split, where the file does not split, and of the fixed draws.
        maximum: The value that means 1. By default 255 for uint8 values above 1, else 1.
        given: Fields that programs get beside x, as `label`; by default all but `label`.
        missing: Whether NaN means not observed; without it NaN is refused.
        window: Number of data that are shuffled with one another, and held in memory about four times; by
            default what 128 MiB hold.

    Raises:
        InputError: A file is missing, damaged, or holds pickled objects; names or shapes are other than
            above.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/counts.npy", np.full((20, 5), 3, np.int32))
    ...     data = ArrayFile(Path(folder) / "counts.npy")
    >>> data.sizes, data.data_shape, data.form
    (Sizes(train=16, valid=2, test=2), torch.Size([5]), Counts())
    """

    def __init__(
        self,
        path: Path,
        *,
        form: Form | None = None,
        seed: int = 0,
        maximum: float | None = None,
        given: tuple[str, ...] | None = None,
        missing: bool = False,
        window: int | None = None,
    ) -> None:
        path = Path(path).expanduser()
        parts = _array_parts(path, missing, None if window is None else count("window", window))
        self._split_by_seed = "valid" not in parts and "test" not in parts
        if self._split_by_seed:
            parts = cut_by_seed(parts["train"], parts["fields"]["train"], seed, path)
        super().__init__(**parts, form=form, seed=seed, maximum=maximum, given=given, missing=missing)

    @property
    def protocol(self) -> str:
        """How the data were binarised, and split."""
        return f"{super().protocol}, split by seed {self.seed}" if self._split_by_seed else super().protocol


def _array_parts(path: Path, missing: bool, window: int | None) -> Parts:
    arrays = _by_split(_arrays(path))
    fields = {name: _field_of(name) for name in arrays if name not in SPLITS}
    if "train" not in arrays or not all(fields.values()):
        raise InputError(
            f"expected one array, images with labels, or train with any of valid, test and fields such as "
            f"train_label in {path}, got {', '.join(arrays) or 'no array'}: rename or leave out the others"
        )
    values: dict[str, Values] = {
        split: _windowed(as_values(arrays[split], f"{split} in {path}", missing=missing), window)
        for split in SPLITS
        if split in arrays
    }
    parts = Parts(fields=_fields(arrays, fields, values, path))
    for split in SPLITS:
        if split in values:
            parts[split] = _channels_first(values[split], f"{split} in {path}")
    return parts


def _windowed(values: Values, window: int | None) -> Values:
    return replace(values, named_window=window) if isinstance(values, Rows) else values


def _arrays(path: Path) -> Mapping[str, Stored]:
    """The arrays of a file or a folder, by name."""
    if path.is_dir():
        return load_folder(path)
    remedy = "save plain arrays of numbers with numpy.save or numpy.savez"
    if path.suffix not in (".npy", ".npz"):
        raise InputError(
            f"expected a .npy or .npz file, got {path}: {remedy}, or give a folder of .npy files, or use "
            "ImageFolder for pictures"
        )
    return load_array_file(existing(path, "check the path"), remedy, mapped=True)


def _by_split(arrays: Mapping[str, Stored]) -> dict[str, Stored]:
    """The arrays by the names of this package, where they have those of others.

    One array alone is `train`. `images` or `x` with `labels` and other fields of the same length are `train`
    and `train_label`; and so are `x_train` and `y_train`, as in Keras's files.
    """
    if len(arrays) == 1:
        return {"train": next(iter(arrays.values()))}
    data = [name for name in arrays if name.lower() in _DATA]
    if "train" not in arrays and len(data) == 1:
        rows = arrays[data[0]].shape[:1]
        beside = {name: array for name, array in arrays.items() if name not in data}
        if all(array.shape[:1] == rows for array in beside.values()):
            fields = {_LABELS.get(name.lower(), name): array for name, array in beside.items()}
            if len(fields) == len(beside):
                named = {f"train_{name}": array for name, array in fields.items()}
                return {"train": arrays[data[0]], **named}
    renamed = {_renamed(name): array for name, array in arrays.items()}
    return renamed if len(renamed) == len(arrays) else dict(arrays)


def _renamed(name: str) -> str:
    """Our name of `x_train` or `y_val`; any other as it is."""
    kind, _, split = name.lower().partition("_")
    split = {"val": "valid", "validation": "valid"}.get(split, split)
    if split not in SPLITS:
        return name
    return split if kind in _DATA else f"{split}_{LABEL}" if kind in _LABELS else name


def _field_of(name: str) -> tuple[str, str] | None:
    """Split and name of the field that an array of this name is: of `train_label`, train and label."""
    split, _, field = name.partition("_")
    return (split, LABEL if field == "labels" else field) if split in SPLITS and field else None


def _fields(
    arrays: Mapping[str, Stored],
    places: Mapping[str, tuple[str, str] | None],
    values: Mapping[str, Values],
    path: Path,
) -> dict[str, dict[str, Tensor]]:
    """The fields of a file by split and name, each in one form."""
    found: dict[str, dict[str, NDArray[Any]]] = {split: {} for split in SPLITS}
    for array, place in places.items():
        assert place is not None
        split, name = place
        if name in found[split]:
            raise InputError(f"expected labels of {split} once in {path}, got {split}_label and {array}")
        found[split][name] = _beside(arrays[array], arrays.get(split))
    return as_fields(found, dict.fromkeys(SPLITS), values, f" in {path}")


def _beside(field: Stored, data: Stored | None) -> NDArray[Any]:
    """A field in memory."""
    if not isinstance(field, Shards):
        return field
    if isinstance(data, Shards):
        check_beside(data, field)
    return field.whole()


def _channels_first(values: Values, where: str) -> Values:
    if channels_last(values.shape):
        raise InputError(
            f"expected {where} of shape (N, C, H, W), got {tuple(values.shape)}, which looks like"
            " (N, H, W, C): use numpy.moveaxis(a, -1, 1)"
        )
    return values
