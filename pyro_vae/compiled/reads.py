"""Numbers that a program reads from tensors while it is traced, by Python or within torch.

What a program does may depend on such a number, so a graph of it holds for this number only. Every read is
noted in the graph itself: where the number depends on nothing but tensors that the program holds, it is
computed anew before each run and compared; where it depends on data, draws or parameters, there is no graph.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vae.compiled.questions import is_usual
from pyro_vae.compiled.simplify import independent
from pyro_vae.compiled.source import is_users, users_line
from pyro_vae.precision import wide

#: What reads the memory of a tensor without an operation.
_READS_MEMORY = {getattr(Tensor, name) for name in ("tolist", "numpy", "data_ptr", "untyped_storage")}
_READS_MEMORY |= {Tensor.__array__, Tensor.__repr__, Tensor.__dlpack__}
#: What copies the numbers of tensors in a list.
_COPIES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
_SHAPES, _NUMBERS = torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output
_REMEDIES = {
    "Tensor.__bool__": "torch.where chooses without reading",
    **dict.fromkeys(
        ("torch.tensor", "torch.as_tensor", "torch.asarray"), "use torch.stack, or the tensor itself"
    ),
    "torch.one_hot": "give num_classes, or use torch.eye(n)[labels]",
    "Tensor.repeat_interleave": "give output_size",
    "Tensor.__getitem__": "torch.where(mask, x, 0) keeps the shape",
    **dict.fromkeys(("Tensor.item", "Tensor.__float__", "Tensor.tolist"), "compute with the tensor itself"),
    **dict.fromkeys(("Tensor.numpy", "Tensor.__array__"), "use torch's function in place of NumPy's"),
}

_library = torch.library.Library("pyro_vae", "FRAGMENT")
_library.define("read(Tensor x) -> Tensor")
_library.impl("read", lambda x: x.detach().clone(), "CompositeExplicitAutograd")
_READ = torch.ops.pyro_vae.read.default


class Untraceable(Exception):
    """The function cannot be one flat graph; the text says why."""


class UntraceableItem(Untraceable):
    """The function cannot be one flat graph unless `Tensor.item` gives tensors."""


class Read(NamedTuple):
    """A tensor from which a program has read."""

    value: Tensor
    #: What there is to say where it depends on data.
    reason: str
    #: Where it was read.
    line: str
    #: Whether it could have stayed a tensor.
    is_item: bool


class Reads:
    """The reads of a trace: both of its modes are to be entered within it.

    Args:
        items_stay: Let `Tensor.item` give a tensor in the precision of Python's numbers, to be read anew at
            each run, in a user's code as in Pyro's. In an operation with a tensor of no dimensions that is a
            number of another type.
    """

    def __init__(self, items_stay: bool) -> None:
        self.items_stay = items_stay
        self.found: list[Read] = []
        #: Tensors that stand for numbers of Python's.
        self.items: list[Tensor] = []
        #: The function of torch's under way.
        self.function = ""
        #: The memory of integers that operations have taken, and of copies with that of the originals.
        self.taken: set[int] = set()
        self.copies: dict[int, int] = {}
        self.alive: list[Tensor] = []  # so that no other tensor takes over their memory
        self.functions, self.operations = _Functions(self), _Operations(self)

    def note(self, tensor: Tensor, reason: str) -> None:
        """A number is read from this tensor."""
        _READ(tensor)  # noted in the graph
        with _disable_current_modes():
            value = tensor.detach().clone()
        remedy = _REMEDIES.get(self.function, "")
        line = users_line()
        reason = f"{reason} {line}".rstrip() + (f": {remedy}" if remedy else "")
        is_item = self.function == "Tensor.item" and tensor.is_floating_point()
        self.found.append(Read(value, reason, line, is_item))

    def copied(self, leaf: object) -> object:
        """An element of a list that is copied into a tensor."""
        if not isinstance(leaf, Tensor):
            return leaf
        self.note(leaf, f"it copies tensors by {self.function}")
        with _disable_current_modes():
            return leaf.item() if any(leaf is item for item in self.items) else leaf

    def take(self, tensors: Sequence[Tensor], result: object) -> None:
        """An operation has taken some tensors; a mere copy of integers does not count."""
        self.alive += tensors
        if isinstance(result, Tensor) and len(tensors) == 1 and _is_copy(result, tensors[0]):
            new, old = _memory(result), _memory(tensors[0])
            if new != old:
                self.copies[new] = old
                self.alive.append(result)
            return
        for memory in map(_memory, tensors):
            while memory not in self.taken:
                self.taken.add(memory)
                memory = self.copies.get(memory, memory)

    def note_untaken(self, tensors: Iterable[Tensor], result: object) -> None:
        """Note integers that a function was given and no operation has taken: C++ has read their memory."""
        results = {_memory(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        given = results | {self.copies[memory] for memory in results & self.copies.keys()}
        for tensor in tensors:
            if results and _memory(tensor) not in self.taken | given:
                self.note(tensor, f"it depends on numbers in a tensor ({self.function})")


class _Functions(TorchFunctionMode):
    """Sees the calls of torch from Python, of which some read without an operation."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, reads = kwargs or {}, self.reads
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise Untraceable("it uses a Generator of its own")
        stays = reads.items_stay or not is_users(sys._getframe(1).f_code)
        if func is Tensor.item and args[0].is_floating_point() and stays:
            reads.items.append(item := wide(args[0].detach()))
            return item  # stays a tensor, in the precision of Python's numbers
        if is_usual(func):
            return True
        if func is torch.nn.functional.one_hot and (one_hot := _one_hot(*args, **kwargs)) is not None:
            return one_hot
        reads.function = _name(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func in _READS_MEMORY:
            reads.note(tensors[0], f"it decides by a number in a tensor ({reads.function})")
        elif func in _COPIES:
            args = tuple(
                tree_map(reads.copied, arg) if isinstance(arg, list | tuple) else arg for arg in args
            )
        places = [tensor for tensor in tensors if _are_places(tensor) and tensor.numel()]
        reads.taken.clear()
        result = func(*args, **kwargs)
        if places:
            reads.note_untaken(places, result)
        return result


class _Operations(TorchDispatchMode):
    """Sees the operations of torch, of which some give numbers, or shapes that depend on numbers."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, reads = kwargs or {}, self.reads
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if _NUMBERS in func.tags:
            for tensor in tensors:
                reads.note(tensor, f"it decides by a number in a tensor ({reads.function})")
            reads.take(tensors, None)
            with _disable_current_modes():
                return func(*args, **kwargs)
        if _SHAPES in func.tags:
            for tensor in _shaping(func, tensors):
                reads.note(tensor, f"a shape depends on numbers ({func})")
        result = func(*args, **kwargs)
        reads.take(tensors, result)
        return result


class Numbers:
    """The numbers that a trace has read from tensors that the program holds.

    Args:
        module: The trace, whose last inputs stand for `held`; the notes of the reads are taken out of it.
        held: Tensors that the program holds.
        reads: The reads, in their order.

    Raises:
        Untraceable: where a number depends on data, draws, parameters, or what the program changes.
    """

    def __init__(self, module: fx.GraphModule, held: Sequence[Tensor], reads: Sequence[Read]) -> None:
        graph = module.graph
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        holders = inputs[len(inputs) - len(held) :]
        fixed = independent(graph, [n for n, t in zip(holders, held, strict=True) if not t.requires_grad])
        notes = [node for node in graph.nodes if node.target is _READ]
        for note, read in zip(notes, reads, strict=True):
            if note.args[0] not in fixed:
                raise (UntraceableItem if read.is_item else Untraceable)(read.reason)
        self.reads = list(reads)
        self.held = list(held)
        self._run = _computing([note.args[0] for note in notes], holders) if notes else None
        for note in notes:
            graph.erase_node(note)

    @torch.no_grad()
    def changed(self) -> str:
        """Where a number was read that is another one now; empty where there is none."""
        if self._run is None:
            return ""
        values = self._run(*[tensor.detach() for tensor in self.held])
        for value, read in zip(values, self.reads, strict=True):
            if not _equal(value, read.value):
                return read.line or "in torch"
        return ""


def _computing(nodes: list[Any], inputs: list[fx.Node]) -> Callable[..., Any]:
    """A function of the inputs that gives what some nodes stand for."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: graph.node_copy(node) for node in inputs}
    needed, waiting = set(inputs), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    for node in nodes[0].graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in nodes])
    return fx.GraphModule(torch.nn.Module(), graph)


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return f"Tensor.{name}" if func is getattr(Tensor, name, None) else f"torch.{name}"


def _one_hot(labels: Tensor, num_classes: int = -1) -> Tensor | None:
    """One-hot labels without a look at their numbers, which are checked all the same."""
    if not isinstance(num_classes, int) or num_classes < 1 or labels.dtype != torch.int64:
        return None
    zeros = torch.zeros(*labels.shape, num_classes, dtype=torch.int64, device=labels.device)
    return zeros.scatter(-1, labels[..., None], 1)


def _shaping(func: Any, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Those of an operation's tensors on whose numbers the shape of the result depends."""
    masks = [tensor for tensor in tensors if tensor.dtype in (torch.bool, torch.uint8)]
    return masks if masks or func is torch.ops.aten.index.Tensor else tensors


def _are_places(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor may count something."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _memory(tensor: Tensor) -> int:
    """Where the numbers of a tensor lie."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _is_copy(new: Tensor, old: Tensor) -> bool:
    """Whether a new tensor may have the integers of another."""
    return new is not old and _are_places(new) and _are_places(old) and new.numel() == old.numel()


def _equal(new: Tensor, old: Tensor) -> bool:
    return new.shape == old.shape and bool(torch.allclose(new, old, rtol=0, atol=0, equal_nan=True))
