"""What a model, and a report, must know of data that are not at hand."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args

import torch

from pyro_vae.data.checks import Array, as_values
from pyro_vae.data.dataset import Binarization, Dataset
from pyro_vae.data.splits import Sizes, Split
from pyro_vae.errors import InputError


@dataclass(frozen=True, eq=False)
class DataFacts:
    """What is kept of a data set beside a trained model: names and numbers of `Dataset` of the same names.

    >>> from pyro_vae import Digits
    >>> facts = DataFacts.of(Digits())
    >>> facts.data_shape, facts.levels
    (torch.Size([1, 8, 8]), 2)
    """

    name: str
    data_shape: torch.Size
    sizes: Sizes
    levels: int | None
    bin_width: float | None
    protocol: str
    binarization: Binarization
    seed: int
    maximum: float
    missing: bool = False

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """Those of a data set."""
        return cls(**{field.name: getattr(data, field.name) for field in fields(cls)})

    @classmethod
    def from_plain(cls, content: Any) -> Self:
        """What `plain` gave.

        Raises:
            InputError: where `content` is something else.
        """
        try:
            found = cls(
                **{
                    **content,
                    "data_shape": torch.Size(content["data_shape"]),
                    "sizes": Sizes(*content["sizes"]),
                }
            )
            numbers = (*found.data_shape, *found.sizes, found.levels or 0, found.seed)
            fine = (
                all(isinstance(each, int) and 0 <= each < 2**40 for each in numbers)
                and all(isinstance(each, str) for each in (found.name, found.protocol))
                and (found.bin_width is None or 0 < found.bin_width <= 1)
                and found.binarization in get_args(Binarization)
                and 0 < found.maximum < math.inf
                and isinstance(found.missing, bool)
            )
        except (KeyError, TypeError, ValueError):
            fine = False
        if not fine:
            raise InputError("expected facts about data, got something else")
        return found

    def test(self, values: Array, where: str) -> Split:
        """New data as a test split of the same data set would be: (N, *data_shape).

        Args:
            values: As they are stored, in the type that the training data had.
            where: What the values are called in an error.

        Raises:
            InputError: where their shape, type or range is another.
        """
        tensor = as_values(values, where, missing=self.missing)
        if tensor.shape[1:] != self.data_shape:
            raise InputError(
                f"expected data of shape {tuple(self.data_shape)} as in training, got "
                f"{tuple(tensor.shape[1:])} in {where}: give data of that shape"
            )
        like = Dataset(
            tensor,
            None,
            tensor,
            binarization=self.binarization,
            seed=self.seed,
            maximum=self.maximum,
            missing=self.missing,
        )
        by_chance = self.missing and self.levels is None  # real numbers may happen to be whole
        if like.levels != self.levels and not by_chance:
            raise InputError(
                f"expected {_kind(self.levels)} as in training, got {_kind(like.levels)} in {where}: "
                "convert them, as with .astype"
            )
        return like.test

    def plain(self) -> Mapping[str, Any]:
        """The same as numbers, words and lists."""
        return {**asdict(self), "data_shape": list(self.data_shape), "sizes": list(self.sizes)}


def _kind(levels: int | None) -> str:
    return "real numbers" if levels is None else f"bytes of {levels} levels"
