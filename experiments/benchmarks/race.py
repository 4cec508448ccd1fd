"""One case: all its variants in processes of their own, which take turns."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments.benchmarks.cases import Case
from experiments.benchmarks.registry import VARIANTS, missing, reference

Row = dict[str, Any]

#: Seconds after which a worker that does not answer has failed: a compiler may take minutes.
PATIENCE = 900


class Budget(NamedTuple):
    """How much is measured."""

    rounds: int
    #: Of the reference, per turn; the other variants do as many steps.
    seconds: float
    #: Instead of `seconds`.
    steps: int | None = None


class Failed(Exception):
    """A worker gave no answer."""


class Worker:
    """A variant's process.

    Args:
        name: Of the case.
        variant: Its name.
        folder: For data, caches and what the process prints.
        device: Where to measure.
        threads: Number of CPU cores that it may use; None for all.
    """

    def __init__(self, name: str, variant: str, folder: Path, device: str, threads: int | None) -> None:
        self.log = Path(tempfile.mkdtemp(dir=folder)) / "log"
        cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=_environment(self.log.parent, device, threads),
                start_new_session=True,  # Ctrl-C is the parent's
            )
        if threads and cores:
            with suppress(OSError):
                os.sched_setaffinity(self.process.pid, cores)
        self.send({"case": name, "variant": variant})

    def send(self, command: Row) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write((json.dumps(command) + "\n").encode())

    def receive(self) -> Row:
        """The answer to one command.

        Raises:
            Failed: where there is none.
        """
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            raise Failed(f"no answer in {PATIENCE} seconds")
        line = self.process.stdout.readline()
        if not line:
            text = self.log.read_text(errors="replace").strip().splitlines()
            raise Failed(f"ended with status {self.process.wait()}: {text[-1] if text else 'no message'}")
        answer: Row = json.loads(line)
        return answer

    def ask(self, **command: Any) -> Row:
        self.send(command)
        return self.receive()

    def stop(self) -> None:
        """End it, and what it has started (inductor starts compilers)."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _environment(folder: Path, device: str, threads: int | None) -> dict[str, str]:
    number = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {
        **os.environ,
        **number,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
        # a cache of its own, so that start-up is what a user waits for the first time
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "JAX_PLATFORMS": "cpu" if device == "cpu" else "cuda,cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


class Race:
    """The workers of one case.

    Args:
        name: Of the case.
        case: What is measured.
        variants: Names, the reference among them.
        data: The file with the data.
        device: Where to measure.
        threads: As for `Worker`.
        bar: Told of each thing that is done.
    """

    def __init__(
        self,
        name: str,
        case: Case,
        variants: list[str],
        data: Path,
        device: str,
        threads: int | None,
        bar: "tqdm[Any]",
    ) -> None:
        self.name, self.case, self.variants, self.data = name, case, variants, data
        self.device, self.threads, self.bar = device, threads, bar
        self.rows: dict[str, Row] = {}
        self.running: dict[str, Worker] = {}

    def run(self, budget: Budget) -> Row:
        """Measure; what went wrong with a variant stands in its row."""
        with self._workers():
            self._build()
            number = self._number(budget)
            for turn in range(budget.rounds + 1):
                for variant in list(self.running):
                    answer = self._ask(variant, do="run", number=number)
                    if turn and "seconds" in answer:  # the first turn warms up, and compiles a `scan`
                        self.rows[variant]["seconds"].append(answer["seconds"] / number)
            for variant in list(self.running):
                self.rows[variant].update(self._ask(variant, do="finish"))
            self._check_reference()
        rows = {variant: self.rows[variant] for variant in self.variants}
        return {"title": self.case.title, "steps_per_turn": number, "rounds": budget.rounds, "rows": rows}

    @contextmanager
    def _workers(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="benchmarks-", ignore_cleanup_errors=True) as folder:
            try:
                for variant in self.variants:
                    reason = missing(VARIANTS[self.case.kind][variant])
                    if reason:
                        self.rows[variant] = {"left_out": reason}
                        continue
                    self.running[variant] = Worker(
                        self.name, variant, Path(folder), self.device, self.threads
                    )
                yield
            finally:
                for worker in self.running.values():
                    worker.stop()

    def _build(self) -> None:
        """All imports are done before the first is built, so that none disturbs another's start-up."""
        for variant in list(self.running):
            self._receive(variant)
        for variant in list(self.running):
            answer = self._ask(variant, do="build", data=str(self.data), device=self.device)
            if "startup" in answer:
                self.rows[variant] = {**answer, "seconds": []}

    def _number(self, budget: Budget) -> int:
        """Steps per turn: the reference takes so many in the seconds of one turn."""
        first = self._check_reference()
        if budget.steps is not None or self.case.kind == "particles":
            return budget.steps or 1
        trial = 5 if self.case.kind == "steps" else 1
        seconds = min(self._ask(first, do="run", number=trial).get("seconds", 1) for _ in range(2)) / trial
        return min(max(round(budget.seconds / seconds), 1), 10_000)

    def _check_reference(self) -> str:
        """The reference's name, where it is still there."""
        first = reference(self.case.kind)
        if first not in self.running:
            why = self.rows[first].get("failed") or self.rows[first].get("left_out")
            raise Failed(f"the reference {first} of {self.name} cannot be measured: {why}")
        return first

    def _ask(self, variant: str, **command: Any) -> Row:
        self.bar.set_postfix_str(f"{self.name}: {variant}, {command['do']}")
        self.running[variant].send(command)
        answer = self._receive(variant)
        self.bar.update()
        return answer

    def _receive(self, variant: str) -> Row:
        """The answer; a worker that has none to give is ended, with the reason in its row."""
        try:
            answer = self.running[variant].receive()
        except Failed as error:
            answer = {"failed": str(error)}
        for word in ("left_out", "failed"):
            if word in answer:
                self.running.pop(variant).stop()
                self.rows[variant] = {word: answer[word]}
        return answer
