"""Reading files that others wrote, so that whatever is wrong with one becomes a line that names it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import SEEK_CUR
from pathlib import Path
from struct import unpack
from typing import Any, BinaryIO, Literal, TypedDict
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.checks import check_seed
from pyro_vae.data.fields import SPLITS, Fields
from pyro_vae.data.stored import Rows, Values
from pyro_vae.errors import InputError, one_line

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ENCRYPTED = 1  # the flag of a member of a zip


class Parts(TypedDict, total=False):
    """Splits and their fields, as `Dataset` takes them."""

    train: Values
    valid: Values
    test: Values
    fields: dict[str, dict[str, Tensor]]


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn an exception from inside the block into an `InputError` that names `path`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise InputError(f"expected a readable file, got {path} ({flat(error)}): {remedy}") from error


def flat(error: Exception) -> str:
    """Return type and text of an exception on one line."""
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def existing(path: Path, remedy: str) -> Path:
    """Return `path`, or refuse it where it is no file."""
    if not path.is_file():
        raise InputError(f"expected the file {path}, found none: {remedy}")
    return path


def load_array_file(path: Path, remedy: str, *, mapped: bool = False) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz by name, or the one array of an .npy under the name "array".

    Where `mapped`, arrays that are not compressed are mapped from the file, to be read where they are used;
    an .npz is read through once all the same, for its check sums.
    """
    no_pickle = f"{remedy} (pickled objects are refused, since loading them can run any code)"
    # opened here, since NumPy leaves a damaged .npz open
    with reading(path, no_pickle), path.open("rb") as file:
        shape, _, dtype = header(file)
        if mapped and not dtype.hasobject and 0 not in shape:
            return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        found = _mapped_members(path, file) if mapped else {}
        return {name: found[name] if name in found else loaded[name] for name in loaded.files}


def header(file: BinaryIO) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """Shape, whether in Fortran's order, and type of the .npy that begins here; of objects where unknown."""
    unknown = (), False, np.dtype(object)
    try:
        read = _HEADERS.get(np.lib.format.read_magic(file))
        return read(file) if read else unknown
    except ValueError:
        return unknown


def _mapped_members(path: Path, file: BinaryIO) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz that lie in it as they are, mapped."""
    found: dict[str, NDArray[Any]] = {}
    with ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != ZIP_STORED or member.flag_bits & _ENCRYPTED:
                continue
            with archive.open(member) as content:
                while content.read(2**20):
                    pass  # a wrong check sum is refused at the end
            file.seek(member.header_offset + 26)
            name_length, extra_length = unpack("<HH", file.read(4))
            file.seek(name_length + extra_length, SEEK_CUR)
            shape, fortran, dtype = header(file)
            if not dtype.hasobject and 0 not in shape:
                order: Literal["C", "F"] = "F" if fortran else "C"
                mapped = np.memmap(path, dtype, "r", file.tell(), shape, order)
                found[member.filename.removesuffix(".npy")] = mapped
    return found


def array_in(path: Path) -> NDArray[Any]:
    """Return the one array of a .npy, read where it is used, or of an .npz.

    Raises:
        InputError: The file is missing, damaged, or holds pickled objects or several arrays.
    """
    remedy = "save one plain array of numbers with numpy.save"
    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"expected a .npy or .npz file, got {path}: {remedy}")
    if path.suffix == ".npy":
        with reading(existing(path, "check the path"), remedy):
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return array
    arrays = load_array_file(existing(path, "check the path"), remedy)
    if len(arrays) != 1:
        raise InputError(f"expected one array in {path}, got {', '.join(arrays) or 'none'}: {remedy}")
    return next(iter(arrays.values()))


def arrays_in(path: Path, beside: Sequence[str]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the one array of a file, and those of the names in `beside` that lie beside it in an .npz.

    Raises:
        InputError: As `array_in`; one of `beside` is missing.
    """
    if not beside:
        return array_in(path), {}
    remedy = f"save the data, of any other name, and {', '.join(beside)} with numpy.savez"
    if path.suffix != ".npz":
        raise InputError(
            f"expected an .npz file with {', '.join(beside)} beside the data, got {path}: {remedy}"
        )
    arrays = load_array_file(existing(path, "check the path"), remedy, mapped=True)
    data = [name for name in arrays if name not in beside]
    if len(data) != 1 or len(arrays) != 1 + len(beside):
        raise InputError(
            f"expected one array of data, and {', '.join(beside)}, in {path}, got "
            f"{', '.join(arrays) or 'none'}: {remedy}"
        )
    return arrays[data[0]], {name: arrays[name] for name in beside}


def load_mat(path: Path, names: tuple[str, ...], remedy: str) -> list[NDArray[Any]]:
    """Return the named arrays of a MATLAB file."""
    from scipy.io import loadmat  # slow to import

    with reading(path, remedy):
        contents = loadmat(path)
    return named(
        {key: value for key, value in contents.items() if not key.startswith("__")}, names, path, remedy
    )


def named(
    arrays: dict[str, NDArray[Any]], names: tuple[str, ...], path: Path, remedy: str
) -> list[NDArray[Any]]:
    """Return the arrays of these names, or refuse a file that has others."""
    if any(name not in arrays for name in names):
        raise InputError(
            f"expected arrays named {', '.join(names)} in {path}, got {', '.join(arrays) or 'none'}: {remedy}"
        )
    return [arrays[name] for name in names]


def cut(values: Values, fields: Fields, num_valid: int, num_test: int) -> Parts:
    """Cut data in their own order into train, valid and test, in this order."""
    sizes = [len(values) - num_valid - num_test, num_valid, num_test]
    if isinstance(values, Rows):
        train, valid, test = (replace(values, index=index) for index in values.index.split(sizes))
    else:
        train, valid, test = values.split(sizes)
    cuts = {name: dict(zip(SPLITS, tensor.split(sizes), strict=True)) for name, tensor in fields.items()}
    beside: dict[str, dict[str, Tensor]] = {
        split: {name: parts[split] for name, parts in cuts.items()} for split in SPLITS
    }
    return Parts(train=train, valid=valid, test=test, fields=beside)


def shuffled(values: Values, fields: Fields, seed: int) -> tuple[Values, Fields]:
    """Permute data and fields by `numpy.random.RandomState(seed)`."""
    check_seed(seed)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(values)))
    chosen = values.take(order) if isinstance(values, Rows) else values[order]
    return chosen, {name: tensor[order] for name, tensor in fields.items()}


def cut_by_seed(values: Values, fields: Fields, seed: int, where: Path) -> Parts:
    """Permute by the seed, then take 80 % for train and a tenth, rounded down, for each of valid and test."""
    tenth = len(values) // 10
    if tenth == 0:
        raise InputError(
            f"expected at least 10 data to split 80/10/10, got {len(values)} in {where}: give more"
        )
    return cut(*shuffled(values, fields, seed), tenth, tenth)
