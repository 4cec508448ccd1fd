"""What arrays a data set accepts, and the one line said about any other."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.stored import Rows, Values, blocks, extremes
from pyro_vae.errors import InputError, is_seed

Array = NDArray[Any] | Tensor


def as_values(array: Array | Rows, where: str, *, missing: bool = False) -> Values:
    """Return uint8 or float32 (N, C, H, W) or (N, D) on the CPU; `where` names the array in errors.

    NaN is refused, but where `missing` says that it stands for what was not observed.
    """
    if isinstance(array, Rows):  # checked where it was made
        return array
    values = _plain(array, where)
    if values.ndim not in (2, 3, 4) or 0 in values.shape[1:]:
        raise InputError(
            f"expected {where} of shape (N, H, W), (N, C, H, W) or (N, D), got {tuple(values.shape)}:"
            " reshape it"
        )
    _check_finite(values, where, missing)
    values = values.unsqueeze(1) if values.ndim == 3 else values  # (N, H, W) -> (N, 1, H, W)
    return Rows(values, torch.arange(len(values))) if _is_mapped(array) else values


def _plain(array: Array, where: str) -> Tensor:
    if not isinstance(array, (np.ndarray, Tensor)):
        raise InputError(
            f"expected {where} as a NumPy array or a tensor, got {type(array).__name__}: use numpy.asarray"
        )
    if array.dtype not in (torch.bool, torch.uint8, np.bool_, np.uint8) and not _is_float(array):
        raise InputError(
            f"expected {where} of dtype uint8, bool or float, got {array.dtype}: convert it with"
            " .astype('uint8') if its values are 0..255, else with .astype('float32')"
        )
    tensor = array.detach().cpu() if isinstance(array, Tensor) else _from_numpy(array)
    return tensor.float() if tensor.is_floating_point() else tensor.to(torch.uint8)


def _is_float(array: Array) -> bool:
    return array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"


def _is_mapped(array: Array) -> bool:
    """Whether values are used as they lie in a file, without a copy in memory."""
    if not isinstance(array, np.memmap):
        return False
    plain = array.dtype in (np.uint8, np.float32) and array.dtype.isnative
    return plain and array.flags.c_contiguous


def _from_numpy(array: NDArray[Any]) -> Tensor:
    if _is_mapped(array):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # `Rows` only reads it
            return torch.from_numpy(array)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold is counted as infinite by the next check
            array = array.astype(np.float32, copy=False)
    # torch has no negative strides, and warns of read-only memory
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _check_finite(values: Tensor, where: str, missing: bool) -> None:
    def refused(block: Tensor) -> Tensor:
        return block.isinf() if missing else block.isfinite().logical_not_()

    if not values.is_floating_point() or not any(bool(refused(block).any()) for block in blocks(values)):
        return
    bad = refused(values).flatten().nonzero()
    first = tuple(int(i) for i in np.unravel_index(int(bad[0]), values.shape))
    kind = "infinite" if missing else "NaN or infinite"
    remedy = "remove or replace them"
    if not missing and bool(values[first].isnan()):
        remedy += ", or give missing=True (--data.missing true) where NaN means not observed"
    raise InputError(
        f"expected finite values{' or NaN' if missing else ''}, got {len(bad)} {kind} in {where}, the first"
        f" at index {first}: {remedy}"
    )


def check_observed(values: Mapping[str, Values]) -> None:
    """Refuse data of which nothing is observed."""
    for name, tensor in values.items():
        if not tensor.dtype.is_floating_point:
            continue
        empty = torch.cat([torch.zeros(0), *(block.isnan().flatten(1).all(1) for block in blocks(tensor))])
        if bool(empty.any()):
            raise InputError(
                f"expected at least one observed entry in each datum, got {int(empty.sum())} without any in"
                f" {name}, the first at index {int(empty.nonzero()[0])}: leave these data out"
            )


def as_labels(labels: Array | None, values: Values | None, split: str) -> Tensor | None:
    """Return `labels` as int64 (N,), one per datum of `values`."""
    if labels is None:
        return None
    numbers = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if numbers.dtype.kind not in "biu" or numbers.ndim != 1:
        raise InputError(
            f"expected whole numbers of shape (N,) as labels of {split}, got {numbers.dtype} {numbers.shape}:"
            " number the classes 0, 1, ..."
        )
    num_data = 0 if values is None else len(values)
    if len(numbers) != num_data:
        raise InputError(
            f"expected {num_data} labels, one per datum of {split}, got {len(numbers)}:"
            " take both from one source"
        )
    return torch.from_numpy(numbers.astype(np.int64))


def check_alike(values: Mapping[str, Values]) -> None:
    """Refuse an empty training split, and splits of different data shape or dtype."""
    train = values["train"]
    if len(train) == 0:
        raise InputError(
            f"expected at least one training datum, got an array of shape {tuple(train.shape)}: give data"
        )
    for name, other in values.items():
        if other.shape[1:] != train.shape[1:] or other.dtype != train.dtype:
            raise InputError(
                f"expected {name} of data shape {tuple(train.shape[1:])} and {train.dtype} like train,"
                f" got {tuple(other.shape[1:])} and {other.dtype}: bring the splits to one form"
            )


def check_grey(values: Mapping[str, Values], maximum: float, binarization: str) -> None:
    """Refuse values outside [0, maximum], which are no probabilities to binarise with."""
    for name, tensor in values.items():
        if len(tensor) == 0:
            continue
        low, high = (end / maximum for end in extremes(tensor))
        if low < 0 or high > 1:
            raise InputError(
                f"expected grey values in [0, 1] for binarization '{binarization}', got [{low:g}, {high:g}]"
                f" in {name} after division by {maximum:g}: rescale the values, give the `maximum` that"
                " means 1, or use binarization 'none'"
            )


def check_levels(values: Mapping[str, Values], maximum: float, levels: int | None) -> None:
    """Refuse to dequantise data that have no levels: floats, or bytes that are not 0 … maximum."""
    if levels is None:
        dtype, high = values["train"].dtype, max(extremes(v)[1] for v in values.values() if len(v))
        raise InputError(
            "expected bytes from 0 to a whole maximum for binarization 'dequantised', got"
            f" {dtype} up to {high:g} with a maximum of {maximum:g}: convert them with .astype('uint8') and"
            " give the `maximum` that means 1, or use binarization 'none'"
        )


def check_seed(seed: int) -> int:
    """Return a seed; refused where NumPy's RandomState does not take it."""
    if not is_seed(seed):
        raise InputError(f"expected a seed from 0 to 4294967295 (2**32 - 1), got {seed}: choose another seed")
    return seed
