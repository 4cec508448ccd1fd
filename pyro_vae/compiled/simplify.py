"""Fewer operations in a flat graph, with the same results to the last bit."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

#: Constants larger than this, in numbers, are made anew at each run rather than kept.
_KEPT_AT_MOST = 2**20

_UNFILLED = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}
#: Operations that look at shape and type of their tensor only.
_FILLED_LIKE = {
    aten.ones_like,
    aten.zeros_like,
    aten.full_like,
    aten.new_ones,
    aten.new_zeros,
    aten.new_full,
}


def simplify(module: fx.GraphModule, held: list[Tensor]) -> None:
    """Drop views that change nothing, compute constants once, and what is computed twice once.

    Constants become inputs of the graph after its own, and are appended to `held`, which are those tensors
    that the last inputs stand for.
    """
    changed = _changed_in_place(module.graph)
    _drop_empty_views(module.graph, changed)
    _keep_constants(module.graph, held, changed)
    share(module.graph)
    module.graph.eliminate_dead_code(has_effect)
    module.graph.lint()
    module.recompile()


def has_effect(node: fx.Node) -> bool:
    """Whether a node must stay though nothing uses it: an input, a change in place, a random draw."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op != "call_function"
    if node.target.namespace == "pyro_vae" and node.target is torch.ops.pyro_vae.read.default:
        return True  # the note that a number has been read
    return node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags


def is_unfilled(node: fx.Node) -> bool:
    """Whether a node gives memory that something will fill, so that it looks at shapes only."""
    return getattr(node.target, "overloadpacket", None) in _UNFILLED


def _is_pure(node: fx.Node) -> bool:
    """Whether a node gives the same result for the same inputs, and does nothing else."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return node.op == "call_function"
    return not has_effect(node) and not is_unfilled(node)


def _changed_in_place(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose tensors share memory with one that an operation changes."""
    family: dict[fx.Node, fx.Node] = {}  # a view → what it is a view of

    def root(node: fx.Node) -> fx.Node:
        while node in family:
            node = family[node]
        return node

    roots = set()
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema
            given = [*zip(schema.arguments, node.args, strict=False)]
            given += [(each, node.kwargs[each.name]) for each in schema.arguments if each.name in node.kwargs]
            shares: list[fx.Node] = []
            for argument, value in given:
                if argument.alias_info is not None:
                    fx.map_arg(value, shares.append)
            if schema.is_mutable:
                roots |= {root(value) for value in shares}
            if shares:
                family[node] = shares[0]
        elif node.op == "call_function" and isinstance(node.args[0], fx.Node):
            family[node] = node.args[0]  # an element of a tuple
    return {node for node in graph.nodes if root(node) in roots}


def _drop_empty_views(graph: fx.Graph, changed: set[fx.Node]) -> None:
    """Use the tensor itself where a view of it has the same shape and strides."""
    packets = {aten.alias, aten.detach, aten.expand, aten.view, aten._unsafe_view, aten.lift_fresh_copy}
    for node in graph.nodes:
        if getattr(node.target, "overloadpacket", None) in packets and node not in changed:
            source = node.args[0]
            if _layout(node) == _layout(source):
                node.replace_all_uses_with(source)


def _layout(node: fx.Node) -> tuple[Any, ...]:
    value = node.meta["val"]
    return value.shape, value.stride(), value.dtype, value.storage_offset()


def _keep_constants(graph: fx.Graph, held: list[Tensor], changed: set[fx.Node]) -> None:
    """Compute once, now, what depends on no input."""
    constants: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node not in changed and _is_pure(node):
            inputs = node.all_input_nodes
            if all(source in constants for source in inputs):
                found = fx.map_arg((node.args, node.kwargs), constants.__getitem__)
            elif getattr(node.target, "overloadpacket", None) in _FILLED_LIKE:
                found = fx.map_arg((node.args, node.kwargs), _blank)
            else:
                continue
            constants[node] = node.target(*found[0], **found[1])
    for node, value in constants.items():
        used_outside = any(user not in constants for user in node.users)
        if used_outside and isinstance(value, Tensor) and value.untyped_storage().nbytes() <= _KEPT_AT_MOST:
            last = add_input(graph, f"constant_{len(held)}")
            last.meta = dict(node.meta)
            held.append(value)
            node.replace_all_uses_with(last)


def _blank(node: fx.Node) -> Tensor:
    """A tensor of the node's shape and type, on its device."""
    value = node.meta["val"]
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


def share(graph: fx.Graph) -> None:
    """Compute once what is computed from the same inputs in the same way."""
    changed = _changed_in_place(graph)
    first: dict[object, fx.Node] = {}
    for node in graph.nodes:
        alone = node not in changed and not any(source in changed for source in node.all_input_nodes)
        if node.op == "call_function" and alone and _is_pure(node):
            key = (node.target, _hashable(node.args), _hashable(node.kwargs))
            node.replace_all_uses_with(first.setdefault(key, node))


def independent(graph: fx.Graph, inputs: Iterable[fx.Node]) -> set[fx.Node]:
    """What depends on nothing but these inputs, and is not changed in place."""
    changed = _changed_in_place(graph)
    fixed = set(inputs) - changed
    for node in graph.nodes:
        if node.op == "call_function" and node not in changed and _is_pure(node):
            fixed |= {node} if fixed.issuperset(node.all_input_nodes) else set()
    return fixed


def split(module: fx.GraphModule, num_args: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """What a graph computes without its first `num_args` inputs, and the rest.

    Returns:
        A graph of the other inputs that gives a list of tensors; one of the first inputs and these tensors.
    """
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    fixed = independent(module.graph, inputs[num_args:])
    handed = [node for node in module.graph.nodes if node in fixed and not fixed.issuperset(node.users)]
    before, after = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node in fixed:
            copies[node] = before.node_copy(node, copies.__getitem__)
    before.output([copies[node] for node in handed])
    copies = {}
    for node in inputs[:num_args]:
        copies[node] = after.node_copy(node)
    for number, node in enumerate(handed):
        copies[node] = after.placeholder(f"settled_{number}")
        copies[node].meta = dict(node.meta)
    for node in module.graph.nodes:
        if node not in fixed and node.op != "placeholder":
            copies[node] = after.node_copy(node, copies.__getitem__)
    rest = fx.GraphModule(module, after)
    own_outputs(rest)
    return fx.GraphModule(module, before), rest


def add_input(graph: fx.Graph, name: str) -> fx.Node:
    """A further input, after those that there are."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if inputs:
        with graph.inserting_after(inputs[-1]):
            return graph.placeholder(name)
    with graph.inserting_before(next(iter(graph.nodes))):
        return graph.placeholder(name)


def own_outputs(module: fx.GraphModule) -> None:
    """Copy outputs that are inputs or another output, since who gets them may change them in place."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    given: set[fx.Node] = set()

    def own(node: fx.Node) -> fx.Node:
        if node.op != "placeholder" and node not in given:
            given.add(node)
            return node
        with module.graph.inserting_before(output):
            copy = module.graph.call_function(aten.clone.default, (node,))
        copy.meta = dict(node.meta)
        return copy

    output.args = fx.map_arg(output.args, own)
    module.recompile()


def _hashable(value: object) -> object:
    """Arguments as something that can be looked up; numbers of different types stay apart."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((name, _hashable(item)) for name, item in sorted(value.items()))
    return value if isinstance(value, fx.Node) else (type(value), value)
