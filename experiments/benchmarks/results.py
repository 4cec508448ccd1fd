"""What was measured, in one file, with the machine that it was measured on."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.race import Row
from pyro_vae.storage.files import write

PACKAGES = ("pyro_vae", "torch", "pyro-ppl", "numpyro", "jax", "jaxlib", "pythae", "numpy")


class Results:
    """The finished cases, written anew and atomically with each of them.

    Args:
        path: The file; where it exists, its cases are kept until they are measured anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases: dict[str, Row] = json.loads(path.read_text())["cases"] if path.exists() else {}

    def add(self, name: str, record: Row) -> None:
        self.cases[name] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"cases": self.cases}, indent=1, ensure_ascii=False, allow_nan=False)
        write(self.path, f"{text}\n".encode())


def circumstances(device: str, threads: int | None, data: str) -> dict[str, Any]:
    """Where and when a case is measured."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (float("nan"),)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "load_before": round(load[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "data": data,
    }


def cpu() -> str:
    """The processor's name, with family and model, since a virtual machine may say no more than its maker."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
