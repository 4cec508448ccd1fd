"""Works that need nothing of one another, shared out over copies of this process."""

import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import connection, get_context
from typing import Any, TypeVar

import torch
from tqdm import TMonitor

T = TypeVar("T")

_LEFT_OUT = object()


def on_all_cores(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of some works gives, by as many processes at once as this one has threads.

    The others are copies of this process, `fork`, so that they start at once, with all that it has; what a
    work changes elsewhere than in files stays in its copy. Each copy has one thread. Where a process
    with threads cannot be copied, as beside a GPU, all works are done here, and so are those of a copy that
    has ended before its time.

    Args:
        works: Their results can be pickled.

    >>> on_all_cores([lambda: 1, lambda: 2, lambda: 3])
    [1, 2, 3]
    """
    threads, number = torch.get_num_threads(), _processes(len(works))
    if number == 1:
        return [work() for work in works]
    answers: list[Any] = [_LEFT_OUT] * len(works)
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(max(1, threads // number))
        ends = [_started(stack, works, place, number) for place in range(1, number)]
        for place in range(0, len(works), number):
            answers[place] = works[place]()
        for place, end in enumerate(ends, 1):
            answers[place::number] = _received(end, answers[place::number])
    return [work() if answer is _LEFT_OUT else answer for work, answer in zip(works, answers, strict=True)]


def _processes(works: int) -> int:
    """How many processes, this one included."""
    for thread in threading.enumerate():
        if isinstance(thread, TMonitor):  # of a kind of bar, which the next one starts again
            thread.exit()
    alone = threading.active_count() == 1 and not torch.accelerator.is_available()
    return max(1, min(torch.get_num_threads(), works)) if sys.platform == "linux" and alone else 1


def _started(
    stack: ExitStack, works: Sequence[Callable[[], object]], place: int, number: int
) -> connection.Connection:
    """A copy at work, and where it tells what it has found; it ends with the stack."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(works[place::number], there), daemon=True)
    with warnings.catch_warnings():
        # of the threads of torch, of which a copy with one thread uses none, as in torch's DataLoader
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    stack.callback(process.join)
    stack.callback(process.kill)
    return stack.enter_context(here)


def _work(works: Sequence[Callable[[], object]], there: connection.Connection) -> None:
    """The life of a copy: it tells each answer, or the error with which it ends."""
    os.environ["TQDM_DISABLE"] = "1"  # bars of several processes would overwrite one another
    torch.set_num_threads(1)
    with suppress(KeyboardInterrupt, BrokenPipeError):  # which the first process hears, too
        for work in works:
            try:
                answer: object = (work(), None)
            except Exception as error:
                answer = (None, error)
            there.send_bytes(pickle.dumps(answer))


def _received(end: connection.Connection, answers: list[Any]) -> list[Any]:
    """The answers of a copy; an error that it has met is raised here."""
    found = list(answers)
    with suppress(EOFError):
        for place in range(len(found)):
            found[place], error = pickle.loads(end.recv_bytes())
            if error is not None:
                raise error
    return found
