"""Runs that cannot be trained as one batched program, each in a process of its own."""

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from pyro_vae.cli.members import Member
from pyro_vae.cli.trust import consented
from pyro_vae.progress import progress_bar
from pyro_vae.storage.files import write
from pyro_vae.storage.runs import Run
from pyro_vae.training import FitOptions
from pyro_vae.training.trained import resolve_device


class NotBatched(Exception):
    """Runs are left to processes, for the reason that it gives."""


def leaves(members: Sequence[Member]) -> Callable[[str], None] | None:
    """What leaves runs to processes once it is known that they are not batched; None where that is no faster.

    On a GPU it is not, which one process fills; nor where torch has one thread, as by OMP_NUM_THREADS=1.
    """
    device = resolve_device(members[0].training.options["device"])
    if device.type != "cpu" or min(torch.get_num_threads(), len(members)) < 2:
        return None

    def leave(reason: str) -> None:
        raise NotBatched(reason)

    return leave


@dataclass(frozen=True, eq=False)
class _Process:
    """The process of one run."""

    member: Member
    process: "subprocess.Popen[bytes]"
    #: What it says on standard error.
    errors: Path

    @classmethod
    def of(cls, member: Member, threads: int, errors: Path) -> "_Process":
        """Begin, or go on with, a run whose folder is there."""
        run = Run(member.folder)
        if run.config.read_text() != member.training.text:  # its budget is a new one
            write(run.config, member.training.text.encode())
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        with errors.open("wb") as file:
            process = subprocess.Popen(
                _command(member.folder), env=environment, stdout=subprocess.DEVNULL, stderr=file
            )
        return cls(member, process, errors)

    @property
    def said(self) -> list[str]:
        """Its lines on standard error."""
        return [line for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]


def _command(folder: Path) -> list[str]:
    trust = [word for name in sorted(consented()) for word in ("--trust", name)]
    return [sys.executable, "-m", "pyro_vae", "train", "--resume", str(folder), *trust]


def train_in_processes(members: Sequence[Member], reason: str) -> dict[Path, str]:
    """Train runs whose folders are there, as many at once as torch has threads.

    Each process has its share of the threads, and evaluates its run, too. An interruption ends them all.

    Args:
        members: Two or more.
        reason: Why they are not batched.

    Returns:
        By folder, the last line of each process that has failed.
    """
    cores = torch.get_num_threads()
    workers = min(cores, len(members))
    print(f"pyro-vae: note: {workers} seeds at once, a process each: not batched, {reason}", file=sys.stderr)
    total = sum(map(_steps, members))
    with ExitStack() as stack:
        stack.enter_context(_interrupted_by_sigterm())
        errors = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bar = stack.enter_context(progress_bar(total=total, desc="training", unit="steps"))
        return _Pool(members, workers, max(1, cores // workers), errors, bar).run()


def _steps(member: Member) -> int:
    """Steps of a run at the most."""
    options = FitOptions(**member.training.options)
    in_epochs = options.epochs * math.ceil(len(member.training.data.train) / options.batch_size)
    return options.steps or in_epochs


class _Pool:
    """Processes, of which so many run at once.

    Args:
        members: What is to be trained.
        workers: Processes at once.
        threads: Of each.
        errors: A folder for what they say.
        bar: Over the steps of all.
    """

    #: Seconds between two looks at the processes, and until one that was interrupted is killed.
    poll, grace = 0.2, 10.0

    def __init__(
        self, members: Sequence[Member], workers: int, threads: int, errors: Path, bar: "tqdm[Any]"
    ) -> None:
        self.waiting, self.workers, self.threads = [*members], workers, threads
        self.folder, self.bar = errors, bar
        self.running: list[_Process] = []
        self.ended: list[Member] = []
        self.errors: dict[Path, str] = {}
        self._said: set[str] = set()

    def run(self) -> dict[Path, str]:
        """Until all have ended: the errors by folder."""
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.workers:
                    self._begin(self.waiting.pop(0))
                time.sleep(self.poll)
                for each in [each for each in self.running if each.process.poll() is not None]:
                    self._end(each)
                self._show()
        finally:
            self._interrupt()
        return self.errors

    def _begin(self, member: Member) -> None:
        self.running.append(_Process.of(member, self.threads, self.folder / member.folder.name))

    def _end(self, one: _Process) -> None:
        """Take note of one that has ended, and say once what several have said."""
        self.running.remove(one)
        self.ended.append(one.member)
        lines, status = one.said, one.process.returncode
        if status:
            last = lines.pop() if lines else f"its process ended with status {status}"
            self.errors[one.member.folder] = last.removeprefix("pyro-vae: error: ")
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                self.bar.write(line, file=sys.stderr)

    def _show(self) -> None:
        steps = sum(map(_steps, self.ended)) + sum(_steps_in(each.member.folder) for each in self.running)
        self.bar.set_postfix_str(f"{len(self.ended)} seeds ended", refresh=False)
        self.bar.update(max(0, steps - self.bar.n))

    def _interrupt(self) -> None:
        """End those that run: as by Ctrl-C, and after a while at once."""
        try:
            for each in self.running:
                each.process.send_signal(signal.SIGINT)
            end = time.monotonic() + self.grace
            for each in self.running:
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.0, end - time.monotonic()))
        finally:
            for each in self.running:
                each.process.kill()
                each.process.wait()


def _steps_in(folder: Path) -> int:
    """Steps that a run has trained, as metrics.csv says."""
    try:
        *_, last = (folder / "metrics.csv").read_text().splitlines()
        return int(last.split(",")[1])
    except (OSError, ValueError):  # not there yet
        return 0


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM is as Ctrl-C, so that it ends the processes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
