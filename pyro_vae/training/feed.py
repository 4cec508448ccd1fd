"""Where the batches of a training come from: from memory, or from files that are read ahead."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from pyro_vae.data import Split
from pyro_vae.data.stored import Rows

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
        self.source, self.device = split, device
        assert isinstance(split.stored, Rows)
        self.window = split.stored.window
        self.rows = max(1, self.window // batch_size) * batch_size
        self.held = torch.empty((self.rows, *split.data_shape), dtype=split.stored.dtype, device=device)
        fields = {
            name: torch.empty((self.rows, *field.shape[1:]), dtype=field.dtype, device=device)
            for name, field in split.fields.items()
            if name in split.given
        }
        super().__init__(replace(split, stored=self.held, fields=fields), batch_size)

    def batches(self, order: Tensor) -> Iterator[Tensor]:
        """The places in the window, which is filled before the first batch that is in it."""
        places = torch.arange(self.rows, device=self.device)
        for read in ahead(self._read, order.cpu().split(self.rows)):
            num = self._hold(read)
            yield from places[:num].split(self.batch_size)

    def _hold(self, read: list[Tensor]) -> int:
        """Put what was read in place, and let it go; returns how many data it was."""
        num = len(read[0])
        for held in (self.held, *self.split.fields.values()):
            held[:num] = read.pop(0)
        return num

    def _read(self, index: Tensor) -> list[Tensor]:
        return [self.source.stored[index], *(self.source.fields[name][index] for name in self.split.fields)]


def feed_of(split: Split, batch_size: int, device: torch.device) -> Feed:
    """The data as they are handed on: from memory where they are not more than a window."""
    if split.is_streamed:
        return ReadAhead(split, batch_size, device)
    stored = split.stored
    return Feed(replace(split, stored=stored.held) if isinstance(stored, Rows) else split, batch_size)


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
