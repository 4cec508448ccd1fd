"""The ways in which the steps of a training are taken, by what `compile` says."""

import math
from typing import NamedTuple

import torch

from pyro_vae.compiled import Compile, machine
from pyro_vae.compiled.policy import STEPS, choose
from pyro_vae.errors import InputError

#: Steps that `auto` takes by Pyro's SVI.
EAGER_STEPS = STEPS.graph


class Way(NamedTuple):
    """How steps are taken."""

    #: The first step that is not Pyro's own, counted from 1; infinite where all are.
    flat_from: float
    inductor: bool
    #: Operations that are faster and round differently.
    fast: bool
    #: The whole step as one CUDA graph.
    captured: bool
    #: The whole step, on a CPU, as one compiled function.
    whole: bool = False

    @property
    def rounding(self) -> str:
        """What the results depend on in their last bits, but for whether a training by `auto` is long."""
        names = [name for name in ("inductor", "fast", "captured") if getattr(self, name)]
        names += ["whole"] if self.whole and self.inductor else []
        return f"{' and '.join(names)} from step {self.flat_from}" if names else "that of eager Pyro"


def way_of(compile: Compile, device: torch.device, steps: float = 0) -> Way:
    """What `compile` means on a device, for a training of so many steps.

    Raises:
        InputError: where it is none of the four.
    """
    on_gpu = device.type == "cuda"
    on_cpu, long = device.type == "cpu", choose("auto", STEPS, steps, steps).inductor
    ways = {
        "off": Way(math.inf, inductor=False, fast=False, captured=False),
        "flat": Way(1, inductor=False, fast=False, captured=False),
        "inductor": Way(1, inductor=True, fast=not on_gpu, captured=on_gpu, whole=on_cpu),
        "auto": Way(EAGER_STEPS + 1, False, fast=not on_gpu, captured=on_gpu, whole=on_cpu and long),
    }
    if compile not in ways:
        raise InputError(f"compile expects 'auto', 'flat', 'inductor' or 'off', got {compile!r}")
    machine.check()
    return ways[compile]
