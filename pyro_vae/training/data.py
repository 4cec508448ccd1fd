"""What `fit` takes as data: a data set, or a tensor or an array as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from pyro_vae.batch import Batch, Given, is_per_datum
from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError

#: Of arrays that torch has a type for.
_NUMBERS = "biuf"


class Splits(NamedTuple):
    """The three parts of the data."""

    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True, eq=False)
class TensorSplit(Split):
    """Data that are used as they are, whole numbers as whole numbers.

    Attributes:
        constants: What programs get beside x that is the same for all data.
    """

    constants: Given = field(default_factory=dict)

    def batch(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Tensor:
        """The data at `index`, in their own type: (B, *data_shape)."""
        return self.stored[index]

    def take(self, index: Tensor | slice = slice(None), generator: torch.Generator | None = None) -> Batch:
        """The data at `index`, and all that was given beside them."""
        batch = super().take(index, generator)
        return Batch(batch.x, {**batch.given, **self.constants}) if self.constants else batch

    def to(self, device: torch.device | str) -> Self:
        """All tensors on `device`."""
        constants = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.constants.items()
        }
        return replace(super().to(device), constants=constants)

    def _beside(self) -> Given:
        return {**super()._beside(), **self.constants}


def splits_of(data: Dataset | Batch | Tensor | np.ndarray[Any, Any]) -> Splits:
    """The parts of a data set; a tensor, an array or a batch is training data and nothing else.

    Raises:
        InputError: where it is none of them, or has no data, or is of 16 bits.
    """
    if isinstance(data, Dataset):
        return Splits(data.train, data.valid, data.test)
    if isinstance(data, Batch):
        return _training_data(data.with_tensors([tensor.detach() for tensor in data.tensors]))
    if isinstance(data, np.ndarray):
        data = _tensor(data)
    if not isinstance(data, Tensor):
        raise _no_data(type(data).__name__, _remedy(data, "data") + _or_as_items(data))
    return _training_data(Batch(data.detach()))


def _training_data(batch: Batch) -> Splits:
    """All of a batch as training data, and nothing else."""
    fields = {name: value for name, value in batch.given.items() if is_per_datum(value)}
    constants = {name: value for name, value in batch.given.items() if name not in fields}
    train = TensorSplit(batch.x, fields, given=tuple(fields), constants=constants)
    empty = replace(train, stored=batch.x[:0], fields={name: value[:0] for name, value in fields.items()})
    return Splits(train, empty, empty)


def _no_data(got: str, remedy: str) -> InputError:
    expected = "fit expects data as a Dataset, or as a tensor or an array (N, *data_shape)"
    return InputError(f"{expected}, got {got}: give {remedy}")


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """An array as a tensor, copied where torch could not write to it."""
    if array.dtype.kind not in _NUMBERS:
        raise _no_data(f"ndarray of {array.dtype}", "numbers")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))


def _remedy(data: Any, name: str) -> str:
    """What to give instead, as an expression of `name` where there is one."""
    if isinstance(data, torch.utils.data.DataLoader):
        return _remedy(data.dataset, f"{name}.dataset")
    if isinstance(data, torch.utils.data.TensorDataset):
        return f"{name}.tensors[0]"
    if isinstance(data, torch.utils.data.Dataset):
        return _stacked(data, name)
    if isinstance(data, Split):
        return f"{name}.values"
    if isinstance(data, type):
        return f"an instance, as {data.__name__}()" if issubclass(data, Dataset) else "data"
    if isinstance(data, str | Path):
        return _opened(str(data))
    if isinstance(data, Mapping):
        return "one of its arrays"
    if hasattr(data, "to_numpy"):
        return f"{name}.to_numpy()"
    return _of_sequence(data, name) if isinstance(data, list | tuple) and data else "data"


def _or_as_items(data: Any) -> str:
    """What reads items as they are used, for those that have numbers."""
    dataset = data.dataset if isinstance(data, torch.utils.data.DataLoader) else data
    is_stream = isinstance(dataset, torch.utils.data.IterableDataset)
    return ", or TorchData(data)" if isinstance(dataset, torch.utils.data.Dataset) and not is_stream else ""


def _stacked(data: Any, name: str) -> str:
    """All items of a data set of torch's as one tensor, by what its first one is."""
    try:
        first = next(iter(data))
    except Exception:  # of the user's own class
        first = None
    several = isinstance(first, list | tuple)
    item = first[0] if isinstance(first, list | tuple) and first else first
    if isinstance(item, Tensor):
        return f"torch.stack([x for x, *_ in {name}])" if several else f"torch.stack(list({name}))"
    items = f"x, *_ in {name}" if several else f"x in {name}"
    return f"torch.stack([torch.as_tensor(x) for {items}])"


def _opened(path: str) -> str:
    """The data set of a file or folder."""
    if path.endswith((".npy", ".npz")):
        return f"ArrayFile({path!r})"
    folder = f"ImageFolder({path!r})"
    return folder if Path(path).is_dir() else f"ArrayFile({path!r}) for a file .npy or .npz, or {folder}"


def _of_sequence(data: list[Any] | tuple[Any, ...], name: str) -> str:
    """A list of data as one tensor; a tuple of arrays are splits."""
    for kind, stack in ((Tensor, "torch.stack"), (np.ndarray, "numpy.stack")):
        if isinstance(data[0], kind):
            splits = isinstance(data, tuple) and len(data) <= 3
            return f"Dataset(*{name}) for train, valid and test" if splits else f"{stack}({name})"
    return f"torch.as_tensor({name})"
