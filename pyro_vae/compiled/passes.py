"""How a flat graph computes faster: matrix products by oneDNN, and a compiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from pyro_vae.compiled.simplify import has_effect

aten = torch.ops.aten

#: Floating-point operations of a product below which MKL is faster, and the least columns of its result.
_LEAST_FLOPS, _LEAST_COLUMNS = 10_000_000, 32

_library = torch.library.Library("pyro_vae", "DEF")
_library.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return result


_library.impl("linear", _linear, "CPU")


@torch.library.register_fake("pyro_vae::linear", lib=_library)
def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def use_onednn(module: fx.GraphModule) -> int:
    """Give large float32 matrix products on a CPU to oneDNN; returns how many they are.

    `torch.mm` goes to MKL, which leaves half of the vector units idle on CPUs of other makers than Intel:
    on an AMD EPYC of the Zen 4 generation 190 GFLOP/s on two cores, where oneDNN gives 400.
    """
    if not torch.backends.mkldnn.is_available():
        return 0
    large = [node for node in module.graph.nodes if _is_large_product(node)]
    for node in large:
        *bias, left, right = node.args
        with module.graph.inserting_before(node):
            weight = _transposed(module.graph, right)
            new = module.graph.call_function(
                torch.ops.pyro_vae.linear.default, (left, weight, bias[0] if bias else None)
            )
        new.meta = node.meta
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code(has_effect)
    module.recompile()
    return len(large)


def _is_large_product(node: fx.Node) -> bool:
    """Whether a node is a float32 product on a CPU that is worth the start of oneDNN."""
    if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs:
        return False
    *bias, left, right = (argument.meta["val"] for argument in node.args)  # type: ignore[union-attr]
    flops = 2 * left.shape[0] * left.shape[1] * right.shape[1]
    return (
        left.dtype == torch.float32
        and left.device.type == "cpu"
        and flops >= _LEAST_FLOPS
        and right.shape[1] >= _LEAST_COLUMNS
        and all(tensor.ndim == 1 for tensor in bias)
    )


def _transposed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The transpose of a matrix, which is another's transpose as a rule."""
    if node.target is aten.t.default:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source
    new = graph.call_function(aten.t.default, (node,))
    new.meta = {**node.meta, "val": node.meta["val"].t()}
    return new


def compiled(module: fx.GraphModule) -> Callable[..., Any]:
    """The graph compiled by inductor, with the random numbers that it draws uncompiled.

    Dynamo's guards are left out: the caller knows when a graph holds.
    """
    run: Callable[..., Any] = torch.compile(
        module,
        fullgraph=True,
        dynamic=False,
        options={
            "fallback_random": True,
            "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        },
    )
    return run
