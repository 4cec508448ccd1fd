"""What `fit` takes as data: a data set, or a tensor as it is."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError


class Splits(NamedTuple):
    """The three parts of the data."""

    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True, eq=False)
class TensorSplit(Split):
    """Data that are used as they are, whole numbers as whole numbers."""

    def batch(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Tensor:
        """The data at `index`, in their own type: (B, *data_shape)."""
        return self.stored[index]


def splits_of(data: Dataset | Tensor) -> Splits:
    """The parts of a data set; a tensor is training data and nothing else.

    Raises:
        InputError: where it is neither, or a tensor without data or of 16 bits.
    """
    if isinstance(data, Dataset):
        return Splits(data.train, data.valid, data.test)
    if not isinstance(data, Tensor):
        raise InputError(
            f"fit expects data as a Dataset or a tensor (N, *data_shape), got {type(data).__name__}: use "
            "torch.as_tensor on an array, and Dataset(train, valid) for a validation split"
        )
    values = Batch(data.detach()).x
    return Splits(TensorSplit(values), TensorSplit(values[:0]), TensorSplit(values[:0]))
