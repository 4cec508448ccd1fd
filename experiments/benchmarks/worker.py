"""One variant in a process of its own: builds it, and does as many steps as it is told.

Reads one line of JSON per command from standard input and answers with one line each. It ends when its
input does, so it never outlives the process that started it.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.cases import CASES, SMOKE
from experiments.benchmarks.contender import Contender, LeftOut, Task
from experiments.benchmarks.registry import VARIANTS

Answer = dict[str, Any]


def serve(commands: Iterator[dict[str, Any]]) -> Iterator[Answer]:
    """Answers to the commands: first what to measure, then build, run, run, ..., finish."""
    order = next(commands)
    case = {**CASES, **SMOKE}[order["case"]]
    variant = VARIANTS[case.kind][order["variant"]]
    if variant.particles:
        case = case._replace(particles=variant.particles)
    module, _, function = variant.maker.partition(":")
    maker = getattr(import_module(f"experiments.benchmarks.variants.{module}"), function)
    yield {}
    for command in commands:
        if command["do"] == "build":
            if torch := sys.modules.get("torch"):
                torch.manual_seed(0)
            before = Memory()
            start = time.perf_counter()
            data = np.load(command["data"]).astype(np.float32).reshape(-1, *case.network.data_shape)
            contender: Contender = maker(Task(case, data, command["device"]))
            first = contender.parameters()
            contender.run(1)
            yield {"startup": time.perf_counter() - start}
        elif command["do"] == "run":
            yield {"seconds": timed(contender, command["number"], warm=case.kind == "steps")}
        else:
            memory = contender.device_memory() if contender.device_memory else before.growth()
            yield {"memory": memory, "value": contender.value(), **moved(first, contender.parameters())}


def timed(contender: Contender, number: int, *, warm: bool) -> float:
    """Seconds of so many steps, after one that brings the variant back into the caches."""
    if warm:
        contender.run(1)
    gc.collect()
    start = time.perf_counter()
    contender.run(number)
    return time.perf_counter() - start


def moved(before: list[np.ndarray], after: list[np.ndarray]) -> Answer:
    """Refuse a variant that does not train each of its tensors, since it would look fast."""
    still = sum(bool(np.array_equal(*pair)) for pair in zip(before, after, strict=True))
    if still:
        return {"failed": f"{still} of {len(before)} parameters did not move"}
    return {}


class Memory:
    """Growth of this process's peak memory from here on, in bytes."""

    def __init__(self) -> None:
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        with suppress(OSError):  # Linux: the peak starts anew, so that imports do not hide what follows
            Path("/proc/self/clear_refs").write_text("5")
        self.start = self.peak()

    def growth(self) -> int:
        return self.peak() - self.start

    @staticmethod
    def peak() -> int:
        with suppress(OSError):
            # not ru_maxrss, which on Linux begins with that of the parent
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    # what libraries print must not come between the answers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        for answer in serve(map(json.loads, sys.stdin)):
            answers.write(json.dumps(answer) + "\n")
    except LeftOut as reason:
        answers.write(json.dumps({"left_out": str(reason)}) + "\n")
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        answers.write(json.dumps({"failed": f"{type(error).__name__}: {text}"}) + "\n")
        raise


if __name__ == "__main__":
    main()
