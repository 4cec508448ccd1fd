"""Where the batches of a training come from: from memory, or from files that are read ahead."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from pyro_vae.data import Split
from pyro_vae.data.stored import Rows
from pyro_vae.data.torch_items import Items
from pyro_vae.errors import InputError

Asked = TypeVar("Asked")
Read = TypeVar("Read")


class Feed:
    """Training data in memory: a batch is taken out of them by its index.

    Args:
        split: The data.
        batch_size: Data of a full batch.
    """

    #: Data that are shuffled with one another; None where all are.
    window: int | None = None

    def __init__(self, split: Split, batch_size: int) -> None:
        #: Of which the numbers that `batches` yields are places.
        self.split = split
        self.batch_size = batch_size

    def batches(self, order: Tensor) -> Iterator[Tensor]:
        """The places in `split` of each batch, (B,), for an epoch in this order."""
        return iter(order.split(self.batch_size))


class ReadAhead(Feed):
    """Training data in files: `split` holds one window of them, and a thread reads the next meanwhile.

    A window is filled in place, so that a CUDA graph of a step goes on from one to the next.

    Args:
        split: The data, in their files.
        batch_size: Data of a full batch; a window is made of full batches.
        device: Where the window is held.
    """

    def __init__(self, split: Split, batch_size: int, device: torch.device) -> None:
        self.source, self.device, self.stored = split, device, _rows_of(split)
        self.rows = self._rows(batch_size)
        self.held = torch.empty((self.rows, *split.data_shape), dtype=split.stored.dtype, device=device)
        fields = {
            name: torch.empty((self.rows, *field.shape[1:]), dtype=field.dtype, device=device)
            for name, field in split.fields.items()
            if name in split.given
        }
        super().__init__(replace(split, stored=self.held, fields=fields), batch_size)

    def _rows(self, batch_size: int) -> int:
        """How many data are held."""
        self.window = self.stored.window
        return max(1, self.window // batch_size) * batch_size

    def batches(self, order: Tensor) -> Iterator[Tensor]:
        """The places in the window, which is filled before the first batch that is in it."""
        places = torch.arange(self.rows, device=self.device)
        for read in self._parts(order.cpu()):
            num = self._hold(read)
            yield from places[:num].split(self.batch_size)

    def _hold(self, read: list[Tensor]) -> int:
        """Put what was read in place, and let it go; returns how many data it was."""
        num = len(read[0])
        for held in (self.held, *self.split.fields.values()):
            held[:num] = read.pop(0)
        return num

    def _parts(self, order: Tensor) -> Iterator[list[Tensor]]:
        """The data of each window, and their fields: (rows, …) each."""
        return ahead(self._read, order.split(self.rows))

    def _read(self, index: Tensor) -> list[Tensor]:
        return [self.stored[index], *self._beside(index)]

    def _beside(self, index: Tensor) -> list[Tensor]:
        return [self.source.fields[name][index] for name in self.split.fields]


class Loaded(ReadAhead):
    """Training data of `torch.utils.data`: `split` holds one batch of them.

    Args:
        split: The data.
        batch_size: Data of a full batch.
        device: Where the batch is held.
        generator: Whose seed is that of an epoch.
    """

    def __init__(
        self, split: Split, batch_size: int, device: torch.device, generator: torch.Generator
    ) -> None:
        super().__init__(split, batch_size, device)
        self.generator = generator

    def _rows(self, batch_size: int) -> int:
        return batch_size

    def _parts(self, order: Tensor) -> Iterator[list[Tensor]]:
        items, seen = self.stored.tensor, 0
        assert isinstance(items, Items)
        batches = cut(items.epoch(order, self.rows, self.generator.initial_seed()), self.rows)
        for x, *beside in batches:
            at = order[seen : seen + len(x)]
            seen += len(x)
            fields = dict(zip(items.names, beside, strict=True))
            own = [fields[name] for name in self.split.fields] if items.loader else self._beside(at)
            yield [x, *own]
        if seen != len(order):
            raise InputError(
                f"expected {len(order)} training data in each epoch of a DataLoader, as in the first, got "
                f"{seen}: give a sampler of a fixed length"
            )


def feed_of(split: Split, batch_size: int, device: torch.device, generator: torch.Generator) -> Feed:
    """The data as they are handed on: from memory where they are not more than a window."""
    if split.unhashed is not None:
        return Loaded(split, batch_size, device, generator)
    if split.is_streamed:
        return ReadAhead(split, batch_size, device)
    stored = split.stored
    return Feed(replace(split, stored=stored.held) if isinstance(stored, Rows) else split, batch_size)


def _rows_of(split: Split) -> Rows:
    assert isinstance(split.stored, Rows)
    return split.stored


def cut(parts: Iterable[list[Tensor]], size: int) -> Iterator[list[Tensor]]:
    """The same data in batches of `size`, the last one of fewer.

    >>> [x.tolist() for x, in cut([[torch.arange(3)], [torch.arange(4)]], 2)]
    [[0, 1], [2, 0], [1, 2], [3]]
    """
    held: list[Tensor] = []
    for part in parts:
        held = [torch.cat(both) for both in zip(held, part, strict=True)] if held else part
        while len(held[0]) >= size:
            yield [each[:size] for each in held]
            held = [each[size:] for each in held]
    if held and len(held[0]):
        yield held


def ahead(read: Callable[[Asked], Read], asked: Iterable[Asked]) -> Iterator[Read]:
    """`read` of each, the next one in a thread of its own; what it raises is raised here.

    >>> list(ahead(lambda number: number + 1, [1, 2, 3]))
    [2, 3, 4]
    """
    with ThreadPoolExecutor(1, "read ahead") as pool:
        waiting: list[Future[Read]] = []
        for each in asked:
            waiting.append(pool.submit(read, each))
            if len(waiting) > 1:
                yield waiting.pop(0).result()  # of which no name is kept here, as it may be large
        yield from (future.result() for future in waiting)
