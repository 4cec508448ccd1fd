"""Operations that write their result over what nothing needs any more."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

#: Operations on each number alone, with the form that writes over its first argument.
_OVER_THEIR_OWN: dict[Any, Any] = {
    getattr(getattr(aten, name), form): getattr(getattr(aten, f"{name}_"), form)
    for form, names in {
        "default": (
            *("abs", "clamp", "clamp_max", "clamp_min", "exp", "expm1", "log", "log1p", "neg", "reciprocal"),
            *("relu", "rsqrt", "sigmoid", "sqrt", "tanh"),
        ),
        "Tensor": ("add", "div", "mul", "sub"),
    }.items()
    for name in names
}
_OVER_THEIR_OWN[aten.pow.Tensor_Scalar] = aten.pow_.Scalar
_EITHER_WAY = {aten.add.Tensor, aten.mul.Tensor}
#: These and others whose result is memory of its own, which shares nothing with what they are given.
_FRESH = {
    *_OVER_THEIR_OWN,
    aten.addmm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.mm.default,
    aten.softplus.default,
    torch.ops.pyro_vae.linear.default,
}
_LOOK_ONLY = {
    *_FRESH,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.prod.dim_int,
    aten.lt.Scalar,
    aten.gt.Scalar,
}


def in_place(graph: fx.Graph) -> dict[fx.Node, tuple[Any, tuple[Any, ...]]]:
    """For each node that can write over one of its arguments, the operation that does, and its arguments.

    That argument is a result of this graph with memory of its own, of which there is no view, of the
    shape and type of what is written, and nothing uses it later. The results are the same to the last bit;
    memory that was just read is written to faster than new memory.
    """
    last = {source: node for node in graph.nodes for source in node.all_input_nodes}
    found = {}
    for node in graph.nodes:
        if node.target in _OVER_THEIR_OWN:
            first, *others = node.args
            either = node.target in _EITHER_WAY and not node.kwargs
            if _can_be_written_over(first, node, last):
                found[node] = _OVER_THEIR_OWN[node.target], node.args
            elif either and _can_be_written_over(others[0], node, last):
                found[node] = _OVER_THEIR_OWN[node.target], (others[0], first)
    return found


def _can_be_written_over(value: object, node: fx.Node, last: Mapping[fx.Node, fx.Node]) -> bool:
    return (
        isinstance(value, fx.Node)
        and value.target in _FRESH
        and last[value] is node
        and all(user.target in _LOOK_ONLY for user in value.users)
        and _layout(value) is not None
        and _layout(value) == _layout(node)
    )


def _layout(node: fx.Node) -> tuple[Any, ...] | None:
    value = node.meta.get("val")
    return (value.shape, value.stride(), value.dtype, value.device) if isinstance(value, Tensor) else None
