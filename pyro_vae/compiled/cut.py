"""Flat graphs cut at their random draws, and those of several members as one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.simplify import has_effect, is_unfilled

aten = torch.ops.aten

_PACKETS = (aten.add, aten.sub, aten.mul, aten.div, aten.add_, aten.sub_, aten.mul_, aten.div_)
#: Operations with a number, and those that take it as a tensor.
_OF_TENSORS = {
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor,
    **{each.Scalar: each.Tensor for each in _PACKETS},
    **{each.Tensor: each.Tensor for each in _PACKETS},
}


class Number(NamedTuple):
    """A number in which the graphs of members differ."""

    values: list[float]
    dtype: torch.dtype


class Cut(NamedTuple):
    """A graph in two: what is drawn, and what is computed from it."""

    #: Of some inputs: the draws, as a list.
    draws: fx.GraphModule
    #: The places of these inputs among those of the graph.
    needed: list[int]
    #: Of all inputs, and after them the draws.
    rest: fx.GraphModule


class Joined(NamedTuple):
    """The graphs of several members, each cut in two, as one."""

    #: Of each member.
    draws: list[fx.GraphModule]
    #: The places of what they draw from among the inputs of the graph.
    needed: list[int]
    #: Of all inputs, after them the draws, and after these the numbers.
    rest: fx.GraphModule
    #: In which the members differ.
    numbers: list[Number]


def joined(modules: Sequence[fx.GraphModule], which: Sequence[int]) -> Joined:
    """Graphs that differ in numbers only as one, in which these are inputs.

    Args:
        modules: The graphs.
        which: The graph of each member, by its place among them.

    Raises:
        Untraceable: where they differ in something else.
    """
    cuts = [cut_at_draws(module) for module in modules]
    first = cuts[0]
    if any(cut.needed != first.needed for cut in cuts):
        raise Untraceable("the members draw in different ways")
    numbers: list[Number] = []
    for nodes in _rows(cuts):
        values = [_plain(node) for node in nodes]
        for place, each in enumerate(zip(*values, strict=True)):
            if any(repr(value) != repr(each[0]) for value in each):
                numbers.append(_as_input(nodes[0], place, [each[graph] for graph in which]))
    first.rest.graph.lint()
    first.rest.recompile()
    return Joined([cuts[graph].draws for graph in which], first.needed, first.rest, numbers)


def _rows(cuts: Sequence[Cut]) -> list[tuple[fx.Node, ...]]:
    """The nodes of all graphs side by side, refused where they are not of one form."""
    lists = [list(cut.rest.graph.nodes) for cut in cuts]
    places = [{node: place for place, node in enumerate(nodes)} for nodes in lists]
    if len({len(nodes) for nodes in lists}) > 1:
        raise Untraceable("the members compute in different ways")
    rows = list(zip(*lists, strict=True))
    for nodes in rows:
        forms = {
            (
                str(node.target),
                node.op,
                tuple(at[source] for source in node.all_input_nodes),
                len(_plain(node)),
            )
            for node, at in zip(nodes, places, strict=True)
            if node.op == "call_function"
        }
        if len(forms) > 1:
            raise Untraceable(f"the members compute in different ways ({nodes[0].target})")
    return rows


def _plain(node: fx.Node) -> list[Any]:
    """All arguments of a node but nodes, in their order."""
    if node.op != "call_function":
        return []
    found: list[Any] = []
    for value in (*node.args, *node.kwargs.values()):
        fx.node.map_aggregate(value, lambda each: found.append(None if isinstance(each, fx.Node) else each))
    return found


def _as_input(node: fx.Node, place: int, values: list[Any]) -> Number:
    """Let a node take a number from a further input of the graph."""
    dtype = node.meta["val"].dtype if isinstance(node.meta.get("val"), Tensor) else None
    usual = len(node.args) == 2 and place == 1 and not node.kwargs and node.target in _OF_TENSORS
    if not usual or dtype is None or not all(isinstance(value, int | float) for value in values):
        raise Untraceable(f"the members differ in {values[0]} and another value of {node.target}")
    inputs = [each for each in node.graph.nodes if each.op == "placeholder"]
    with node.graph.inserting_after(inputs[-1]):
        number = node.graph.placeholder(f"number_{len(inputs)}")
    number.meta = {"val": torch.zeros((), dtype=dtype)}
    node.target = _OF_TENSORS[node.target]  # type: ignore[index]
    node.args = (node.args[0], number)
    return Number([float(value) for value in values], dtype)


def cut_at_draws(module: fx.GraphModule) -> Cut:
    """What a graph draws, with all that this takes, apart from what it computes.

    Raises:
        Untraceable: where what comes before a draw changes a tensor in place, as a running mean.
    """
    graph = module.graph
    random = [node for node in graph.nodes if _is_random(node)]
    before = _before(random)
    for node in before:
        if _changes(node) and not _is_random(node):
            raise Untraceable(f"it changes a tensor ({node.target}) before it draws")
    for node in random:
        if _changes(node) and len(node.args[0].users) > 1:
            raise Untraceable(f"it draws into a tensor that it uses elsewhere ({node.target})")
    drawn = [each for node in random for each in _tensors_of(node)]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    needed = [place for place, node in enumerate(inputs) if node in before]
    return Cut(_draws(module, before, drawn), needed, _rest(module, drawn))


def _is_random(node: fx.Node) -> bool:
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    return torch.Tag.nondeterministic_seeded in tags


def _changes(node: fx.Node) -> bool:
    """Whether a node changes a tensor in place."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    """What stands for the tensors that a node gives: itself, or the elements of its tuple."""
    return [node] if isinstance(node.meta.get("val"), Tensor) else list(node.users)


def _before(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Some nodes, and all on whose numbers they depend."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        node = waiting.pop()
        sources = () if is_unfilled(node) else node.all_input_nodes
        waiting += [source for source in sources if source not in found]
        found.update(sources)
    return found


def _draws(module: fx.GraphModule, before: set[fx.Node], drawn: Sequence[fx.Node]) -> fx.GraphModule:
    """The graph of the draws."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node not in before and node not in drawn:
            continue
        if is_unfilled(node):  # made from the shape, since its input is not there
            value = node.meta["val"]
            kind = {"dtype": value.dtype, "device": value.device}
            sizes = (list(value.shape), list(value.stride()))
            copies[node] = graph.call_function(aten.empty_strided.default, sizes, kind)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in drawn])
    return fx.GraphModule(module, graph)


def _rest(module: fx.GraphModule, drawn: Sequence[fx.Node]) -> fx.GraphModule:
    """The graph with its draws as further inputs."""
    graph = fx.Graph()
    copies = {node: graph.node_copy(node) for node in module.graph.nodes if node.op == "placeholder"}
    for number, node in enumerate(drawn):
        copies[node] = graph.placeholder(f"draw_{number}")
        copies[node].meta = dict(node.meta)
    for node in module.graph.nodes:
        if node not in copies and not _is_random(node):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.eliminate_dead_code(has_effect)
    _with_plain_operations(graph)
    return fx.GraphModule(module, graph)


def _with_plain_operations(graph: fx.Graph) -> None:
    """Put others in the place of one whose kernel complains of a gradient that is the same for all."""
    for node in list(graph.nodes):
        if node.target is aten.log_sigmoid_backward.default:
            gradient, x, _ = node.args
            with graph.inserting_before(node):
                share = graph.call_function(
                    aten.sigmoid.default, (graph.call_function(aten.neg.default, (x,)),)
                )
                new = graph.call_function(aten.mul.Tensor, (gradient, share))
            node.replace_all_uses_with(new)
            graph.erase_node(node)
