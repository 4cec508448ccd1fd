"""A computation of several members as one batched flat graph, held against each member's own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.compiled.batched import BatchedGraph
from pyro_vae.compiled.kept import Kept, deviation
from pyro_vae.compiled.policy import OTHER_OPERATIONS_IN_SUMS, tolerance
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.record import EagerRun, Function, PlainRun, State, ValuesAndGradients
from pyro_vae.compiled.stacks import Stacks
from pyro_vae.compiled.steps import FlatSteps, kind_of
from pyro_vae.randomness import OwnStream


class Regroup(Exception):
    """Some members have left, and a further graph is to be made for those that have not."""


class Member(NamedTuple):
    """One of those that are computed together."""

    #: Gives a tuple of numbers or scalar tensors, and leaves gradients in the parameters.
    function: Function
    #: What the function depends on besides its arguments.
    roots: Sequence[object]
    #: Its random numbers.
    stream: OwnStream
    #: Around each run of the function by itself.
    around: Callable[[], AbstractContextManager[object]]

    @contextmanager
    def own(self) -> Iterator[None]:
        """Its random numbers, and what is around its runs."""
        with self.stream(), self.around():
            yield

    def run(self, batch: Batch) -> EagerRun:
        """A run by itself, after which buffers and random numbers are as before it."""
        with self.own():
            run = EagerRun(self.function, self.roots, (batch.x,), dict(batch.given))
            run.before.restore()
        return run

    def run_again(self, batch: Batch, earlier: EagerRun) -> PlainRun:
        """The same, where what it reaches is known."""
        with self.own():
            run = PlainRun(self.function, batch, earlier)
            run.before.restore()
        return run


@dataclass
class _Kept:
    """A batched graph, and what it holds for."""

    graph: BatchedGraph
    #: Of each member.
    runs: list[EagerRun]
    #: Of the first member, those whose gradients come after the values.
    leaves: list[Tensor]
    tolerance: float
    #: Whether it has been held against each member on a second batch.
    checked: bool = False


class FlatStepsOfMany:
    """A function that each member has, with tensors of its own, as one batched flat graph.

    The graph is that of the first member, over an axis of members (`BatchedGraph`). Members may differ in
    the contents of their tensors and in their random numbers. In the first two runs for each kind of
    arguments it is held against a run of each member by itself: values, gradients, buffers, and the state of
    the random numbers.

    Args:
        members: Two or more.
        stacks: Where their tensors lie.
        fast: Use operations that are faster and round differently, on a CPU.
    """

    def __init__(self, members: Sequence[Member], stacks: Stacks, *, fast: bool) -> None:
        self.members, self.stacks, self.fast = members, stacks, fast
        #: The places of those that have not left.
        self.active = list(range(len(members)))
        self._kept: dict[object, _Kept] = {}

    def __call__(self, batches: Sequence[Batch]) -> ValuesAndGradients:
        """The values of all members, (M,) each, and their gradients, (M, …) each, by `leaves`.

        Raises:
            Untraceable: where there is no batched graph, or it gives something else. Nothing has changed
                then.
            Regroup: where a graph would have to be made, and some members have left.
        """
        key = (*batches[0].given, *map(kind_of, batches[0].tensors))
        kept = self._kept.get(key)
        if kept is None:
            if len(self.active) < len(self.members):
                raise Regroup
            kept = self._kept[key] = self._build(batches)
            return self._compared(kept, batches, kept.runs)
        if not kept.checked:
            kept.checked = True
            return self._compared(kept, batches)
        return _result(kept, batches)

    @property
    def leaves(self) -> list[Tensor]:
        """Those of the first member that get gradients, in the order of these."""
        return next(iter(self._kept.values())).leaves

    def look_again(self) -> None:
        """Forget the graphs that depend on what has changed."""
        self._kept = {
            key: kept
            for key, kept in self._kept.items()
            if all(kept.runs[member].guards.hold() for member in self.active)
        }

    def let_go(self, member: int) -> None:
        """Draw no longer from the random numbers of a member, and look no longer at what it gives."""
        self.active.remove(member)
        for kept in self._kept.values():
            kept.graph.streams[member] = OwnStream(0, self.members[member].stream.device)

    def _build(self, batches: Sequence[Batch]) -> _Kept:
        """The batched graph of all members."""
        runs = [member.run(batch) for member, batch in zip(self.members, batches, strict=True)]
        for run in runs:
            if run.problem or run.created:
                raise Untraceable(run.problem or f"{run.created} is made anew as it runs")
            if unlike := runs[0].guards.unlike(run.guards):
                raise Untraceable(f"the members differ in {unlike}")
        one = self._graph_of(self.members[0], runs[0], batches[0])
        held, stacked = [], []
        places = {id(tensor): place for place, tensor in enumerate(runs[0].guards.tensors)}
        for tensor in one.graph.tensors:
            place = places.get(id(tensor))
            each = [tensor] if place is None else [run.guards.tensors[place] for run in runs]
            shared = all(other is tensor for other in each)
            held.append(tensor.detach() if shared else self.stacks.of(each))
            stacked.append(not shared)
        self._check_numbers(one, runs, places)
        graph = BatchedGraph(
            one.graph,
            held,
            stacked,
            [member.stream for member in self.members],
            _stacked(batches),
            fast=self.fast,
        )
        rounding = tolerance(one.graph.rounding, OTHER_OPERATIONS_IN_SUMS)
        return _Kept(graph, runs, one.leaves, rounding)

    def _graph_of(self, member: Member, run: EagerRun, batch: Batch) -> Kept:
        """The flat graph of one member."""
        steps = FlatSteps(
            member.function, member.roots, backend="flat", fast=False, who="fit_many", watch=False
        )
        with member.own():
            kept = steps.trace(run, batch.tensors, (batch.x,), dict(batch.given), steps.ways[-1])
            run.before.restore()
        return kept

    def _check_numbers(self, one: Kept, runs: Sequence[EagerRun], places: dict[int, int]) -> None:
        """Refuse a graph that holds for numbers in tensors, which one member may change alone."""
        if one.graph.numbers.reads:
            line = one.graph.numbers.reads[0].line
            raise Untraceable(f"it decides by a number in a tensor {line}".rstrip())

    def _compared(
        self, kept: _Kept, batches: Sequence[Batch], done: Sequence[EagerRun] | None = None
    ) -> ValuesAndGradients:
        """What the graph gives, held against each member by itself, whose runs may be `done`."""
        active = [(member, self.members[member]) for member in self.active]
        runs: Sequence[EagerRun | PlainRun]
        runs = done or [each.run_again(batches[member], kept.runs[member]) for member, each in active]
        before = [each.stream.state for _, each in active]
        result = _result(kept, batches)
        problem = ""
        for (member, each), run in zip(active, runs, strict=True):
            with each.own():
                state = State(run.after.tensors)
            row = ValuesAndGradients(
                [value[member] for value in result.values],
                [None if gradient is None else gradient[member] for gradient in result.gradients],
            )
            problem = problem or deviation(run, row, state, kept.tolerance)
        if problem:
            for (_, each), run, random in zip(active, runs, before, strict=True):
                with each.own():
                    run.before.restore()
                each.stream.state = random
            raise Untraceable(f"{problem} than a member by itself")
        return result


def _stacked(batches: Sequence[Batch]) -> list[Tensor]:
    """The arguments of all members, (M, …) each."""
    return [torch.stack(each) for each in zip(*(batch.tensors for batch in batches), strict=True)]


def _result(kept: _Kept, batches: Sequence[Batch]) -> ValuesAndGradients:
    outputs = kept.graph(_stacked(batches))
    number = len(outputs) - len(kept.leaves)
    return ValuesAndGradients(outputs[:number], outputs[number:])  # type: ignore[arg-type]
