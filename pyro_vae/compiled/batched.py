"""A flat graph of one member, run for several at once.

The graph of one is cut at its random draws. They are made member by member, each from its own random
numbers, as that member would make them alone; all else is one graph over tensors with an axis of members,
by `torch.vmap`.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.compiled.graph import FlatGraph, lift, straight_line
from pyro_vae.compiled.passes import use_fast_operations
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.simplify import has_effect, is_unfilled, own_outputs, simplify
from pyro_vae.errors import one_line
from pyro_vae.randomness import OwnStream, in_each

aten = torch.ops.aten

Outputs = list[Tensor | None]


class Cut(NamedTuple):
    """A graph in two: what is drawn, and what is computed from it."""

    #: Of some inputs: the draws, as a list.
    draws: fx.GraphModule
    #: The places of these inputs among those of the graph.
    needed: list[int]
    #: Of all inputs, and after them the draws.
    rest: fx.GraphModule


class BatchedGraph:
    """A flat graph for M members at once.

    Args:
        graph: Of one member, without a prelude.
        held: For each tensor that the graph closes over that of all members, (M, …), or the one that they
            share.
        stacked: Which of `held` are of all members.
        streams: The random numbers of each member.
        args: Arguments of all members, (M, …) each; the graph is for these shapes only.
        fast: Use operations that are faster and round differently, on a CPU.

    Raises:
        Untraceable: where torch has no batched form of it, or its draws change something else.
    """

    def __init__(
        self,
        graph: FlatGraph,
        held: Sequence[Tensor],
        stacked: Sequence[bool],
        streams: Sequence[OwnStream],
        args: Sequence[Tensor],
        *,
        fast: bool,
    ) -> None:
        self.held, self.streams = list(held), list(streams)
        cut = cut_at_draws(graph.module)
        self._needed = cut.needed
        self._draws = straight_line(cut.draws)
        self._own = [True] * len(args) + list(stacked)
        draws = self.draw([*args, *self.held], keep=True)
        example = [each.detach() for each in (*args, *self.held, *draws)]
        axes = [0 if own else None for own in (*self._own, *[True] * len(draws))]
        try:
            module, self._given = _batched(cut.rest, axes, example)
            self.constants = lift(module)
            simplify(module, self.constants)
            if fast:
                use_fast_operations(module)
            own_outputs(module)
        except Untraceable:
            raise
        except Exception as error:  # of an operation without a batched form
            raise Untraceable(f"torch cannot batch an operation of it ({one_line(error)[:200]})") from error
        self.module = module
        self._run = straight_line(module)

    @torch.no_grad()
    def draw(self, inputs: Sequence[Tensor], *, keep: bool = False) -> list[Tensor]:
        """The draws of all members, (M, …) each; with `keep` their random numbers stay as they are."""
        needed = [(inputs[place], self._own[place]) for place in self._needed]
        makers = [
            partial(self._draws, *(tensor[member] if own else tensor for tensor, own in needed))
            for member in range(len(self.streams))
        ]
        drawn = in_each(self.streams, makers, keep=keep)
        return [torch.stack(each) for each in zip(*drawn, strict=True)]

    @torch.no_grad()
    def __call__(self, args: Sequence[Tensor]) -> Outputs:
        """What the graph gives for other arguments of the same shapes: (M, …) each, or None."""
        inputs = [*args, *self.held]
        found = iter(self._run(*inputs, *self.draw(inputs), *self.constants))
        return [next(found) if given else None for given in self._given]


def _batched(
    rest: fx.GraphModule, axes: Sequence[int | None], example: Sequence[Tensor]
) -> tuple[fx.GraphModule, list[bool]]:
    """A graph over an axis of members, and which of its outputs are tensors."""
    (output,) = (node for node in rest.graph.nodes if node.op == "output")
    given = [each is not None for each in output.args[0]]
    output.args = ([each for each in output.args[0] if each is not None],)
    run = straight_line(rest)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # one member after the other
        try:  # a tensor without an axis of members cannot take in place what has one
            return _traced(torch.func.functionalize(run), axes, example), given
        except RuntimeError:  # of views by strides
            return _traced(run, axes, example), given


def _traced(run: Callable[..., Any], axes: Sequence[int | None], example: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of a function over an axis of members."""
    copies = [each.clone() for each in example]  # since a run may change them
    module: fx.GraphModule = make_fx(torch.vmap(run, in_dims=tuple(axes)))(*copies)
    return module


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
