"""Bits of grey values, and fixed draws of noise, a block at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.raw import RawValues
from pyro_vae.data.stored import Rows, Values

_DRAWN_AT_ONCE = 2**22  # values per block of a fixed draw: 32 MiB of noise


def bits_above(raw: RawValues, values: Values) -> Tensor:
    """Bits (N, *data_shape): 1 where a value is above half of the maximum."""
    above = _bits(lambda block: block > raw.maximum / 2, raw.missing)
    return _in_blocks(values, _type_of_bits(values, raw.missing), above)


def _type_of_bits(values: Values, missing: bool) -> torch.dtype:
    return torch.float32 if missing and values.dtype.is_floating_point else torch.uint8


def _bits(make: Callable[[Tensor], Tensor], missing: bool) -> Callable[[Tensor], Tensor]:
    """Return `make`, with NaN left where it is."""
    if not missing:
        return make
    return lambda block: torch.where(block.isnan(), torch.nan, make(block).to(torch.float32))


def drawn_bits(raw: RawValues, values: Values, stream: int) -> Tensor | Rows:
    """Bits (N, *data_shape) drawn from RandomState([seed, stream])."""
    if values.dtype == torch.uint8 and raw.maximum == 1:
        return values  # bits are their own draw
    dtype = _type_of_bits(values, raw.missing)

    def draw(stored: NDArray[Any], noise: NDArray[Any]) -> NDArray[Any]:
        drawn = noise < stored / raw.maximum
        return drawn if dtype == torch.uint8 else np.where(np.isnan(stored), np.nan, drawn)

    return with_noise(values, [raw.seed, stream], dtype, draw)


def with_noise(
    values: Values,
    seed: list[int],
    dtype: torch.dtype,
    draw: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Tensor:
    """Return `draw(values, noise)` in float64, stored as `dtype`; made in blocks, which keep the stream."""
    random = np.random.RandomState(seed)

    def make(block: Tensor) -> Tensor:
        stored = block.numpy().astype(np.float64)
        return torch.from_numpy(draw(stored, random.random_sample(stored.shape)))

    return _in_blocks(values, dtype, make)


def _in_blocks(values: Values, dtype: torch.dtype, make: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `make(values)`, one after the other for a few rows."""
    made = torch.empty(values.shape, dtype=dtype)
    rows = max(1, _DRAWN_AT_ONCE // values.shape[1:].numel())
    for start in range(0, len(values), rows):
        made[start : start + rows] = make(values[start : start + rows])
    return made
