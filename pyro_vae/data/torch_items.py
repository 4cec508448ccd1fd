"""Items of a data set of `torch.utils.data`, as rows that are made when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from pyro_vae.data.checks import as_values
from pyro_vae.data.fields import as_field
from pyro_vae.errors import InputError
from pyro_vae.randomness import own_randomness

_CPU = torch.device("cpu")
#: Items that are made at once, where no loader says how many.
_AT_ONCE = 256

#: x and the fields beside it, (B, …) each.
Parts = list[Tensor]


@dataclass(frozen=True, eq=False)
class Items:
    """The items of a data set, or of a loader of one, x and what is named beside it.

    Attributes:
        items: As the user gives them.
        names: Of the fields that follow x in an item.
        where: What they are called in errors.
        missing: Whether NaN means not observed.
        seed: Of random numbers in items that are made out of turn, as for a check.
    """

    items: Any
    names: tuple[str, ...]
    where: str
    missing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        dataset = self.dataset
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise InputError(
                f"expected {self.where} as a torch data set with __len__ and __getitem__, or a DataLoader of "
                f"one, got {type(self.items).__name__}{self._of_what}: collect a stream by numpy.save into "
                "shards, and give ArrayFile(folder)"
            )
        if self.loader is not None and self.loader.batch_sampler is None:
            raise InputError(
                f"expected a DataLoader that makes batches as {self.where}, got one with batch_size=None: "
                "give it a batch_size, or its data set"
            )
        if not len(self.places):
            raise InputError(f"expected at least one datum in {self.where}, got none: give data")

    @property
    def _of_what(self) -> str:
        return "" if self.loader is None else f" of {type(self.dataset).__name__}"

    @property
    def loader(self) -> "DataLoader[Any] | None":
        """The user's own, whose order and batches are its own."""
        return self.items if isinstance(self.items, DataLoader) else None

    @property
    def dataset(self) -> Any:
        """The items, by number."""
        return self.items.dataset if isinstance(self.items, DataLoader) else self.items

    @cached_property
    def places(self) -> Tensor:
        """The numbers of the items that are data, (N,): all, or those of the loader's sampler."""
        if self.loader is None:
            return torch.arange(len(self.dataset))
        with own_randomness(self.seed, _CPU):
            sampled: Any = self.loader.batch_sampler
            return torch.tensor(sorted(int(place) for batch in sampled for place in batch))

    @property
    def unhashed(self) -> str:
        """What stands for a hash: items may be others at each use."""
        return f"not hashed: {len(self.places)} of {type(self.dataset).__name__}"

    @cached_property
    def first(self) -> Parts:
        """The first datum."""
        return self.checked(self._first_given)

    @cached_property
    def _first_given(self) -> Any:
        return self._made(self.places[:1])

    @property
    def shape(self) -> torch.Size:
        """(M, *data_shape), M being the number of items."""
        return torch.Size((len(self.dataset), *self.first[0].shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.first[0].dtype

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return _CPU

    @property
    def ends(self) -> tuple[float, float] | None:
        """The lowest and highest value of bytes and bits, by their type; None of others, to be read."""
        given = torch.as_tensor(self._parts(self._first_given)[0]).dtype
        return {torch.uint8: (0.0, 255.0), torch.bool: (0.0, 1.0)}.get(given)

    def __getitem__(self, index: Tensor) -> Tensor:
        """The data at `index`, (B, *data_shape)."""
        return self.read(index)[0] if len(index) else torch.empty((0, *self.shape[1:]), dtype=self.dtype)

    def read(self, index: Tensor) -> Parts:
        """The items at `index`, made here and now: x and its fields, (B, …) each."""
        return self.checked(self._made(index))

    def _made(self, index: Tensor) -> Any:
        """A batch as the data set and its loader make it."""
        collate = default_collate if self.loader is None else self.loader.collate_fn
        with own_randomness(self.seed, _CPU), self._errors():
            return collate([self.dataset[place] for place in index.tolist()])

    def in_order(self) -> Iterator[Parts]:
        """All data once, in the order of their numbers."""
        return (self.read(index) for index in self.places.split(_AT_ONCE))

    def epoch(self, order: Tensor, batch_size: int, seed: int) -> Iterator[Parts]:
        """The data of an epoch: in this order, or in that of the user's loader.

        What items and samplers draw from torch's global generator is drawn from `seed` on, and leaves other
        draws as they are.

        Args:
            order: Places among the data, (N,).
            batch_size: Data at once, where no loader says it.
            seed: Of the random numbers.
        """
        loader = self.loader
        if loader is None:
            loader = DataLoader(self.dataset, batch_size, sampler=self.places[order].tolist())
        number, batches = 0, None
        while True:
            with own_randomness((seed + number) % 2**63, _CPU), self._errors():
                batches = iter(loader) if batches is None else batches
                found = next(batches, None)
            if found is None:
                return
            number += 1
            yield self.checked(found)

    def checked(self, found: Any) -> Parts:
        """A batch as tensors, x being as in memory.

        Raises:
            InputError: where it has not what is named, or is of another form than the first.
        """
        x, *beside = self._parts(found)
        values = as_values(x, f"x in {self.where}", missing=self.missing)
        assert isinstance(values, Tensor)
        fields = [
            as_field(name, array, values, self.where) for name, array in zip(self.names, beside, strict=True)
        ]
        form, first = (values.shape[1:], values.dtype), vars(self).get("first")
        if first is not None and form != (first[0].shape[1:], first[0].dtype):
            raise InputError(
                f"expected x of shape {tuple(self.shape[1:])} and {self.dtype} in {self.where}, as in the "
                f"first item, got {tuple(form[0])} and {form[1]}: bring them to one form"
            )
        return [values, *fields]

    def _parts(self, found: Any) -> Sequence[Any]:
        """x, and what is named beside it, of what a loader gives."""
        got = ""
        if isinstance(found, Mapping):
            parts = [found[name] for name in ("x", *self.names) if name in found]
            got = f" among {', '.join(map(repr, found)) or 'no keys'}"
        else:
            parts = list(found) if isinstance(found, list | tuple) else [found]
        if len(parts) <= len(self.names):
            raise InputError(
                f"expected x{''.join(f', {name}' for name in self.names)} in each item of {self.where}, got "
                f"{len(parts)} of them{got}: give each item as a tuple or dictionary of these, or name fewer"
            )
        return parts[: 1 + len(self.names)]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What items raise, here or in a worker, in one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # of the user's own class
            lines = str(error).strip().splitlines() or [""]
            text = lines[-1].strip()
            name = type(error).__name__
            text = text if text.startswith(name) else f"{name}: {text}".removesuffix(": ")
            remedy = "mend its __getitem__, or the collate_fn"
            if "PIL." in text:
                remedy = "make tensors of its pictures, as by transform=torchvision.transforms.PILToTensor()"
            raise InputError(
                f"expected {self.where} to give its items, got {text} from {type(self.dataset).__name__}: "
                f"{remedy}"
            ) from error
