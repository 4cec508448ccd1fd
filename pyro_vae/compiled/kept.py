"""A flat graph that is kept, what it holds for, and how it is held against an eager run."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyro
from torch import Tensor

from pyro_vae.compiled.graph import FlatGraph
from pyro_vae.compiled.guards import Guards
from pyro_vae.compiled.policy import (
    CANCELLED,
    OTHER_OPERATIONS_IN_SUMS,
    SAME_ON_GPU,
    agree,
    size_of,
    tolerance,
)
from pyro_vae.compiled.record import (
    EagerRun,
    PlainRun,
    State,
    ValuesAndGradients,
)
from pyro_vae.errors import one_line


@dataclass
class Kept:
    """A flat graph, and what it holds for."""

    graph: FlatGraph
    guards: Guards
    #: Tensors whose gradients come after the values.
    leaves: list[Tensor]
    #: The parameters that the programs register, by their names in the store.
    sites: dict[str, Tensor]
    #: Largest deviation from an eager run, as a share of the largest number.
    tolerance: float
    #: Whether it has been held against eager Pyro on a second batch.
    checked: bool = False

    def run(self, tensors: Sequence[Tensor]) -> ValuesAndGradients:
        """What the graph gives."""
        outputs = self.graph(*tensors)
        number = len(outputs) - len(self.leaves)
        return ValuesAndGradients(list(outputs[:number]), list(outputs[number:]))  # type: ignore[arg-type]

    def changed(self, watch: bool = True) -> str:
        """What is not as it was when the graph was made; empty where all is."""
        if watch and (changed := self.guards.changed()):
            return changed
        where = self.graph.numbers.changed()
        return f"a number in a tensor, read {where}," if where else ""

    def in_store(self) -> bool:
        """Whether the parameter store still has these very parameters."""
        store = pyro.get_param_store()
        return all(name in store and store[name].unconstrained() is p for name, p in self.sites.items())


def largest_deviation(graph: FlatGraph, way: dict[str, bool], tensors: Sequence[Tensor]) -> float:
    """0 for the same operations on a CPU, else the rounding of some others."""
    same = 0.0 if all(tensor.device.type == "cpu" for tensor in tensors) else SAME_ON_GPU
    return tolerance(graph.rounding, OTHER_OPERATIONS_IN_SUMS if any(way.values()) else same)


def compared(kept: Kept, run: EagerRun, tensors: Sequence[Tensor]) -> tuple[ValuesAndGradients | None, str]:
    """What the graph gives, or else how it differs from an eager run."""
    run.before.restore()
    try:
        result = kept.run(tensors)
        state = State(run.after.tensors)
        problem = deviation(run, result, state, kept.tolerance)
    except Exception as error:  # of a compiler, or of an operation that takes other inputs than in the trace
        problem = one_line(error)
    finally:
        run.after.restore()
    if problem:
        return None, problem
    state.restore()
    return result, ""


def deviation(run: EagerRun | PlainRun, result: ValuesAndGradients, state: State, tolerance: float) -> str:
    """What a graph gives otherwise than an eager run; empty where nothing is.

    Args:
        run: The eager run.
        result: What the graph gives.
        state: What there is after the graph's run.
        tolerance: Largest deviation, as a share of the largest number.
    """
    if not state.same_random_numbers(run.after):
        return "the graph draws other random numbers"
    pairs = {
        "value": zip(result.values, run.result.values, strict=True),
        "gradient": zip(result.gradients, run.result.gradients, strict=True),
        "buffer": zip(state.contents, run.after.contents, strict=True),
    }
    sizes = [size_of(old) for old in run.result.gradients if old is not None]
    # the gradient of a bias before batch norm is zero, and its rounding that of what was added up to it
    least = {"gradient": CANCELLED * max(sizes, default=0.0)}
    for what, couples in pairs.items():
        for new, old in couples:
            size = None if old is None else max(size_of(old), least.get(what, 0.0))
            if not agree(new, old, tolerance, size):
                return f"the graph gives another {what}"
    return ""
