"""A user's own arrays, in a file."""

from pathlib import Path
from typing import Literal

from pyro_vae.data.checks import as_labels, as_values
from pyro_vae.data.dataset import Binarization, Dataset
from pyro_vae.data.reading import Parts, cut_by_seed, existing, load_array_file
from pyro_vae.data.stored import Values
from pyro_vae.errors import InputError

_SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
_LABELS: tuple[Literal["train_labels", "valid_labels", "test_labels"], ...] = (
    "train_labels",
    "valid_labels",
    "test_labels",
)


class ArrayFile(Dataset):
    """Data from one `.npy` or `.npz` file: uint8, bool or float arrays (N, H, W), (N, C, H, W) or (N, D).

    An `.npz` with `train` and at least one of `valid` and `test` is split as it says: one that it lacks is
    empty, and nothing is taken out of `train` for it. One array alone, of any name, is permuted by the seed
    and split 80/10/10. Labels go by `train_labels`, `valid_labels`, `test_labels` (an array of another name
    has none).

    Bytes and float32 that are not compressed (`numpy.save`, `numpy.savez`) are mapped from the file and read
    only where they are used, so that it may be larger than the memory; it must not change meanwhile. What is
    drawn once by the seed, and float64, is held in memory.

    Args:
        path: The file.
        binarization: dynamic (train drawn anew at every use), static (all drawn once), threshold
            (grey > 1/2), none, or dequantised (bytes plus uniform noise).
        seed: Seed of the split, where the file does not split, and of the fixed draws.
        maximum: The value that means 1. By default 255 for uint8 values above 1, else 1.
        missing: Whether NaN means not observed; without it NaN is refused.

    Raises:
        InputError: The file is missing, damaged, or holds pickled objects; names or shapes are other than
            above.
    """

    def __init__(
        self,
        path: Path,
        *,
        binarization: Binarization = "none",
        seed: int = 0,
        maximum: float | None = None,
        missing: bool = False,
    ) -> None:
        path = Path(path).expanduser()
        parts = _array_parts(path, missing)
        self._split_by_seed = "valid" not in parts and "test" not in parts
        if self._split_by_seed:
            parts = cut_by_seed(parts["train"], parts.get("train_labels"), seed, path)
        super().__init__(**parts, binarization=binarization, seed=seed, maximum=maximum, missing=missing)

    @property
    def protocol(self) -> str:
        """How the data were binarised, and split."""
        return f"{super().protocol}, split by seed {self.seed}" if self._split_by_seed else super().protocol


def _array_parts(path: Path, missing: bool) -> Parts:
    remedy = "save plain arrays of numbers with numpy.save or numpy.savez"
    if path.suffix not in (".npy", ".npz"):
        raise InputError(
            f"expected a .npy or .npz file, got {path}: {remedy}, or use ImageFolder for pictures"
        )
    arrays = load_array_file(existing(path, "check the path"), remedy, mapped=True)
    if len(arrays) == 1:
        arrays = {"train": next(iter(arrays.values()))}
    known = [*_SPLITS, *_LABELS]
    if "train" not in arrays or not arrays.keys() <= set(known):
        raise InputError(
            f"expected one array, or train with any of {', '.join(known[1:])} in {path}, got"
            f" {', '.join(arrays) or 'no array'}: rename or leave out the others"
        )
    parts = Parts()
    for name, labels_name in zip(_SPLITS, _LABELS, strict=True):
        values = as_values(arrays[name], f"{name} in {path}", missing=missing) if name in arrays else None
        labels = as_labels(arrays.get(labels_name), values, f"{name} in {path}")
        if values is not None:
            parts[name] = _channels_first(values, f"{name} in {path}")
        if labels is not None:
            parts[labels_name] = labels
    return parts


def _channels_first(values: Values, where: str) -> Values:
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4) and values.shape[1] > 4:
        raise InputError(
            f"expected {where} of shape (N, C, H, W), got {tuple(values.shape)}, which looks like"
            " (N, H, W, C): use numpy.moveaxis(a, -1, 1)"
        )
    return values
