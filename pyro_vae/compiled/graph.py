"""A function of tensors as one flat graph of torch operations."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.compiled.passes import compiled, use_fast_operations
from pyro_vae.compiled.questions import usual_answers
from pyro_vae.compiled.reads import Numbers, Read, Reads, Untraceable
from pyro_vae.compiled.reuse import in_place
from pyro_vae.compiled.simplify import add_input, has_effect, own_outputs, simplify, split
from pyro_vae.compiled.source import users_line
from pyro_vae.errors import one_line

Outputs = tuple[Tensor | None, ...]


class NotCompiled(Exception):
    """The compiler has failed; the text says how."""


class FlatGraph:
    """A function of tensors, run once and kept as the torch operations that it consisted of.

    Every tensor that the function closes over is read anew at each run, so that a changed content is
    seen, and random numbers are drawn anew, by the same operations as in the function.

    Args:
        function: A function of tensors that gives a tuple of tensors, or of None. It may call `backward`
            within, and run any Pyro program.
        args: What it is run on; the graph is for these shapes and types only.
        fast: Use operations that are faster and round differently, on a CPU; else every result is the same
            as the function's to the last bit.
        inductor: Compile the graph; the results agree up to rounding, the random numbers are the same.
        settled: Compute what does not depend on `args` once, and anew at each call of `settle` only, which
            must follow each change of the tensors that the function closes over.
        items_stay: Read what the function gets by `Tensor.item` anew at each run; else the graph holds for
            these numbers only, to the last bit.

    Raises:
        Untraceable: where the function decides by a number that depends on its arguments, on draws, or on
            a tensor that requires a gradient.
        NotCompiled: where the compiler fails.

    >>> scale = torch.tensor(2.0)
    >>> graph = FlatGraph(lambda x: (scale * x,), (torch.ones(3),))
    >>> scale.fill_(5.0), graph(torch.ones(3))
    (tensor(5.), (tensor([5., 5., 5.]),))
    """

    def __init__(
        self,
        function: Callable[..., Outputs],
        args: tuple[Tensor, ...],
        *,
        fast: bool = False,
        inductor: bool = False,
        settled: bool = False,
        items_stay: bool = True,
    ) -> None:
        fresh = [arg.detach() for arg in args]  # so that none is a tensor that the function closes over
        try:
            module, reads = _trace(function, fresh, items_stay)
            #: The tensors closed over, and constants, in the order of the graph's last inputs.
            self.tensors = lift(module)
            #: What has been read from them: the graph holds for these numbers only.
            self.numbers = Numbers(module, self.tensors, reads)
            simplify(module, self.tensors)
            if fast:
                use_fast_operations(module, fused=inductor)
            own_outputs(module)
        except Untraceable:
            raise
        except Exception as error:  # whatever a program does on meeting what stands for a tensor
            raise Untraceable(f"{one_line(error)} {users_line(error.__traceback__)}".rstrip()) from error
        #: The coarsest rounding of the types that it computes in.
        self.rounding = _rounding(module.graph)
        self._prelude = None
        if settled:
            before, module = split(module, len(args))
            self._prelude = straight_line(before, reuse=True)
            self.settle()
        self.module = module
        self._run = self._compiled(fresh) if inductor else straight_line(module, reuse=True)

    @torch.no_grad()
    def settle(self) -> None:
        """Compute anew what depends on nothing but the tensors that the function closes over."""
        assert self._prelude is not None
        self._settled = cast(list[Tensor], self._prelude(*[tensor.detach() for tensor in self.tensors]))

    @torch.no_grad()
    def __call__(self, *args: Tensor) -> Outputs:
        """What the function gives for other arguments of the same shapes and types.

        The numbers that it reads from tensors it closes over must be those of the trace (`numbers`).
        """
        return tuple(self._run(*args, *self._others()))

    def _others(self) -> Sequence[Tensor]:
        """The inputs of the graph after its arguments."""
        return [tensor.detach() for tensor in self.tensors] if self._prelude is None else self._settled

    def _compiled(self, args: list[Tensor]) -> Callable[..., Outputs]:
        try:
            return compiled(self.module, [*args, *self._others()])
        except Exception as error:
            raise NotCompiled(one_line(error)) from error


def _trace(
    function: Callable[..., Outputs], args: list[Tensor], items_stay: bool
) -> tuple[fx.GraphModule, list[Read]]:
    """The operations of a function, and its reads."""
    reads = Reads(items_stay)

    def watched(*args: Tensor) -> Outputs:
        with reads.operations, reads.functions:
            return function(*args)

    with usual_answers(), poutine.block():
        return operations_of(watched, args), reads.found


def operations_of(function: Callable[..., object], args: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of a function, on these tensors."""
    # what stands for the values in the graph; without it, torch makes a mode for every operation, and a list
    # of all callers for each of them, in which half the time of the trace would go
    stand_ins = TracingContext(_StandIns(allow_fallback_kernels=True))
    with tracing(stand_ins):
        return make_fx(function)(*args)


class _StandIns(FakeTensorMode):
    """Makes them at once, not by torch's rules for operations, in which a fifth of the time would go."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.empty_strided.default and kwargs:
            return FakeTensor(self, func(*args, **{**kwargs, "device": "meta"}), kwargs["device"])
        return super().__torch_dispatch__(func, types, args, kwargs)


def lift(module: fx.GraphModule) -> list[Tensor]:
    """Make the tensors that a graph holds as attributes inputs after its own."""
    graph = module.graph
    inputs: dict[int, fx.Node] = {}
    tensors: list[Tensor] = []
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        tensor = getattr(module, node.target)
        if not isinstance(tensor, Tensor):
            raise Untraceable(f"it uses a {type(tensor).__name__} of its own")
        if id(tensor) not in inputs:
            last = add_input(graph, f"held_{len(tensors)}")
            last.meta = dict(node.meta)
            inputs[id(tensor)] = last
            tensors.append(tensor)
        node.replace_all_uses_with(inputs[id(tensor)])
        graph.erase_node(node)
    graph.eliminate_dead_code(has_effect)
    return tensors


def _rounding(graph: fx.Graph) -> float:
    values = [value for node in graph.nodes if isinstance(value := node.meta.get("val"), Tensor)]
    return max((torch.finfo(value.dtype).eps for value in values if value.is_floating_point()), default=0.0)


def straight_line(module: fx.GraphModule, *, reuse: bool = False) -> Callable[..., Outputs]:
    """The graph as one Python function, without the look-ups by name of the one that fx writes.

    Args:
        module: The graph.
        reuse: Write over what nothing needs any more; else the function can be traced.
    """
    written_over = in_place(module.graph) if reuse else {}
    bound: dict[str, object] = {}

    def word(value: object) -> str:
        if isinstance(value, fx.Node):
            return value.name
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(word, value))}]"
        bound[name := f"bound_{len(bound)}"] = value
        return name

    last_user = {source: node for node in module.graph.nodes for source in node.all_input_nodes}
    inputs, lines = [], []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            inputs.append(node.name)
        elif node.op == "output":
            lines.append(f"return {word(node.args[0])}")
        else:
            target, args = written_over.get(node, (node.target, node.args))
            words = [*map(word, args), *(f"{name}={word(value)}" for name, value in node.kwargs.items())]
            lines.append(f"{node.name} = {word(target)}({', '.join(words)})")
            lines += [f"del {source.name}" for source in node.all_input_nodes if last_user[source] is node]
    header = f"def run({', '.join(inputs)}):"
    space = dict(bound)
    exec("\n    ".join([header, *lines]), space)  # the text is made of the graph's own names only
    return space["run"]  # type: ignore[return-value]
