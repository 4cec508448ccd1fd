"""What a traced program depends on besides its arguments, and whether that is still as it was."""

import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
#: Packages whose functions read no global of a user's.
_LIBRARIES = {"builtins", "contextlib", "functools", "numpy", "pyro", "pyro_vae", "torch", "zuko"}


class Guards:
    """All that can be reached from some programs, as it was when this was made.

    Followed are modules (parameters, buffers, submodules, train or eval, other attributes), functions
    (closures, defaults, the globals that they name), bound methods, partials, handlers and containers.
    Numbers and strings count by value, everything else by identity; a tensor also by its shape, dtype,
    device and whether it requires a gradient, but not by its content, which a graph reads at every run.

    Args:
        roots: The programs, and whatever else a run depends on.
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self.tensors: list[Tensor] = []
        #: Tensors that are buffers of a module, which a run may change.
        self.buffers: list[Tensor] = []
        self._watched: list[tuple[str, Collection[object], list[int], tuple[object, ...]]] = []
        self._empty: list[Collection[object]] = []
        seen: dict[int, object] = {}
        waiting = list(roots)
        while waiting:
            thing = waiting.pop()
            if id(thing) not in seen and not isinstance(thing, _PLAIN):
                seen[id(thing)] = thing
                waiting.extend(self._look_into(thing))
        self._seen = seen  # held, so that no other object takes over an identity
        self._described = [(tensor, _describe(tensor)) for tensor in self.tensors]

    def hold(self) -> bool:
        """Whether all is as it was."""
        return not self.changed()

    def changed(self) -> str:
        """The class or function in which something is not as it was; empty where all is."""
        if any(self._empty):
            return next(type(container).__name__ for container in self._empty if container)
        for name, container, identities, before in self._watched:
            if [*map(id, container)] != identities and not _same(container, before):
                return name
        for tensor, before in self._described:
            if _describe(tensor) != before:
                return "a tensor"
        return ""

    def versions(self) -> list[int]:
        """How often each tensor that is no buffer has been changed in place."""
        buffers = {id(buffer) for buffer in self.buffers}
        return [tensor._version for tensor in self.tensors if id(tensor) not in buffers]

    def _look_into(self, thing: object) -> Iterator[object]:
        """Watch what `thing` holds, and give what is to be looked into next."""
        name = thing.__qualname__ if isinstance(thing, types.FunctionType) else type(thing).__name__
        if isinstance(thing, Tensor):
            self.tensors.append(thing)
        elif isinstance(thing, types.MethodType):
            yield from (thing.__self__, thing.__func__)
        elif isinstance(thing, types.FunctionType):
            yield from self._watch(name, _Free(thing))
        elif isinstance(thing, partial):
            yield from (thing.func, *thing.args, *thing.keywords.values())
        elif isinstance(thing, Mapping):
            yield from self._watch(name, thing.values())
        elif isinstance(thing, list | tuple | set | frozenset):
            yield from self._watch(name, thing)
        elif not isinstance(thing, type | types.ModuleType | types.BuiltinFunctionType):
            if isinstance(thing, nn.Module):
                self.buffers.extend(buffer for buffer in thing._buffers.values() if buffer is not None)
            yield from self._watch(name, getattr(thing, "__dict__", {}).values())
            for kind in type(thing).__mro__:
                if not _is_library(kind.__module__):
                    yield from self._watch(name, vars(kind).values())

    def _watch(self, name: str, container: Collection[object]) -> tuple[object, ...]:
        before = tuple(container)
        if before:
            self._watched.append((name, container, [*map(id, before)], before))
        elif not isinstance(container, tuple | frozenset):
            self._empty.append(container)
        return before


class _Free(Collection[object]):
    """What a function takes from outside: closure, defaults, and the globals that its code names."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self.names: list[tuple[dict[str, object], str]] = []
        if _is_library(function.__module__):
            return
        names = [*_names(function.__code__)]
        places = [function.__globals__]
        for name in names:
            module = function.__globals__.get(name)
            if isinstance(module, types.ModuleType) and not _is_library(module.__name__):
                places.append(vars(module))
        self.names = [(place, name) for place in places for name in names if name in place]

    def __iter__(self) -> Iterator[object]:
        for cell in self.function.__closure__ or ():
            yield _content(cell)
        yield self.function.__defaults__
        yield self.function.__kwdefaults__
        for place, name in self.names:
            yield place.get(name)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, thing: object) -> bool:
        return thing in list(self)


def _is_library(module: str | None) -> bool:
    """Whether the code of a module keeps no state of a user's in globals and classes."""
    return (module or "").split(".")[0] in _LIBRARIES


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a code, and in the functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _same(container: Collection[object], before: tuple[object, ...]) -> bool:
    """Whether the elements are those of before, plain ones by value."""
    now = tuple(container)
    return len(now) == len(before) and all(
        new is old or (isinstance(new, _PLAIN) and type(new) is type(old) and new == old)
        for new, old in zip(now, before, strict=True)
    )


def _describe(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad
