"""A user's own pictures: a folder of them, split as its sub-folders say."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pyro_vae.data.dataset import Dataset
from pyro_vae.data.fields import LABEL, SplitName
from pyro_vae.data.forms import Form, Levels
from pyro_vae.data.reading import Parts, cut, cut_by_seed, reading, shuffled
from pyro_vae.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
#: Folders that archives and network drives add, with copies and thumbnails of the pictures.
_ADDED = ("__MACOSX", "@eaDir")
_BITS_PER_SAMPLE = 258  # a tag of TIFF

#: What folders of splits are called, in small letters.
_SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class ImageFolder(Dataset):
    """All pictures under a folder, as bytes (C, H, W), split as its sub-folders say, or 80/10/10 by the seed.

    Sub-folders named train, valid and test (also training, val, validation, testing, in any case) are the
    splits, and nothing else may lie beside them. Where valid is missing, a tenth of train, rounded down, is
    taken for it by the seed; where test is missing, it is empty; train alone is split 80/10/10. Without such
    sub-folders, all pictures are permuted by the seed and split 80/10/10. `protocol` says which it was.

    Read are png, jpg, jpeg, bmp, gif (first frame), webp, tif and tiff files, in the order of their paths,
    links followed. Hidden files and folders are left out, and so are `__MACOSX` and `@eaDir`. Each picture is
    turned as its camera says, shown on white where it is transparent, cropped about its centre to the aspect
    of `size`, and resized with antialiasing. Where there are sub-folders, the first below `path`, or below
    the folder of the split, is the label; `classes` holds their names in order, "." for pictures beside them.
    A split without sub-folders has no labels.

    Args:
        path: The folder.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for red, green and blue.
        form: How grey values become x; by default `Levels`.
        seed: Seed of the split and of the fixed draws.
        given: Fields that programs get beside x: `label`, or by default none.

    Raises:
        InputError: No such folder; fewer than 10 pictures that are to be split; a picture is damaged or of
            more than 8 bits per channel, or reached by two paths; sub-folders of splits beside other ones,
            further down, without train, or two of one split.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cats", "dogs"):
    ...         (Path(folder) / name).mkdir()
    ...         for number in range(10):
    ...             Image.new("RGB", (40, 30)).save(f"{folder}/{name}/{number}.png")
    ...     data = ImageFolder(Path(folder), size=(8, 8))
    >>> data.sizes, data.data_shape, data.classes
    (Sizes(train=16, valid=2, test=2), torch.Size([3, 8, 8]), ['cats', 'dogs'])
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int] = (32, 32),
        channels: Literal[1, 3] = 3,
        form: Form | None = None,
        seed: int = 0,
        given: tuple[str, ...] | None = None,
    ) -> None:
        path = Path(path).expanduser()
        _check_options(path, size, channels)
        files = _pictures(path)
        folders = _split_folders(path, files)
        found = {
            split: [file for file in files if folder in (file, *file.parents)]
            for split, folder in folders.items()
        }
        classes = {split: _classes(folders[split], found[split]) for split in found}
        self.classes = sorted({name for names in classes.values() for name in names})
        parts = Parts(fields={})
        for split, names in classes.items():
            parts[split] = _load_pictures(found[split], size, channels)
            if names:
                labels = torch.tensor([self.classes.index(name) for name in names])
                parts["fields"][split] = {LABEL: labels}
        parts, self._how = _completed(parts, seed, folders["train"])
        super().__init__(**parts, form=form or Levels(), seed=seed, maximum=255, given=given)

    @property
    def protocol(self) -> str:
        """How the data were binarised, and what was split by the seed."""
        return f"{super().protocol}{self._how}"


def _check_options(path: Path, size: tuple[int, int], channels: int) -> None:
    if not path.is_dir():
        raise InputError(f"expected a folder of pictures, got {path}, which is none: check the path")
    if len(size) != 2 or min(size) < 1:
        raise InputError(
            f"expected height and width of at least 1 pixel, got size {size}: give two positive numbers"
        )
    if channels not in (1, 3):
        raise InputError(f"expected 1 channel (grey) or 3 (colour), got {channels}: choose one of these")


def _pictures(path: Path) -> list[Path]:
    """All pictures under `path` in the order of their paths, each file once."""
    files = sorted(_walk(path, frozenset({path.resolve()})), key=Path.as_posix)
    if not files:
        raise InputError(f"expected pictures ({', '.join(_SUFFIXES)}) under {path}, got none: check the path")
    first: dict[Path, Path] = {}
    for file in files:
        other = first.setdefault(file.resolve(), file)
        if other is not file:  # by the seed, one could be trained on and the other tested
            before, after = (file, other) if other.is_symlink() and not file.is_symlink() else (other, file)
            raise InputError(f"expected each picture once, got {before} again as {after}: remove one of them")
    return files


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Pictures under `folder`; a link back to one of the folders `above` is not followed."""
    with reading(folder, "allow reading it, or move it away"):
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", *_ADDED))]
    for entry in entries:
        if entry.is_dir():
            real = entry.resolve()
            if real not in above:
                yield from _walk(entry, above | {real})
        elif entry.suffix.lower() in _SUFFIXES:
            yield entry


def _split_folders(path: Path, files: Sequence[Path]) -> dict[SplitName, Path]:
    """The folder of each split that there is; `path` itself as train where all is to be split by the seed."""
    below = _sub_folders(path, files)
    for folder, names in below.items():
        if folder != path:
            _check_deep(path, folder, names, files)
    top = below.get(path, set())
    named = {name: _SPLITS[name.lower()] for name in sorted(top) if name.lower() in _SPLITS}
    others = sorted(top - named.keys())
    loose = any(file.parent == path for file in files)
    if not named:
        return {"train": path}
    could_be_a_class = set(named.values()) == {"train"} and not any(path / name in below for name in named)
    if could_be_a_class and (others or loose):
        return {"train": path}
    _check_splits(path, named, others, loose)
    return {split: path / name for name, split in named.items()}


def _sub_folders(path: Path, files: Sequence[Path]) -> dict[Path, set[str]]:
    """For each folder that has any, the names of its sub-folders with pictures."""
    below: dict[Path, set[str]] = {}
    for file in files:
        folder = file.parent
        while folder != path:
            below.setdefault(folder.parent, set()).add(folder.name)
            folder = folder.parent
    return below


def _check_deep(path: Path, folder: Path, names: set[str], files: Sequence[Path]) -> None:
    """Refuse folders of splits that are not directly below `path`: they would be mixed."""
    splits = sorted(name for name in names if name.lower() in _SPLITS)
    if all(_SPLITS[name.lower()] == "train" for name in splits):  # a class, perhaps
        return
    alone = all(folder in file.parents for file in files)
    remedy = "give that folder as path" if alone else "put the classes into train and test"
    raise InputError(
        f"expected the folders of splits directly in {path}, got {', '.join(splits)} in {folder}: {remedy},"
        " or rename them"
    )


def _check_splits(path: Path, named: dict[str, SplitName], others: Sequence[str], loose: bool) -> None:
    """Refuse folders of splits beside other ones, without train, or two of one split."""
    for split in set(named.values()):
        same = [name for name in named if named[name] == split]
        if len(same) > 1:
            raise InputError(
                f"expected one folder for each split in {path}, got {', '.join(same)}: merge them"
            )
    strange = ", ".join([*others, *(["pictures"] if loose else [])])
    them = "it" if len(others) == 1 and not loose else "them"
    known = ", ".join(named)
    if "train" not in named.values() and strange:
        raise InputError(
            f"expected a folder train with the classes beside {known} in {path}, got {strange}: move {them}"
            " into it"
        )
    if "train" not in named.values():
        raise InputError(
            f"expected a folder train beside {known} in {path}, got none: give the training pictures"
        )
    if strange:
        raise InputError(
            f"expected nothing beside the folders of splits {known} in {path}, got {strange}: move {them} out"
        )


def _classes(folder: Path, files: Sequence[Path]) -> list[str]:
    """The class of each picture, none where the folder has no sub-folders."""
    names = [file.relative_to(folder).parts[0] if file.parent != folder else "." for file in files]
    return names if set(names) != {"."} else []


def _completed(parts: Parts, seed: int, folder: Path) -> tuple[Parts, str]:
    """Three splits, and how they were made, in words."""
    values, fields = parts["train"], parts["fields"].get("train", {})
    if "valid" in parts:
        return parts, ""
    if "test" not in parts:
        return cut_by_seed(values, fields, seed, folder), f", split by seed {seed}"
    tenth = len(values) // 10
    if tenth == 0:
        raise InputError(
            f"expected at least 10 data to cut a tenth for valid, got {len(values)} in {folder}: give more,"
            " or a folder valid"
        )
    pieces = cut(*shuffled(values, fields, seed), num_valid=tenth, num_test=0)
    pieces["test"], pieces["fields"]["test"] = parts["test"], parts["fields"].get("test", {})
    return pieces, f", valid cut from train by seed {seed}"


def _load_pictures(files: Sequence[Path], size: tuple[int, int], channels: int) -> Tensor:
    """(N, C, H, W)."""
    pictures = np.empty((len(files), *size, channels), dtype=np.uint8)
    for picture, file in zip(pictures, files, strict=True):
        with reading(file, "replace or remove this picture"):
            picture[:] = np.atleast_3d(np.asarray(_load_picture(file, size, channels)))  # (H, W, C)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)


def _load_picture(file: Path, size: tuple[int, int], channels: int) -> Image.Image:
    with Image.open(file) as stored:
        _check_bits(stored, file)
        picture = ImageOps.exif_transpose(stored)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), size[::-1])


def _check_bits(stored: Image.Image, file: Path) -> None:
    """Refuse more than 8 bits per channel: Pillow would clip them at 255, or drop the lower 8 of 16."""
    got = f"mode {stored.mode}" if stored.mode.startswith(("I", "F")) else ""
    if not got and stored.format == "TIFF":
        bits = max(stored.tag_v2.get(_BITS_PER_SAMPLE, (1,)))  # type: ignore[attr-defined]
        got = f"{bits} bits" if bits > 8 else ""
    elif not got and re.search(
        r"'(RGB|LA|RGBA);16", str(getattr(stored, "tile", ""))
    ):  # what it is stored as
        got = "16 bits"
    if got:
        raise InputError(f"expected 8 bits per channel in {file}, got {got}: convert it to 8 bits")
