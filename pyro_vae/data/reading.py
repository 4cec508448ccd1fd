"""Reading files that others wrote, so that whatever is wrong with one becomes a line that names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.checks import check_seed
from pyro_vae.errors import InputError, one_line


class Parts(TypedDict, total=False):
    """Splits and labels, as `Dataset` takes them."""

    train: Tensor
    valid: Tensor
    test: Tensor
    train_labels: Tensor
    valid_labels: Tensor
    test_labels: Tensor


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


def load_array_file(path: Path, remedy: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz by name, or the one array of an .npy under the name "array"."""
    no_pickle = f"{remedy} (pickled objects are refused, since loading them can run any code)"
    # opened here, since NumPy leaves a damaged .npz open
    with reading(path, no_pickle), path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        return {name: loaded[name] for name in loaded.files}


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


def cut(values: Tensor, labels: Tensor | None, num_valid: int, num_test: int) -> Parts:
    """Cut data in their own order into train, valid and test, in this order."""
    sizes = [len(values) - num_valid - num_test, num_valid, num_test]
    train, valid, test = values.split(sizes)
    parts = Parts(train=train, valid=valid, test=test)
    if labels is not None:
        parts["train_labels"], parts["valid_labels"], parts["test_labels"] = labels.split(sizes)
    return parts


def shuffled(values: Tensor, labels: Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Permute data and labels by `numpy.random.RandomState(seed)`."""
    check_seed(seed)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(values)))
    return values[order], None if labels is None else labels[order]


def cut_by_seed(values: Tensor, labels: Tensor | None, seed: int, where: Path) -> Parts:
    """Permute by the seed, then take 80 % for train and a tenth, rounded down, for each of valid and test."""
    tenth = len(values) // 10
    if tenth == 0:
        raise InputError(
            f"expected at least 10 data to split 80/10/10, got {len(values)} in {where}: give more"
        )
    return cut(*shuffled(values, labels, seed), tenth, tenth)
