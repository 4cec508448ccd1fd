"""A computation of several members as one batched flat graph, held against each member's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.batch import Batch, BatchOfEach
from pyro_vae.compiled.batched import BatchedGraph
from pyro_vae.compiled.cut import joined
from pyro_vae.compiled.kept import Kept, deviation
from pyro_vae.compiled.memory import available, in_words, most_at_once
from pyro_vae.compiled.policy import OTHER_OPERATIONS_IN_SUMS, tolerance
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.record import EagerRun, Function, PlainRun, State, ValuesAndGradients
from pyro_vae.compiled.stacks import Stacks
from pyro_vae.compiled.steps import FlatSteps, kind_of
from pyro_vae.randomness import OwnStream


class Regroup(Exception):
    """Some members have left, and a further graph is to be made for those that have not."""


class Apart(Untraceable):
    """There is no batched graph, as runs of each member by itself have shown, which stand in its place.

    Args:
        reason: Why there is none.
        runs: Of each member that has not left, by its place; what they have changed in buffers and random
            numbers is given back, and waits in `after`.
        batches: What all were run on.
    """

    def __init__(self, reason: str, runs: "Mapping[int, Run]", batches: BatchOfEach) -> None:
        super().__init__(reason)
        self.runs, self.batches = runs, batches


#: A run of one member by itself.
Run = EagerRun | PlainRun


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


class _Forms(NamedTuple):
    """The different graphs of members."""

    #: Of each member.
    runs: Sequence[EagerRun]
    #: The first member of each graph.
    firsts: list[int]
    #: The graph of each member, by its place.
    which: list[int]
    graphs: list[Kept]

    def tensors(self) -> list[list[Tensor]]:
        """What the graphs close over, each of all members; a constant that is equal for all is one."""
        numbers = {len(each.graph.tensors) for each in self.graphs}
        if len(numbers) > 1:
            raise Untraceable("the members compute in different ways")
        rows = [[self._of(member, at) for member in range(len(self.runs))] for at in range(*numbers)]
        known = {id(tensor) for tensor in self.runs[0].guards.tensors}
        return [
            [row[0]] * len(row)
            if id(row[0]) not in known and all(torch.equal(each, row[0]) for each in row)
            else row
            for row in rows
        ]

    def _of(self, member: int, at: int) -> Tensor:
        """A tensor that its graph closes over, of a member."""
        tensor = self.graphs[self.which[member]].graph.tensors[at]
        there = self.runs[self.firsts[self.which[member]]].guards.tensors
        place = next((place for place, each in enumerate(there) if each is tensor), None)
        return tensor if place is None else self.runs[member].guards.tensors[place]


class FlatStepsOfMany:
    """A function that each member has, with tensors of its own, as one batched flat graph.

    The graph is that of the first member, over an axis of members (`BatchedGraph`). Members may differ in
    the contents of their tensors, in numbers that they compute with, and in their random numbers. In the
    first two runs for each kind of arguments it is held against a run of each member by itself: values,
    gradients, buffers, and the state of the random numbers.

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

    def __call__(self, batches: BatchOfEach) -> ValuesAndGradients:
        """The values of all members, (M,) each, and their gradients, (M, …) each, by `leaves`.

        Raises:
            Untraceable: where there is no batched graph, or it gives something else; `Apart`, where members
                were run to find that out. Buffers and random numbers are as before then.
            Regroup: where a graph would have to be made, and some members have left.
        """
        key = (*batches.given, *map(kind_of, batches.tensors))
        kept = self._kept.get(key)
        if kept is not None and kept.checked:
            return _result(kept, batches)
        if kept is None:
            if len(self.active) < len(self.members):
                raise Regroup
            first = [each.run(batches[number]) for number, each in enumerate(self.members)]
            with self._in_place(first, batches):
                kept = self._kept[key] = self._build(batches, first)
                result = self._compared(kept, batches, first)
        else:
            kept.checked = True
            again = [self.members[m].run_again(batches[m], kept.runs[m]) for m in self.active]
            with self._in_place(again, batches):
                result = self._compared(kept, batches, again)
        return result

    @contextmanager
    def _in_place(self, runs: Sequence[Run], batches: BatchOfEach) -> Iterator[None]:
        """Around what makes or judges a graph: runs of those that have not left, for where there is none."""
        try:
            yield
        except Untraceable as error:
            raise Apart(str(error), dict(zip(self.active, runs, strict=True)), batches) from error

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

    def _build(self, batches: BatchOfEach, runs: list[EagerRun]) -> _Kept:
        """The batched graph of all members."""
        for run in runs:
            if run.problem or run.created:
                raise Untraceable(run.problem or f"{run.created} is made anew as it runs")
            if apart := runs[0].guards.apart(run.guards):
                raise Untraceable(f"the members differ in {apart}")
        forms = self._forms(runs, batches)
        self._check_memory(forms.graphs[0])
        whole = joined([each.graph.module for each in forms.graphs], forms.which)
        held, stacked = [], []
        for tensors in forms.tensors():
            shared = all(each is tensors[0] for each in tensors)
            known = any(tensors[0] is each for each in runs[0].guards.tensors)
            together = self.stacks.of(tensors) if known and not shared else torch.stack(tensors)
            held.append(tensors[0].detach() if shared else together)
            stacked.append(not shared)
        streams = [member.stream for member in self.members]
        graph = BatchedGraph(whole, held, stacked, streams, batches.tensors, fast=self.fast)
        rounding = tolerance(forms.graphs[0].graph.rounding, OTHER_OPERATIONS_IN_SUMS)
        return _Kept(graph, runs, forms.graphs[0].leaves, rounding)

    def _forms(self, runs: Sequence[EagerRun], batches: BatchOfEach) -> _Forms:
        """The graphs of the members, one for all that differ in contents of tensors only."""
        firsts: list[int] = []
        which = []
        for number, run in enumerate(runs):
            alike = [place for place, first in enumerate(firsts) if not runs[first].guards.unlike(run.guards)]
            firsts += [] if alike else [number]
            which.append(alike[0] if alike else len(firsts) - 1)
        graphs = [self._graph_of(self.members[first], runs[first], batches[first]) for first in firsts]
        for each in graphs:
            if each.graph.numbers.reads:
                line = each.graph.numbers.reads[0].line
                raise Untraceable(f"it decides by a number in a tensor {line}".rstrip())
        return _Forms(runs, firsts, which, graphs)

    def _graph_of(self, member: Member, run: EagerRun, batch: Batch) -> Kept:
        """The flat graph of one member."""
        steps = FlatSteps(
            member.function, member.roots, backend="flat", fast=False, who="fit_many", watch=False
        )
        with member.own():
            try:
                return steps.trace(run, batch.tensors, (batch.x,), dict(batch.given), steps.ways[-1])
            finally:
                run.before.restore()

    def _check_memory(self, one: Kept) -> None:
        """Refuse a graph of all members that does not fit into memory, where that of one may."""
        device = self.members[0].stream.device
        number, free = len(self.members), available(device)
        needed = number * most_at_once(one.graph.module.graph)
        if needed > free:
            raise Untraceable(
                f"a step of {number} members at once takes {in_words(needed)} for what it computes, and "
                f"{in_words(free)} are free on {device}"
            )

    def _compared(self, kept: _Kept, batches: BatchOfEach, runs: Sequence[Run]) -> ValuesAndGradients:
        """What the graph gives, held against each member that has not left by itself."""
        active = [(member, self.members[member]) for member in self.active]
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


def _result(kept: _Kept, batches: BatchOfEach) -> ValuesAndGradients:
    outputs = kept.graph(batches.tensors)
    number = len(outputs) - len(kept.leaves)
    return ValuesAndGradients(outputs[:number], outputs[number:])  # type: ignore[arg-type]
