"""Accelerate, compare, warn, fall back: when a graph pays, when it agrees, and what is said if it does not.

Everything that runs faster than plain Pyro follows one order: it is chosen by how much is to be computed,
held against plain Pyro on the very numbers that count, and given up with one warning where it differs.
"""

import shutil
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pyro_vae.errors import warn
from pyro_vae.precision import wide

Compile = Literal["auto", "flat", "inductor", "off"]


class Pays(NamedTuple):
    """From how many runs a graph pays, and from how much work on a compiler does."""

    #: Runs.
    graph: int
    #: Units of work over all runs.
    compiler: float


# CPU time on one core of an AMD EPYC beside other work, torch 2.14.1, a softplus network of 784-400-20;
# experiments/benchmarks has whole calls.

#: Log weights, work counted in chunks of some thousand draws. 312 draws of 4 data: plain Pyro 32 ms, a graph
#: 36 ms after 0.4 s, compiled 23 ms after 4.3 s; the graph is faster where oneDNN multiplies faster than MKL.
WEIGHTS = Pays(graph=50, compiler=2000)
#: Gradients of log p(x, z) along a path, work counted in numbers of data. 16 chains on 4 data: plain Pyro
#: 5.1 ms, a graph 2.6 ms after 0.4 s, compiled 2.4 ms after 2.5 s.
GRADIENTS = Pays(graph=100, compiler=5e9)
#: Steps of a training, work counted in steps. The digits' default, batch 100: plain Pyro 6.9 ms, a
#: graph 4.0 ms after 0.4 s; a compiled step takes some 30 s to make, and less than half of a graph's time. It
#: does not count what is kept from earlier runs, so that a seed gives the same numbers each time.
STEPS = Pays(graph=500, compiler=20_000)

#: Roundings of the type by which results may differ, relative to the largest number.
#: The same operations differ on a GPU only, where sums have no fixed order.
SAME_ON_GPU = 1e2
#: Other operations: a log weight or a density, and its gradient, of up to a million terms. In float32 that is
#: 1e-4 of the largest number.
OTHER_OPERATIONS = 1e3
#: A loss and its gradients, sums over a batch as well.
OTHER_OPERATIONS_IN_SUMS = 1e4
#: The share of the largest gradient below which another may be what is left of numbers that cancel.
CANCELLED = 1e-3
#: No difference counts as rounding that is larger than this share, as in bfloat16.
_AT_MOST = 0.1


class Choice(NamedTuple):
    """How something is computed."""

    graph: bool
    inductor: bool


def choose(compile: Compile, pays: Pays, runs: float, work: float) -> Choice:
    """What `compile` means where so much is to be computed.

    `auto` takes a graph where it pays, and a compiler where that pays and there is one for C++.
    """
    if compile == "auto":
        inductor = work >= pays.compiler and has_compiler()
        return Choice(inductor or runs >= pays.graph, inductor)
    return Choice(compile != "off", compile == "inductor")


def has_compiler() -> bool:
    """Whether there is a compiler for C++."""
    return shutil.which("g++") is not None


def tolerance(rounding: float, roundings: float) -> float:
    """The largest difference that counts as rounding, as a share of the largest number.

    Args:
        rounding: Of the coarsest type that is computed in.
        roundings: One of `SAME_ON_GPU`, `OTHER_OPERATIONS` and `OTHER_OPERATIONS_IN_SUMS`; 0 for bits.
    """
    return min(roundings * rounding, _AT_MOST)


def agree(new: Tensor | None, old: Tensor | None, tolerance: float, size: float | None = None) -> bool:
    """Whether a result agrees with that of plain Pyro.

    Args:
        new: The result, or None where there is none, as a gradient that is not reached.
        old: That of plain Pyro.
        tolerance: Largest difference, relative to each number and to `size`; 0 asks for the same bits.
        size: Of the numbers that were added to get these, by default the largest of `old`.
    """
    if new is None or old is None:
        return new is old
    if new.shape != old.shape or new.numel() == 0:
        return new.shape == old.shape
    if new.is_complex():
        new, old = torch.view_as_real(new), torch.view_as_real(old)
    new, old = wide(new), wide(old)
    if size is None:
        size = size_of(old)
    close: bool = torch.allclose(new, old, rtol=tolerance, atol=tolerance * size, equal_nan=True)
    return close


def size_of(numbers: Tensor) -> float:
    """The largest finite size of some numbers; 0 of none."""
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers)
    # in float64, since a mask has no size
    return float(wide(numbers).nan_to_num(1.0, 0.0, 0.0).abs().max()) if numbers.numel() else 0.0


class Speaker:
    """Warns once of each thing, at the line of the user that has led to it.

    Args:
        who: Whose warnings they are, as "annealing".
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Warn of something, unless it has been said."""
        if text not in self._said:
            self._said.add(text)
            warn(f"{self.who} {text}")

    def without_inductor(self, reason: str) -> None:
        """Say that the compiler has failed or disagrees, and that the graph runs as it is."""
        self.say(f"runs without inductor: {reason}")

    def as_plain_pyro(self, reason: str) -> None:
        """Say that there is no graph."""
        self.say(f"runs as plain Pyro, not as a flat graph: {reason}")
