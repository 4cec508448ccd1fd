"""The state of torch's global random numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def random_state(device: torch.device) -> list[Tensor]:
    """States of torch's global generators: of the CPU, and of the device where that is a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_state(states: Sequence[Tensor], device: torch.device) -> None:
    """Set what `random_state` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps" and len(states) > 1:
        torch.mps.set_rng_state(states[1])


def seed_generators(seed: int) -> None:
    """What `torch.manual_seed` does, at a hundredth of its time where there is no GPU.

    For each kind of GPU that may yet appear it keeps the text of all callers, which takes half a millisecond.
    """
    (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(seed)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators seeded with `seed`, and given back as they were found."""
    with own_draws(device):
        seed_generators(seed)
        yield


def own_draws(device: torch.device) -> AbstractContextManager[None]:
    """Draws after which the random numbers go on as if there had been none."""
    if device.type == "mps":  # of which torch's `fork_rng` takes no states
        return _kept(device)
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _kept(device: torch.device) -> Iterator[None]:
    states = random_state(device)
    try:
        yield
    finally:
        set_random_state(states, device)


class BlockSeeds:
    """Random numbers of each block of a computation, whoever works on it, and whatever was worked on before.

    The blocks' seeds are numbered from one that torch's global generator gives, so that no two are equal.

    Args:
        first: The seed of the first block; by default drawn.

    >>> seeds = BlockSeeds(3)
    >>> seeds.begin(1)
    >>> torch.initial_seed()
    4
    """

    def __init__(self, first: int | None = None) -> None:
        self.first = int(torch.randint(2**32, ())) if first is None else first

    def begin(self, block: int) -> None:
        """Seed torch's global generators for a block; when all are done, for that after the last one."""
        seed_generators((self.first + block) % 2**32)


class OwnStream:
    """Random numbers of their own, which go on from one use to the next and leave all others as they are.

    >>> stream, other = (OwnStream(3, torch.device("cpu")) for _ in range(2))
    >>> with stream():
    ...     first = torch.rand(1)
    >>> with stream():
    ...     second = torch.rand(1)
    >>> with other():
    ...     both = torch.rand(1), torch.rand(1)
    >>> both == (first, second)
    True
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        with own_randomness(seed, device):
            #: Of torch's generators, as `random_state` gives it.
            self.state = random_state(device)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Torch's global generators where this stream has left them, and given back as they were found."""
        with own_draws(self.device):
            set_random_state(self.state, self.device)
            yield
            self.state = random_state(self.device)


def in_each(
    streams: Sequence[OwnStream], makers: Sequence[Callable[[], T]], *, keep: bool = False
) -> list[T]:
    """What each maker gives in its stream; with `keep` the streams stay where they are.

    >>> streams = [OwnStream(3, torch.device("cpu")), OwnStream(4, torch.device("cpu"))]
    >>> first, second = in_each(streams, [lambda: torch.rand(1)] * 2, keep=True)
    >>> with streams[1]():
    ...     torch.rand(1) == second
    tensor([True])
    """
    device, found = streams[0].device, []
    with own_draws(device):  # once, since it takes as long as a draw
        for stream, maker in zip(streams, makers, strict=True):
            set_random_state(stream.state, device)
            found.append(maker())
            if not keep:
                stream.state = random_state(device)
    return found
