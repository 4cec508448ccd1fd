"""Data sets and loaders of `torch.utils.data`."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pyro_vae.data.dataset import Dataset
from pyro_vae.data.forms import Form
from pyro_vae.data.stored import Rows
from pyro_vae.data.torch_items import Items
from pyro_vae.errors import InputError
from pyro_vae.randomness import own_randomness


class TorchData(Dataset):
    """A data set or a `DataLoader` of `torch.utils.data`, with its augmentation and its own format.

    Training data are made item by item while they are trained on; nothing of them is kept. Of a data set,
    each item is taken once in an epoch, in an order that the seed of `fit` gives; of a `DataLoader`, as its
    sampler says, by its workers, its batches being cut anew to the batch size of `fit`. Validation and test
    data are read once, into memory, so that their nats and their hash are those of an array.

    What it cannot promise: items may be others at each use, so that training data have no hash, and a
    training that is resumed need not be that without a break to the last bit. Draws from torch's global
    generator are seeded by epoch and batch, and change no other draws; those of NumPy and Python are not.

    All training data are read once more before training, to hold them against the model, and once where a
    form or an initial bias needs their mean or their range. An item is x, of shape (D,), (H, W) or (C, H, W),
    or a tuple of x and fields, or a dictionary with `x` and fields.

    Args:
        train: A data set with `__len__` and `__getitem__`, or a `DataLoader` of one.
        valid: The same; None for none.
        test: The same; None for none.
        names: Of the fields that follow x in an item, as `("label",)`; they are read once before.
        given: Fields that programs get beside x; by default all but `label`.
        form: How values become x; by default `Levels` of bytes, `Counts` of other whole numbers, and
            `AsGiven` of floats and bits.
        seed: Of the draws of validation and test data, and of fixed draws of the form.
        maximum: The value that means 1.
        missing: Whether NaN means not observed; without it NaN is refused.

    Raises:
        InputError: where there are no items by number, or one cannot be made, or has not what is named.

    >>> from torch.utils.data import TensorDataset
    >>> data = TorchData(TensorDataset(torch.eye(4), torch.arange(4)), names=("label",), given=("label",))
    >>> data.sizes, data.train.hash()
    (Sizes(train=4, valid=0, test=0), 'not hashed: 4 of TensorDataset')
    >>> data.field_kinds
    {'label': FieldKind(shape=(), classes=4)}
    """

    def __init__(
        self,
        train: Any,
        valid: Any | None = None,
        test: Any | None = None,
        *,
        names: Sequence[str] = (),
        given: Sequence[str] | None = None,
        form: Form | None = None,
        seed: int = 0,
        maximum: float | None = None,
        missing: bool = False,
    ) -> None:
        names = (names,) if isinstance(names, str) else tuple(names)
        self.items = Items(train, names, "train", missing, seed)
        fields = {"train": self._fields_of_train()}
        values: dict[str, Tensor] = {}
        for split, found in (("valid", valid), ("test", test)):
            if found is not None:
                x, *beside = _in_memory(Items(found, names, split, missing, seed), seed)
                values[split], fields[split] = x, dict(zip(names, beside, strict=True))
        super().__init__(
            Rows(self.items, self.items.places),
            values.get("valid"),
            values.get("test"),
            form=form,
            seed=seed,
            maximum=maximum,
            missing=missing,
            fields=fields,
            given=given,
        )

    def _fields_of_train(self) -> dict[str, Tensor]:
        """What lies beside all training data, by name."""
        if not self.items.names:
            return {}
        parts = [beside for _, *beside in self.items.in_order()]
        return {
            name: torch.cat(tensors)
            for name, tensors in zip(self.items.names, zip(*parts, strict=True), strict=True)
        }

    def with_labels(self, num: int | None = None, *, seed: int = 0) -> Self:
        """As `Dataset.with_labels`, of a data set, not of a loader.

        Raises:
            InputError: of a `DataLoader`, whose order only itself knows.
        """
        if self.items.loader is not None:
            raise InputError(
                "with_labels expects training data in an order that fit knows, got a DataLoader: give its "
                "data set, TorchData(loader.dataset, ...)"
            )
        return super().with_labels(num, seed=seed)


def _in_memory(items: Items, seed: int) -> list[Tensor]:
    """All of one epoch, x and its fields, (N, …) each."""
    order = torch.arange(len(items.places))
    with own_randomness(seed, torch.device("cpu")):
        parts = list(items.epoch(order, 256, seed))
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
