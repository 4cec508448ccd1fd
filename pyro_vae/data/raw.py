"""The values of a data set before they take a form."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from pyro_vae.data.stored import Values, blocks, extremes


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
        low, high = zip(*(extremes(values) for values in self._parts), strict=True)
        return min(low), max(high)

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
