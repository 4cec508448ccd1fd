"""A user's own data: an array file, or a folder of pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pyro_vae.data.checks import as_labels, as_values
from pyro_vae.data.dataset import Binarization, Dataset
from pyro_vae.data.reading import Parts, cut_by_seed, existing, load_array_file, reading
from pyro_vae.errors import InputError

_SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
_LABELS: tuple[Literal["train_labels", "valid_labels", "test_labels"], ...] = (
    "train_labels",
    "valid_labels",
    "test_labels",
)
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class ArrayFile(Dataset):
    """Data from one `.npy` or `.npz` file: uint8, bool or float arrays (N, H, W), (N, C, H, W) or (N, D).

    An `.npz` with `train` and at least one of `valid` and `test` is split as it says: one that it lacks is
    empty, and nothing is taken out of `train` for it. One array alone, of any name, is permuted by the seed
    and split 80/10/10. Labels go by `train_labels`, `valid_labels`, `test_labels` (an array of another name
    has none).

    Args:
        path: The file.
        binarization: dynamic (train drawn anew at every use), static (all drawn once), threshold
            (grey > 1/2), none, or dequantised (bytes plus uniform noise).
        seed: Seed of the split, where the file does not split, and of the fixed draws.
        maximum: The value that means 1. By default 255 for uint8 values above 1, else 1.

    Raises:
        InputError: The file is missing, damaged, or holds pickled objects; names or shapes are other than
            above.
    """

    def __init__(
        self, path: Path, *, binarization: Binarization = "none", seed: int = 0, maximum: float | None = None
    ) -> None:
        path = Path(path).expanduser()
        parts = _array_parts(path)
        self._split_by_seed = "valid" not in parts and "test" not in parts
        if self._split_by_seed:
            parts = cut_by_seed(parts["train"], parts.get("train_labels"), seed, path)
        super().__init__(**parts, binarization=binarization, seed=seed, maximum=maximum)

    @property
    def protocol(self) -> str:
        """How the data were binarised, and split."""
        return f"{super().protocol}, split by seed {self.seed}" if self._split_by_seed else super().protocol


def _array_parts(path: Path) -> Parts:
    remedy = "save plain arrays of numbers with numpy.save or numpy.savez"
    if path.suffix not in (".npy", ".npz"):
        raise InputError(
            f"expected a .npy or .npz file, got {path}: {remedy}, or use ImageFolder for pictures"
        )
    arrays = load_array_file(existing(path, "check the path"), remedy)
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
        values = as_values(arrays[name], f"{name} in {path}") if name in arrays else None
        labels = as_labels(arrays.get(labels_name), values, f"{name} in {path}")
        if values is not None:
            parts[name] = _channels_first(values, f"{name} in {path}")
        if labels is not None:
            parts[labels_name] = labels
    return parts


def _channels_first(values: Tensor, where: str) -> Tensor:
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4) and values.shape[1] > 4:
        raise InputError(
            f"expected {where} of shape (N, C, H, W), got {tuple(values.shape)}, which looks like"
            " (N, H, W, C): use numpy.moveaxis(a, -1, 1)"
        )
    return values


class ImageFolder(Dataset):
    """All pictures under a folder, as bytes (C, H, W), split 80/10/10 by the seed.

    Read are png, jpg, jpeg, bmp, gif (first frame), webp, tif and tiff files, in the order of their paths;
    hidden files are left out. Each is turned as its camera says, shown on white where it is transparent,
    cropped about its centre to the aspect of `size`, and resized with antialiasing. Where there are
    sub-folders, the first below `path` is the label; `classes` holds their names in order, "." for pictures
    beside them.

    Args:
        path: The folder.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for red, green and blue.
        binarization: dynamic (train drawn anew at every use), static (all drawn once), threshold
            (grey > 1/2), none, or dequantised (bytes plus uniform noise).
        seed: Seed of the split and of the fixed draws.

    Raises:
        InputError: No such folder; fewer than 10 pictures; a picture is damaged or of more than 8 bits per
            channel.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int] = (32, 32),
        channels: Literal[1, 3] = 3,
        binarization: Binarization = "none",
        seed: int = 0,
    ) -> None:
        path = Path(path).expanduser()
        _check_picture_options(path, size, channels)
        files = _pictures(path)
        folders = [file.relative_to(path).parts[0] if file.parent != path else "." for file in files]
        self.classes = sorted(set(folders)) if set(folders) != {"."} else []
        labels = torch.tensor([self.classes.index(folder) for folder in folders]) if self.classes else None
        parts = cut_by_seed(_load_pictures(files, size, channels), labels, seed, path)
        super().__init__(**parts, binarization=binarization, seed=seed, maximum=255)

    @property
    def protocol(self) -> str:
        """How the data were binarised, and split."""
        return f"{super().protocol}, split by seed {self.seed}"


def _check_picture_options(path: Path, size: tuple[int, int], channels: int) -> None:
    if not path.is_dir():
        raise InputError(f"expected a folder of pictures, got {path}, which is none: check the path")
    if len(size) != 2 or min(size) < 1:
        raise InputError(
            f"expected height and width of at least 1 pixel, got size {size}: give two positive numbers"
        )
    if channels not in (1, 3):
        raise InputError(f"expected 1 channel (grey) or 3 (colour), got {channels}: choose one of these")


def _pictures(path: Path) -> list[Path]:
    files = [
        file for file in path.rglob("*") if file.suffix.lower() in _PICTURES and not file.name.startswith(".")
    ]
    if not files:
        raise InputError(f"expected pictures ({', '.join(_PICTURES)}) under {path}, got none: check the path")
    return sorted(files, key=Path.as_posix)


def _load_pictures(files: Sequence[Path], size: tuple[int, int], channels: int) -> Tensor:
    pictures = np.empty((len(files), *size, channels), dtype=np.uint8)
    for picture, file in zip(pictures, files, strict=True):
        with reading(file, "replace or remove this picture"):
            picture[:] = np.atleast_3d(np.asarray(_load_picture(file, size, channels)))  # (H, W, C)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)


def _load_picture(file: Path, size: tuple[int, int], channels: int) -> Image.Image:
    with Image.open(file) as stored:
        if stored.mode.startswith(("I", "F")):  # Pillow would clip these at 255
            raise InputError(
                f"expected 8 bits per channel in {file}, got mode {stored.mode}: convert it to 8 bits"
            )
        picture = ImageOps.exif_transpose(stored)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), size[::-1])
