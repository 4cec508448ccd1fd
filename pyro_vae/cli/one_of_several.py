"""A command as one of the processes that torchrun, or `srun`, has started: they join, and one writes."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from types import FrameType

from pyro_vae.ranks import here, join

#: Commands that several ranks can share.
_SHARED = ("train", "evaluate", "score")


@contextmanager
def one_of_several(command: str) -> Iterator[None]:
    """Around a command that all ranks share, of which the first has the screen.

    Raises:
        InputError: where several ranks run another command.
    """
    with ExitStack() as stack:
        ranks = join()
        if command not in _SHARED:
            ranks.only_one(f"pyro-vae {command}")
        if ranks.several:
            before = signal.signal(signal.SIGTERM, _interrupt)
            stack.callback(signal.signal, signal.SIGTERM, before)
        if not ranks.first:
            nothing = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nothing))
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Of torchrun, where another rank has ended."""
    signal.signal(number, signal.SIG_IGN)  # one line is enough
    raise KeyboardInterrupt("by SIGTERM, as torchrun does where another rank has ended")


def tells(line: str) -> bool:
    """Whether this process is the one of all that says a line."""
    return here().tells(line)
