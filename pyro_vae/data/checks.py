"""What arrays a data set accepts, and the one line said about any other."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.shards import Shards, shards_of_map
from pyro_vae.data.stored import Rows, Values, blocks
from pyro_vae.errors import InputError, is_seed, warn

Array = NDArray[Any] | Tensor

_EXACT = 2**24  # the whole numbers that float32 has exactly


def as_values(array: Array | Rows | Shards, where: str, *, missing: bool = False) -> Values:
    """Return uint8, int32 or float32 (N, C, H, W) or (N, D) on the CPU; `where` names the array in errors.

    NaN is refused, but where `missing` says that it stands for what was not observed.
    """
    if isinstance(array, Rows):  # checked where it was made
        return array
    there = _in_files(array)
    values = _plain(array, where) if there is None else there
    if values.ndim not in (2, 3, 4) or 0 in values.shape[1:]:
        raise InputError(
            f"expected {where} of shape (N, H, W), (N, C, H, W) or (N, D), got {tuple(values.shape)}:"
            " reshape it"
        )
    in_files = isinstance(values, Shards) or _is_mapped(array)
    places = torch.arange(len(values) if in_files else 0)
    read = values if isinstance(values, Tensor) else Rows(values, places)
    _check_finite(read, where, missing)
    if isinstance(values, Shards) and values.stored.kind in "iu" and values.stored.itemsize > 2:
        _check_whole(read, where)
    if values.ndim == 3:  # (N, H, W) -> (N, 1, H, W)
        values = values.unsqueeze(1) if isinstance(values, Tensor) else values.as_pictures()
    return values if isinstance(values, Tensor) and not in_files else Rows(values, places)


def _in_files(array: Array | Shards) -> Shards | None:
    """The data where they can stay in their files."""
    if isinstance(array, Shards):
        return array
    return shards_of_map(array) if isinstance(array, np.ndarray) and _is_mapped(array) else None


def _plain(array: Array | Shards, where: str) -> Tensor:
    if not isinstance(array, (np.ndarray, Tensor)):
        raise InputError(
            f"expected {where} as a NumPy array or a tensor, got {type(array).__name__}: use numpy.asarray"
        )
    kind = _kind(array)
    if kind not in "biuf":
        raise InputError(
            f"expected {where} of whole numbers, bool or float, got {array.dtype}: convert it with .astype"
        )
    tensor = array.detach().cpu() if isinstance(array, Tensor) else _from_numpy(array, where)
    if kind == "f":
        if tensor.dtype == torch.float64:
            check_rounding(tensor, where)
        return tensor.float()
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else _whole(tensor, where)


def _kind(array: Array) -> str:
    """b, i, u or f as NumPy's kinds, or another letter."""
    if not isinstance(array, Tensor):
        return array.dtype.kind
    if array.is_complex() or array.is_quantized:
        return "c"
    return "f" if array.is_floating_point() else "b" if array.dtype == torch.bool else "i"


def _whole(tensor: Tensor, where: str) -> Tensor:
    """Whole numbers as bytes, or as int32 where they were of another width."""
    if tensor.dtype == torch.uint8:
        return tensor
    _check_whole(tensor, where)
    return tensor.to(torch.int32)


def _check_whole(values: Values, where: str) -> None:
    """Refuse whole numbers that float32 would round."""
    ends = [end for block in blocks(values) for end in block.to(torch.int64).aminmax()]
    low, high = (int(pick(ends)) for pick in (min, max)) if ends else (0, 0)
    if max(-low, high) > _EXACT:
        raise InputError(
            f"expected whole numbers up to 2**24 = {_EXACT:,}, which float32 has exactly, got {low} to "
            f"{high} in {where}: give them in other units, or as float32 where they need not be exact"
        )


def note_channels(shape: Sequence[int], where: str) -> None:
    """Say so where (N, H, W, C) is taken as (N, C, H, W)."""
    if channels_last(shape):
        high, wide, channels = shape[1:]
        warn(
            f"{where} of shape {tuple(shape)} are taken as pictures of {high} channels and {wide} x "
            f"{channels} pixels: where they are (N, H, W, C), use numpy.moveaxis(a, -1, 1)"
        )


def channels_last(shape: Sequence[int]) -> bool:
    """Whether data look like (N, H, W, C)."""
    return len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] > 4


def check_rounding(tensor: Tensor, where: str) -> None:
    """Refuse columns whose spread is lost in float32, as of seconds since 1970."""
    if tensor.ndim != 2 or not len(tensor):
        return
    error = (tensor.float().double() - tensor).abs().nan_to_num(0.0, posinf=0.0).amax(0)
    centre = tensor.nanmean(0)
    spread = (tensor - centre).square().nanmean(0).sqrt()
    lost = (error > 0.01 * spread) & (spread > 1e-10 * centre.abs())
    if bool(lost.any()):
        column = int(lost.nonzero()[0])
        raise InputError(
            f"expected numbers that float32 tells apart, got column {column} of {where} about "
            f"{float(centre[column]):.10g} with a deviation of {float(spread[column]):.3g}: subtract its mean"
        )


def _is_mapped(array: Array | Shards) -> bool:
    """Whether values are used as they lie in a file, without a copy in memory."""
    if not isinstance(array, np.memmap):
        return False
    plain = array.dtype in (np.uint8, np.int32, np.float32) and array.dtype.isnative
    return plain and array.flags.c_contiguous


def _from_numpy(array: NDArray[Any], where: str) -> Tensor:
    if _is_mapped(array):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # `Rows` only reads it
            return torch.from_numpy(array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        wide = array.ndim == 2 and size == 8  # to be held against float32
        with np.errstate(over="ignore"):  # what float32 cannot hold is counted as infinite by the next check
            array = array.astype(np.float64 if wide else np.float32, copy=False)
    elif kind in "iu" and size > 1:  # torch has few unsigned types, and none of other byte orders
        if kind == "u" and size == 8 and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise InputError(f"expected whole numbers up to 2**24, got {int(array.max())} in {where}")
        array = array.astype(np.int32 if array.dtype == np.int32 else np.int64, copy=False)
    # torch has no negative strides, and warns of read-only memory
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _check_finite(values: Values, where: str, missing: bool) -> None:
    if not values.dtype.is_floating_point:
        return
    num, seen, first, kept = 0, 0, 0, 0.0
    for block in blocks(values):
        bad = block.isinf() if missing else block.isfinite().logical_not_()
        if bool(bad.any()):
            if not num:
                place = int(bad.flatten().nonzero()[0])
                first, kept = seen + place, float(block.flatten()[place])
            num += int(bad.sum())
        seen += block.numel()
    if num:
        index = tuple(int(i) for i in np.unravel_index(first, values.shape))
        raise _not_finite(
            f"{num} {'infinite' if missing else 'NaN or infinite'}", index, kept, where, missing
        )


def _not_finite(what: str, first: tuple[int, ...], value: float, where: str, missing: bool) -> InputError:
    remedy = "remove or replace them"
    if not missing and np.isnan(value):
        remedy += ", or give missing=True (--data.missing true) where NaN means not observed"
    return InputError(
        f"expected finite values{' or NaN' if missing else ''}, got {what} in {where}, the first at index "
        f"{first}: {remedy}"
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


def check_seed(seed: int) -> int:
    """Return a seed; refused where NumPy's RandomState does not take it."""
    if not is_seed(seed):
        raise InputError(f"expected a seed from 0 to 4294967295 (2**32 - 1), got {seed}: choose another seed")
    return seed
