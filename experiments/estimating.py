"""One estimate of an experiment, as numbers that can be kept."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.randomness import own_randomness

#: Makes an estimate, with a file in which it keeps its state.
Work = Callable[[Path], Any]

#: Of a result: the simulated data, and what is no number of each datum.
_LEFT_OUT = ("x", "rate_distortion", "information")


def estimate(name: str, work: Work, seed: int, device: torch.device, checkpoint: Path) -> dict[str, Any]:
    """What `work` finds, each of its tensors as a list, with the seconds that it took."""
    start = time.perf_counter()
    with own_randomness(seed, device):
        found = work(checkpoint)
    print(f"{name}: {found!r}", flush=True)
    fields = {field: _plain(value) for field, value in vars(found).items() if field not in _LEFT_OUT}
    return {**fields, "seconds": round(time.perf_counter() - start, 1)}


def _plain(value: Any) -> Any:
    """Tensors, tuples of them and a curve as lists of numbers with six digits; None where there is none."""
    if isinstance(value, pv.BoundCurve):
        value = value.num_particles, value.bound
    if isinstance(value, Tensor):
        numbers = value.double().flatten().tolist()
        return [round(number, 6) if math.isfinite(number) else None for number in numbers]
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
