"""The processes, ranks, that share a computation: which of them this is, and what they tell one another.

They are started by torchrun, or by `srun` with MASTER_ADDR and MASTER_PORT set.
"""

import atexit
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from typing import Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from pyro_vae.errors import InputError, LostRankError, one_line

T = TypeVar("T")

#: Of the environment: rank, number of ranks, and rank on its machine, by who has started them.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
#: For all ranks to have started, and for one to wait for another: a validation, a callback.
_STARTED, _WAITED = timedelta(minutes=5), timedelta(minutes=30)


class Words(Protocol):
    """Where ranks leave words for one another: a store of torch.distributed."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Set what is not there yet; returns what is there then."""


class Ranks:
    """All ranks, as one of them sees them; by default this process alone.

    Args:
        rank: Which of them this is, counted from 0.
        size: How many there are.
        local: Which of those on its machine this is.
        store: Where they leave words for one another.

    >>> ranks = Ranks(rank=1, size=3)
    >>> ranks.rows(10), ranks.first, Ranks().sum(torch.ones(2))
    (slice(4, 7, None), False, tensor([1., 1.]))
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, store: Words | None = None) -> None:
        self.rank, self.size, self.local, self.store = rank, size, local, store

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def has(self, block: int) -> bool:
        """Whether this rank works on a block, by its number, of what all share."""
        return block % self.size == self.rank

    def rows(self, number: int) -> slice:
        """Those of `number` data that are this rank's; the first ranks have one more where it must be."""
        each, more = divmod(number, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, which is the same to the last bit on each of them."""
        if self.several:
            tensor = tensor.clone()
            with self._talking():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients over all ranks; None stays where no rank has one."""
        for group in _by_type(parameters):
            zeros = (torch.zeros_like(each) if each.grad is None else each.grad for each in group)
            has = torch.tensor([each.grad is not None for each in group]).to(group[0])
            *sums, number = _parts(self.sum(_flat([*zeros, has])), [*group, has])
            for parameter, total, count in zip(group, sums, number.tolist(), strict=True):
                parameter.grad = total if count else None

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Put the content that tensors have on the first rank into those of all, in place."""
        for group in _by_type(tensors) if self.several else ():
            content = _flat(group)
            with self._talking():
                dist.broadcast(content, 0)
            for tensor, own in zip(group, _parts(content, group), strict=True):
                tensor.copy_(own)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first rank, which alone calls it, for all ranks."""
        with sharing(Ranks()):
            found = [make() if self.first else None]
        if self.several:
            with self._talking():
                dist.broadcast_object_list(found)
        return cast(T, found[0])

    def all(self, value: T) -> list[T]:
        """The values of all ranks."""
        found = [value] * self.size
        if self.several:
            with self._talking():
                dist.all_gather_object(found, value)
        return found

    def each(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each rank; an error on one of them is raised on all.

        Raises:
            InputError: of a rank that has failed.
        """
        if not self.several:
            return [work()]
        found: list[T] = []
        failed, cause = "", None
        try:
            found = [work()]
        except Exception as error:
            own = "" if isinstance(error, InputError) else f"rank {self.rank}: {type(error).__name__}: "
            failed, cause = own + one_line(error), error
        answers = self.all((found, failed))
        if failure := next((words for _, words in answers if words), ""):
            raise InputError(failure) from cause
        return [value for values, _ in answers for value in values]

    def check_alike(self, what: Mapping[str, object]) -> None:
        """Refuse, on all ranks, values that are not those of the first one.

        Raises:
            InputError: which names the first that is another one.
        """
        first, *others = self.all({name: str(value) for name, value in what.items()})
        for rank, own in enumerate(others, 1):
            for name in first:
                if own[name] != first[name]:
                    raise InputError(
                        f"expected {name} {first[name]} as on rank 0, got {own[name]} on rank {rank}: give "
                        "all ranks the same options and data, and a folder on a file system that they share"
                    )

    def only_one(self, what: str) -> None:
        """Refuse what ranks cannot share."""
        if self.several:
            raise InputError(f"{what} runs in one process, got {self.size} ranks: start it without torchrun")

    def tells(self, line: str) -> bool:
        """Whether it is this rank that says a line: the first that comes with it."""
        if self.store is None:
            return True
        key = f"said {sha256(line.encode()).hexdigest()}"
        with suppress(Exception):  # whoever held the store may have ended
            return self.store.compare_set(key, "", str(self.rank)) == str(self.rank).encode()
        return True

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of which all errors of torch.distributed are
            raise LostRankError(
                f"rank {self.rank} of {self.size} has lost another, which has ended or cannot be reached "
                f"({_reason(error)}): {_way_back()}, by any number of ranks"
            ) from error


_here = Ranks()
_workers = Ranks()


def here() -> Ranks:
    """The ranks that this process has joined; itself alone where it has not."""
    return _here


def workers() -> Ranks:
    """The ranks that share out the blocks of an estimate: this process alone, but within `sharing`."""
    return _workers


@contextmanager
def sharing(ranks: Ranks | None = None) -> Iterator[None]:
    """Share out the blocks of data of each estimate of log p(x) over ranks, to all of which its result goes.

    All must come to the same estimates in the same order, with the same data, model and seed. The numbers
    are those of one process, since random numbers belong to a block, not to a rank. Nothing is kept in
    checkpoints of an estimate.

    Args:
        ranks: By default those that this process has joined.

    >>> with sharing():
    ...     workers().size
    1
    """
    global _workers
    before, _workers = _workers, here() if ranks is None else ranks
    try:
        yield
    finally:
        _workers = before


def _way_back() -> str:
    return "begin the estimate again" if _workers.several else "go on from the last checkpoint"


def join() -> Ranks:
    """Join the ranks that the environment tells of, once; or those that torch.distributed has joined.

    By gloo for tensors on a CPU, by NCCL for those on a GPU.

    Raises:
        InputError: where the environment is none, or the others do not come.
    """
    global _here
    if _here.several:
        return _here
    if dist.is_available() and dist.is_initialized():
        _here = Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    elif (place := _place(os.environ)) is not None:
        _here = _joined(*place)
    return _here


def _place(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Rank, number of ranks, and rank on this machine; None where this process is alone.

    SLURM's variables count only with MASTER_ADDR beside them: they are there, too, in a job's script that
    starts one process, and in workers that have nothing to do with one another.
    """
    for names in (_TORCHRUN, _SLURM):
        if names[0] in environment and names[1] in environment and "MASTER_ADDR" in environment:
            try:
                rank, size, local = (int(environment.get(name, "0")) for name in names)
            except ValueError as error:
                raise InputError(f"expected whole numbers in {', '.join(names)}: {error}") from error
            return (rank, size, local) if size > 1 else None
    return None


def _joined(rank: int, size: int, local: int) -> Ranks:
    if not dist.is_available():
        raise InputError(f"expected a torch with torch.distributed for {size} ranks, got one without it")
    from torch.distributed.rendezvous import rendezvous  # which such a torch has not

    if torch.cuda.is_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    try:
        store, *_ = next(rendezvous("env://", rank, size, timeout=_STARTED))
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=_WAITED)
        dist.barrier()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"rank {rank} expected to meet {size} ranks at {address}:{port}, got {_reason(error)}: start "
            "all of them, with one MASTER_ADDR and a free MASTER_PORT"
        ) from error
    atexit.register(_leave)
    return Ranks(rank, size, local, store)


def _reason(error: Exception) -> str:
    """What torch.distributed says, without its files and its advice."""
    return re.sub(r"^\[\S+\] ", "", one_line(error)).split(". ")[0][:200]


def _leave() -> None:
    with suppress(Exception):
        dist.destroy_process_group()


def _by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors of one type on one device, in the order in which they come."""
    groups: dict[object, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(groups.values())


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """What `_flat` was made from."""
    sizes = [tensor.numel() for tensor in like]
    return [part.view(each.shape) for part, each in zip(flat.split(sizes), like, strict=True)]
