"""The values of a data set before they take a form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from pyro_vae.data.stored import Values, blocks, extremes
from pyro_vae.errors import warn

#: Splits of so many numbers, of which one has none above 1 and another this one, are of two scales.
_ENOUGH, _OTHER_SCALE = 5000, 15


@dataclass(frozen=True, eq=False)
class RawValues:
    """The values of a data set before they take a form, as `Likelihood.form_for` sees them.

    Attributes:
        by_split: (N, *data_shape) by the name of the split, of uint8, int32 or float32.
        named_maximum: The value that means 1, where the data set or the user says so.
        missing: Whether NaN stands for entries that were not observed.
        seed: Seed of fixed draws.

    >>> raw = RawValues({"train": torch.tensor([[0, 3], [16, 1]], dtype=torch.uint8)}, 16.0)
    >>> raw.whole, raw.bits, raw.levels
    (True, False, 17)
    """

    by_split: Mapping[str, Values]
    named_maximum: float | None = None
    missing: bool = False
    seed: int = 0

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of all splits."""
        found = {name: extremes(values) for name, values in self.by_split.items() if len(values)}
        self._note_scales({name: high for name, (low, high) in found.items() if low >= 0})
        low, high = zip(*found.values(), strict=True)
        return min(low), max(high)

    def _note_scales(self, highest: Mapping[str, float]) -> None:
        """Say so where one split looks divided by its largest value, and another does not."""
        large = {each: high for each, high in highest.items() if self._numbers(each) >= _ENOUGH}
        first = large.pop("train", None)
        for name, high in large.items():
            if first is not None and min(high, first) <= 1 and max(high, first) >= _OTHER_SCALE:
                warn(
                    f"train has values up to {first:g} and {name} up to {high:g}: bring the splits to one "
                    "scale, unless they are meant so"
                )
                return

    def _numbers(self, split: str) -> int:
        return math.prod(self.by_split[split].shape)

    @property
    def dtype(self) -> torch.dtype:
        """As they are stored."""
        return self.by_split["train"].dtype

    @property
    def data_shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.by_split["train"].shape[1:]

    @cached_property
    def whole(self) -> bool:
        """Whether they are whole numbers from 0: by their type, or by value where NaN needs floats."""
        if self.dtype.is_floating_point and not self.missing:
            return False
        return self.ends[0] >= 0 and self.all_whole

    @cached_property
    def all_whole(self) -> bool:
        """Whether all values are whole numbers, by value."""
        if not self.dtype.is_floating_point:
            return True
        return all(
            bool((block.isnan() | (block == block.round())).all())
            for values in self._parts
            for block in blocks(values)
        )

    @cached_property
    def bits(self) -> bool:
        """Whether there is nothing but 0 and 1, of what type ever."""
        return self.ends[0] >= 0 and self.ends[1] <= 1 and self.all_whole

    @cached_property
    def maximum(self) -> float:
        """The value that means 1: 255 of bytes, the highest of other whole numbers, 1 of bits and floats."""
        if self.named_maximum is not None:
            return float(self.named_maximum)
        if self.dtype.is_floating_point or self.bits:
            return 1.0  # bytes that are bits would as grey levels be all but black
        return 255.0 if self.dtype == torch.uint8 else self.ends[1]

    @cached_property
    def levels(self) -> int | None:
        """Number of levels 0 … maximum of whole numbers; None where they are others."""
        fits = self.maximum == int(self.maximum) and self.whole and self.ends[1] <= self.maximum
        return int(self.maximum) + 1 if fits else None

    @property
    def _parts(self) -> list[Values]:
        return [values for values in self.by_split.values() if len(values)]
