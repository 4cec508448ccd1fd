"""Folders of `.npy` files that together are one array each."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from pyro_vae.data.reading import header, reading
from pyro_vae.data.shards import Shard, Shards, written
from pyro_vae.errors import InputError

#: The name of files that lie in a folder beside folders of fields.
_DATA = "x"
#: Names of arrays, also of those that are compressed, not yet whole, or a copy.
_ARRAY = re.compile(r"\.np[yz]", re.IGNORECASE)
_REMEDY = "save each file by numpy.save(path, array), an array of numbers in C order"


def load_folder(folder: Path) -> dict[str, Shards]:
    """Return the arrays of a folder by name: of each folder within, and `x` of the files in itself.

    Raises:
        InputError: where there is no `.npy` file, or one is damaged, or differs from the others in shape or
            type; where one would be left out by its name or its place; where the files of a field are others
            than those that lie in the folder itself.
    """
    folder = folder.resolve()
    here = _files(folder)
    found = {_DATA: shards_of(here)} if here else {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path)):
        _check_depth(inner)
        if files := _files(inner):
            if inner.name in found:
                raise InputError(
                    f"expected data either in {folder} or in {inner}, got .npy files in both: move them to "
                    "one"
                )
            found[inner.name] = shards_of(files)
    for name in found if here else ():
        check_beside(found[_DATA], found[name])
    if not found:
        raise InputError(f"expected .npy files in {folder}, or in folders in it, got none: {_REMEDY}")
    return found


def _files(folder: Path) -> list[Path]:
    """In the order of their names; hidden ones, as others leave them behind, are none.

    Raises:
        InputError: where another file looks like one of them.
    """
    seen = sorted(path for path in folder.iterdir() if path.is_file() and not _is_hidden(path))
    for path in seen:
        if path.suffix != ".npy" and _ARRAY.search(path.name):
            raise InputError(
                f"expected files named .npy in {folder}, got {path.name}, which would be left out: rename or "
                "unpack it to .npy, or move it out of the folder"
            )
    return [path for path in seen if path.suffix == ".npy"]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _check_depth(folder: Path) -> None:
    """Refuse arrays in folders within a folder of arrays, which would be left out."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        deep = sorted(name for name in names if _ARRAY.search(name) and not name.startswith("."))
        if deep and Path(place) != folder:
            raise InputError(
                f"expected .npy files in {folder} itself, got {Path(place) / deep[0]}, which would be left "
                "out: move it up, or out of the folder"
            )


def shards_of(files: Sequence[Path]) -> Shards:
    """The arrays of files, one after the other.

    Raises:
        InputError: where one is damaged, or differs from the first in shape or type.
    """
    first, *others = (_opened(file) for file in files)
    for other in others:
        for what, one, its in (
            ("data of shape", tuple(first.data_shape), tuple(other.data_shape)),
            ("numbers of type", first.stored, other.stored),
        ):
            if one != its:
                raise InputError(
                    f"expected {what} {one} in {other.parts[0].path}, as in {first.parts[0].path.name}, got "
                    f"{its}: bring all files of the folder to one form"
                )
    return Shards([part for each in (first, *others) for part in each.parts], first.stored, first.data_shape)


def _opened(path: Path) -> Shards:
    """The array of one file, not read."""
    with reading(path, _REMEDY), path.open("rb") as file:
        shape, fortran, stored = header(file)
        offset, now = file.tell(), written(os.fstat(file.fileno()))
    if stored.hasobject or not shape or (fortran and len(shape) > 1):
        order = "in Fortran's order" if fortran else "of numbers (N, ...) in no known form"
        raise InputError(f"expected a .npy file of numbers (N, ...), got {path}, {order}: {_REMEDY}")
    needed = offset + torch.Size(shape).numel() * stored.itemsize
    if now[1] < needed:
        raise InputError(f"expected a whole file {path} of {needed:,} bytes, got {now[1]:,}: write it anew")
    return Shards((Shard(path, offset, shape[0], now),), stored, torch.Size(shape[1:]))


def check_beside(data: Shards, field: Shards) -> None:
    """Refuse a field whose files are not those of its data: of the same names, and as many rows each.

    Raises:
        InputError: naming the first file that differs.
    """
    rows = {part.path.name: part.rows for part in field.parts}
    folder = field.parts[0].path.parent
    for part in data.parts:
        got = rows.pop(part.path.name, None)
        if got != part.rows:
            raise InputError(
                f"expected {folder / part.path.name} of {part.rows} data beside {part.path}, got "
                f"{'no such file' if got is None else got}: cut both at the same places"
            )
    if rows:
        raise InputError(
            f"expected the files of {data.parts[0].path.parent}, got {folder / next(iter(rows))} beside "
            "none: remove it, or put its data back"
        )
