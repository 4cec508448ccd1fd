"""How a flat graph computes faster: operations that cost less, and a compiler."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from pyro_vae.compiled import machine
from pyro_vae.compiled.ahead import key_of
from pyro_vae.compiled.machine import Way
from pyro_vae.compiled.simplify import has_effect, share

aten = torch.ops.aten

#: Floating-point operations of a product below which MKL is faster, and the least columns of its result.
_LEAST_FLOPS, _LEAST_COLUMNS = 10_000_000, 32
#: The same within a compiled step, and the share of MKL's time that oneDNN may take there, since it is called
#: from Python: where it took nine tenths of it, a step of 784-400-20 at batch 128 took a third longer.
_LEAST_FLOPS_IN_A_STEP, _CLEARLY_IN_A_STEP = 40_000_000, 0.6
#: Numbers below which one slow operation is faster than several.
_LEAST_NUMBERS = 10_000

#: How often the numbers of a product are halved at most, and by what their number is to be divisible.
_MOST_HALVINGS, _LEAST_HALVED = 5, 4

#: Compiled graphs that are kept.
_KEPT = 32

#: The further arguments of softplus with β = 1, and of a cross-entropy without weights, of each number alone.
_USUAL_SOFTPLUS, _EACH_ALONE = ((), (1.0, 20.0)), (None, None, 0)
_BERNOULLI = aten.binary_cross_entropy_with_logits.default

_library = torch.library.Library("pyro_vae", "DEF")
_library.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return result


_library.impl("linear", _linear, "CPU")


@torch.library.register_fake("pyro_vae::linear", lib=_library)
def _linear_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def use_fast_operations(module: fx.GraphModule, *, fused: bool = False) -> None:
    """Put other operations in the place of some on float32 on a CPU; results agree up to rounding.

    Each is taken where it is faster on the machine at hand (`machine`); where a compiler fuses them, those on
    each number alone in any case.

    * Large matrix products go to oneDNN. `torch.mm` goes to MKL, which leaves half of the vector units idle
      on CPUs of other makers than Intel.
    * Softplus and the Bernoulli density of logits use log(1 + y) with y = exp(−|x|), in the place of
      log1p(y), which takes 1 to 20 times as long. The error is that of rounding 1 + y, 6e-8 at most, and
      counts beside max(x, 0) only.
    * Where that density is summed over the last axis, one logarithm is taken of the product of up to 32
      numbers 1 + y, which are from 1 to 2; a compiler, which makes one loop of all, is not given that.
    """
    for node in [] if fused else list(module.graph.nodes):
        if (parts := _density(node)) is not None and _sum_is_faster(parts):
            _replace(node, partial(_sum_of_densities, parts))
    module.graph.eliminate_dead_code(has_effect)
    for node in list(module.graph.nodes):
        make = _other_way(node)
        if make is not None and _is_faster(node, make, fused):
            _replace(node, make)
    share(module.graph)
    module.graph.eliminate_dead_code(has_effect)
    module.recompile()


Make = Callable[..., fx.Node]


def _other_way(node: fx.Node) -> Make | None:
    """What can stand in the place of an operation, where that may pay."""
    if node.target in (aten.mm.default, aten.addmm.default) and _is_large_product(node):
        return _by_onednn
    if node.target is aten.softplus.default and node.args[1:] in _USUAL_SOFTPLUS and _is_large(node):
        return _softplus
    if node.target is _BERNOULLI and node.args[2:] == _EACH_ALONE and _is_large(node):
        return _cross_entropy
    return None


class _Density(NamedTuple):
    """Log densities of Bernoulli variables, of which a sum over the last axis is taken."""

    logits: fx.Node
    x: fx.Node
    #: The view by which the axes of a datum become one; None where there is one.
    view: fx.Node | None


def _density(node: fx.Node) -> _Density | None:
    """What a node is the sum of, where it is one of minus a cross-entropy, over the last axis."""
    if node.target is not aten.sum.dim_IntList or node.args[1:] != ([-1],) or node.kwargs:
        return None
    summed = node.args[0]
    assert isinstance(summed, fx.Node)
    view = summed if summed.target is aten.view.default else None
    negative = summed if view is None else view.args[0]
    if not isinstance(negative, fx.Node) or negative.target is not aten.neg.default:
        return None
    entropy = negative.args[0]
    assert isinstance(entropy, fx.Node)
    chain = [*([] if view is None else [view]), negative, entropy]
    if (
        entropy.target is not _BERNOULLI
        or entropy.args[2:] != _EACH_ALONE
        or not _is_large(entropy)
        or any(len(each.users) > 1 for each in chain)
        or summed.meta["val"].shape[-1] % _LEAST_HALVED
    ):
        return None
    logits, x = entropy.args[:2]
    assert isinstance(logits, fx.Node) and isinstance(x, fx.Node)
    return _Density(logits, x, view) if logits.meta["val"].shape == x.meta["val"].shape else None


def _sum_of_densities(density: _Density, graph: fx.Graph, *_: object) -> fx.Node:
    """Σ_d (x_d l_d − max(l_d, 0)) − Σ_g log Π_{d in g} (1 + exp(−|l_d|))."""
    linear, ones = (
        _viewed(graph, each, density.view)
        for each in (_without_logs(graph, density.logits, density.x), _one_plus_exp(graph, density.logits))
    )
    halvings = 0
    while halvings < _MOST_HALVINGS and ones.meta["val"].shape[-1] % 2 == 0:
        half = ones.meta["val"].shape[-1] // 2
        first, second = (_part(graph, ones, start, start + half) for start in (0, half))
        ones = _each(graph, aten.mul.Tensor, first, second)
        halvings += 1
    logs = _summed(graph, _each(graph, aten.log.default, ones))
    sums = _each(graph, aten.neg.default, _summed(graph, linear))
    return _each(graph, aten.sub.Tensor, sums, logs)


def _viewed(graph: fx.Graph, node: fx.Node, like: fx.Node | None) -> fx.Node:
    if like is None:
        return node
    shape = list(like.meta["val"].shape)
    viewed = graph.call_function(aten.reshape.default, (node, shape))  # in whatever order they lie in memory
    viewed.meta = {"val": node.meta["val"].reshape(shape)}
    return viewed


def _part(graph: fx.Graph, node: fx.Node, start: int, end: int) -> fx.Node:
    part = graph.call_function(aten.slice.Tensor, (node, -1, start, end))
    part.meta = {"val": node.meta["val"][..., start:end]}
    return part


def _summed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    summed = graph.call_function(aten.sum.dim_IntList, (node, [-1]))
    summed.meta = {"val": node.meta["val"].sum(-1)}
    return summed


def _sum_is_faster(density: _Density) -> bool:
    """Whether a sum of densities is faster by a logarithm of a product."""
    logits, x, view = density
    shown = [logits.meta["val"], x.meta["val"]]

    def ways() -> tuple[Way, Way]:
        tensors = [_filled_as(each) for each in shown]
        shape = shown[0].shape if view is None else view.meta["val"].shape

        def usual() -> Tensor:
            return aten.sum.dim_IntList(_BERNOULLI(*tensors, *_EACH_ALONE).neg().view(shape), [-1])

        def by_product(graph: fx.Graph, logits: fx.Node, x: fx.Node) -> fx.Node:
            return _sum_of_densities(_Density(logits, x, view), graph)

        other = _alone(by_product, (logits, x))
        return usual, lambda: other(*tensors)

    return machine.FASTER.other(f"sum of {_BERNOULLI}: {_layouts(shown)}", ways)


def _is_faster(node: fx.Node, make: Make, fused: bool) -> bool:
    """Whether an operation is faster in another way, on numbers of this shape in this order in memory."""
    if fused and make is not _by_onednn:
        return machine.FASTER.allowed()
    shown = [argument.meta["val"] for argument in node.args if isinstance(argument, fx.Node)]
    return machine.FASTER.other(f"{node.target}: {_layouts(shown)}", lambda: _both_ways(node, make))


def _layouts(values: Sequence[Tensor]) -> str:
    """Shapes and order in memory, in words."""
    return ", ".join(f"{tuple(each.shape)} {each.stride()}" for each in values)


def _filled_as(value: Tensor) -> Tensor:
    """Numbers of its shape and order in memory."""
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).fill_(0.5)


def _both_ways(node: fx.Node, make: Make) -> tuple[Way, Way]:
    """An operation on numbers of its shapes, as it is and in another way."""
    sources = node.all_input_nodes
    tensors = [_filled_as(source.meta["val"]) for source in sources]

    def from_inputs(graph: fx.Graph, *inputs: fx.Node) -> fx.Node:
        return make(graph, *fx.map_arg(node.args, dict(zip(sources, inputs, strict=True)).__getitem__))

    other = _alone(from_inputs, sources)
    args = fx.map_arg(node.args, dict(zip(sources, tensors, strict=True)).__getitem__)
    target: Callable[..., object] = node.target  # type: ignore[assignment]
    return lambda: target(*args), lambda: other(*tensors)


def _alone(make: Make, sources: Sequence[fx.Node]) -> Callable[..., object]:
    """What is made from some nodes, as a function of their values."""
    graph = fx.Graph()
    inputs = []
    for source in sources:
        inputs.append(graph.placeholder(source.name))
        inputs[-1].meta = dict(source.meta)
    graph.output(make(graph, *inputs))
    return fx.GraphModule({}, graph).forward


def _replace(node: fx.Node, make: Make) -> None:
    with node.graph.inserting_before(node):
        new = make(node.graph, *node.args)
    new.meta = node.meta
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def _by_onednn(graph: fx.Graph, *args: fx.Node) -> fx.Node:
    *bias, left, right = args
    weight = _transposed(graph, right)
    return graph.call_function(torch.ops.pyro_vae.linear.default, (left, weight, bias[0] if bias else None))


def _softplus(graph: fx.Graph, x: fx.Node, *_: float) -> fx.Node:
    """max(x, 0) + log(1 + exp(−|x|))."""
    logs = _each(graph, aten.log.default, _one_plus_exp(graph, x))
    return _each(graph, aten.add.Tensor, _each(graph, aten.clamp_min.default, x, 0), logs)


def _cross_entropy(graph: fx.Graph, logits: fx.Node, x: fx.Node, *_: object) -> fx.Node:
    """max(l, 0) − x l + log(1 + exp(−|l|)) for logits l: minus the log density of a Bernoulli."""
    logs = _each(graph, aten.log.default, _one_plus_exp(graph, logits))
    return _each(graph, aten.add.Tensor, _without_logs(graph, logits, x), logs)


def _without_logs(graph: fx.Graph, logits: fx.Node, x: fx.Node) -> fx.Node:
    """max(l, 0) − x l."""
    positive = _each(graph, aten.clamp_min.default, logits, 0)
    product = _each(graph, aten.mul.Tensor, logits, x)
    return _each(graph, aten.sub.Tensor, positive, product)


def _one_plus_exp(graph: fx.Graph, x: fx.Node) -> fx.Node:
    """1 + exp(−|x|)."""
    size = _each(graph, aten.neg.default, _each(graph, aten.abs.default, x))
    return _each(graph, aten.add.Tensor, _each(graph, aten.exp.default, size), 1)


def _each(graph: fx.Graph, target: Any, first: fx.Node, *others: Any) -> fx.Node:
    """An operation on each number of its first argument alone."""
    node = graph.call_function(target, (first, *others))
    node.meta = {"val": torch.empty_like(first.meta["val"])}
    return node


def _is_large(node: fx.Node) -> bool:
    """Whether an operation on float32 on a CPU is large enough for several in its place."""
    value = node.meta["val"]
    return value.dtype == torch.float32 and value.device.type == "cpu" and value.numel() >= _LEAST_NUMBERS


def _is_large_product(node: fx.Node) -> bool:
    """Whether a float32 product on a CPU is worth the start of oneDNN."""
    if node.kwargs or not torch.backends.mkldnn.is_available():
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


def leave_to_mkl(module: fx.GraphModule) -> None:
    """Give products back to `torch.mm` that oneDNN, called from Python, does not make faster in a step."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.pyro_vae.linear.default and not _gains_in_a_step(node):
            _replace(node, _by_mkl)
    module.graph.eliminate_dead_code(has_effect)
    module.recompile()


def _by_mkl(graph: fx.Graph, x: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    right = graph.call_function(aten.t.default, (weight,))
    if bias is None:
        return graph.call_function(aten.mm.default, (x, right))
    return graph.call_function(aten.addmm.default, (bias, x, right))


def _gains_in_a_step(node: fx.Node) -> bool:
    x, weight = (argument.meta["val"] for argument in node.args[:2])  # type: ignore[union-attr]
    flops = 2 * x.shape[0] * x.shape[1] * weight.shape[0]
    if flops < _LEAST_FLOPS_IN_A_STEP:
        return False

    def ways() -> tuple[Way, Way]:
        left, right = _filled_as(x), _filled_as(weight)
        return lambda: torch.mm(left, right.t()), lambda: _linear(left, right, None)

    name = f"linear in a compiled step: {_layouts((x, weight))}"
    return machine.FASTER.other(name, ways, _CLEARLY_IN_A_STEP)


def compiled(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """The graph compiled by inductor for inputs like these; random numbers are drawn as without it.

    All that it reads is in its inputs, so that one compiled graph serves all that are written alike, as those
    of two calls of `log_evidence` with other parameters.
    """
    key = key_of(module, inputs)
    run = _COMPILED.pop(key, None) or _by_inductor(module, inputs)
    _COMPILED[key] = run  # as the last one
    while len(_COMPILED) > _KEPT:
        _COMPILED.pop(next(iter(_COMPILED)))
    return run


#: Compiled graphs of this process, the last used last.
_COMPILED: dict[str, Callable[..., Any]] = {}


def _by_inductor(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    with torch.no_grad(), warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # of what torch itself calls
            warnings.simplefilter("ignore", category)
        from torch import _inductor  # which takes, with Dynamo, as long to import as torch itself

        run: Callable[..., Any] = _inductor.compile(module, list(inputs), {"fallback_random": True})
    return run
