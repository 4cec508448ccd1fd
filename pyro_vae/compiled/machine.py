"""What is faster on the machine at hand: measured once, and kept.

Which library multiplies matrices faster depends on the processor, the shapes and the number of threads, and
so does what a logarithm costs. So each pair of ways is timed in a few hundredths of a second where it is met
first, and the answer is kept in a file of the user's cache, from which other processes take it.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from pyro_vae.errors import InputError

#: The variable that says which operations are used: those measured to be faster, all of them, or none.
VARIABLE = "PYRO_VAE_FAST"
_SAID = ("measured", "always", "never")

#: Another way is taken where its time is below this share of the plain one's, so that noise decides little.
CLEARLY = 0.9
#: Turns of both ways, after one that does not count: at least, at most, and seconds after which none begins.
_LEAST_TURNS, _MOST_TURNS, _SECONDS = 3, 10, 0.02
#: What is measured beside other work, where the median is so many times the least time, is not kept.
_DISTURBED = 1.5

Way = Callable[[], object]


class Machine(NamedTuple):
    """All that a measured time depends on besides what is run."""

    processor: str
    threads: int
    torch: str


def machine() -> Machine:
    """The machine at hand, as torch uses it now."""
    return Machine(_processor(), torch.get_num_threads(), str(torch.__version__))


def _processor() -> str:
    """The make of the processor, with its instructions as torch sees them."""
    return processor("model name", "cpu family", "model")


@cache
def processor(*facts: str) -> str:
    """What the system says of the processor under these names, with its instructions as torch sees them."""
    found = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        named = {name.strip(): value.strip() for name, value in pairs}
        found = " ".join(filter(None, (named.get(name, "") for name in facts))) or found
    return f"{found}, {torch.backends.cpu.get_cpu_capability()}"


class Faster:
    """Which of two ways is faster on each machine, as measured.

    Args:
        folder: Where what is found is kept; None keeps it for this process only.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[Machine, dict[str, bool]] = {}

    def other(self, name: str, ways: Callable[[], tuple[Way, Way]], clearly: float = CLEARLY) -> bool:
        """Whether to take the second of two ways rather than the first.

        Args:
            name: Of the pair, with the shapes.
            ways: Makes both; called only where they must be timed.
            clearly: The share of the first one's time below which the second one's must be.
        """
        said = check()
        if said != "measured":
            return said == "always"
        known = self.known()
        if name not in known:
            known[name], undisturbed = _is_faster(*ways(), clearly)
            if undisturbed:
                self._keep(machine(), name)
        return known[name]

    def allowed(self) -> bool:
        """Whether any other way may be taken."""
        return check() != "never"

    def known(self) -> dict[str, bool]:
        """What has been found on this machine."""
        here = machine()
        if here not in self._known:
            self._known[here] = self._read(here)
        return self._known[here]

    def adopt(self, there: object) -> bool:
        """Take what another process used, from its `used`; whether that was on a machine like this.

        So a training that goes on rounds as it did, whatever would be measured now.
        """
        if not isinstance(there, Mapping) or there.get("machine") != list(machine()):
            return False
        self.known().update(there.get("faster", {}))
        return bool(there["said"] == check())

    def used(self) -> dict[str, Any]:
        """What rounding depends on here, as numbers and strings."""
        return {"machine": list(machine()), "said": check(), "faster": dict(self.known())}

    def _path(self, here: Machine) -> Path | None:
        key = hashlib.sha256(json.dumps(here).encode()).hexdigest()[:16]
        return None if self.folder is None else self.folder / f"faster-{key}.json"

    def _read(self, here: Machine) -> dict[str, bool]:
        path = self._path(here)
        with suppress(OSError, ValueError, AttributeError):
            if path is not None:
                found = json.loads(path.read_text())["faster"]
                return {name: value for name, value in found.items() if isinstance(value, bool)}
        return {}

    def _keep(self, here: Machine, name: str) -> None:
        """Write what was found; what another process has written meanwhile stays, and holds here as well."""
        path = self._path(here)
        if path is None:
            return
        kept = {name: self._known[here][name], **self._read(here)}
        self._known[here][name] = kept[name]
        with suppress(OSError):  # a cache that cannot be written is none
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps({**here._asdict(), "faster": kept}, indent=1, sort_keys=True))
            part.replace(path)


def check() -> str:
    """What PYRO_VAE_FAST says.

    Raises:
        InputError: where it is none of the three.
    """
    said = os.environ.get(VARIABLE, _SAID[0])
    if said not in _SAID:
        raise InputError(f"{VARIABLE} expects {', '.join(_SAID[:2])} or {_SAID[2]}, got {said!r}")
    return said


def cache_folder() -> Path:
    """Of what is kept between processes: $XDG_CACHE_HOME/pyro_vae, by default ~/.cache/pyro_vae."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pyro_vae"


#: What is known to this process.
FASTER = Faster(cache_folder())


@torch.no_grad()
def _is_faster(plain: Way, other: Way, clearly: float) -> tuple[bool, bool]:
    """Whether the other way takes clearly less time, and whether nothing disturbed the measurement."""
    seconds: tuple[list[float], list[float]] = ([], [])
    plain(), other()
    end = time.perf_counter() + _SECONDS
    for turn in range(_MOST_TURNS):
        if turn >= _LEAST_TURNS and time.perf_counter() > end:
            break
        for way, taken in zip((plain, other), seconds, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    least = [min(taken) for taken in seconds]
    calm = all(median(taken) <= _DISTURBED * min(taken) for taken in seconds)
    return least[1] < clearly * least[0], calm
