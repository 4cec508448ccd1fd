"""What a traced program depends on besides its arguments, and whether that is still as it was."""

import math
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import _lru_cache_wrapper, partial

import torch
from pyro.infer.autoguide import AutoGuide, AutoGuideList
from pyro.nn.module import _Context  # what a PyroModule keeps while it runs
from torch import Tensor, nn
from torch.distributions import Transform
from torch.nn.parameter import is_lazy

from pyro_vae.compiled.opaque import UNKNOWN, Memory, inside, is_memory, is_opaque, state_of
from pyro_vae.compiled.source import is_library, is_tool
from pyro_vae.compiled.views import (
    PLAIN,
    Attributes,
    Cached,
    ContextValue,
    Free,
    Inside,
    Plain,
    Slots,
    attributes,
)

#: What an autoguide makes anew before it uses it, and what transforms keep of their last run.
_SCRATCH = {AutoGuide: ("plates",), Transform: ("_cached_", "_inv")}


class Guards:
    """All that can be reached from some programs, as it was when this was made.

    Followed are modules (parameters, buffers, submodules, train or eval, other attributes), functions
    (closures, defaults, attributes, the globals and modules that they name), methods, partials, handlers,
    a user's own objects and classes, and containers. Numbers and strings count by value, arrays of NumPy by
    content, everything else by identity; a tensor also by its shape, strides, type, device, hooks, and
    whether it requires a gradient, but not by its content, which a graph reads at every run. The state of
    iterators, files and objects of random numbers counts where a run moves it on (`overwritten`) only. What
    the standard library and other libraries keep for themselves is not followed.

    Args:
        roots: The programs, and whatever else a run depends on.
    """

    def __init__(self, roots: Iterable[object]) -> None:
        self.tensors: list[Tensor] = []
        #: Tensors that are buffers of a module, which a run may change.
        self.buffers: list[Tensor] = []
        self._memories: list[Memory] = []
        self._states: list[tuple[object, object]] = []
        self._watched: list[tuple[str, Collection[object], list[int], tuple[object, ...]]] = []
        #: Whether there is an autoguide that its first run has still to set up.
        self.unprepared = False
        self._empty: list[Collection[object]] = []
        seen: dict[int, object] = {}
        waiting = list(roots)
        while waiting:
            thing = waiting.pop()
            if id(thing) not in seen and not isinstance(thing, (*PLAIN, _Context)) and not is_tool(thing):
                seen[id(thing)] = thing
                waiting.extend(self._look_into(thing))
        self._seen = seen  # held, so that no other object takes over an identity
        self._described = [(tensor, _describe(tensor)) for tensor in self.tensors]
        self._versions = [(tensor, tensor._version) for tensor in self._fixed()]

    @property
    def things(self) -> Iterable[object]:
        """All that was looked into."""
        return self._seen.values()

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
        for tensor, described in self._described:
            if _describe(tensor) != described:
                return "a tensor"
        if any(memory.changed() for memory in self._memories):
            return "an array"
        return ""

    def apart(self, other: "Guards") -> str:
        """In what other programs are built otherwise than these; empty where in values and contents only."""
        if len(other._watched) != len(self._watched) or len(other._described) != len(self._described):
            return "what their programs consist of"
        pairs = zip(self._described, other._described, strict=True)
        return "the shape of a tensor" if any(mine[1] != theirs[1] for mine, theirs in pairs) else ""

    def unlike(self, other: "Guards") -> bool:
        """Whether programs that are built alike differ in a value, as a number, that is in no tensor."""
        for (_, _, _, mine), (_, _, _, theirs) in zip(self._watched, other._watched, strict=True):
            if len(mine) != len(theirs) or not all(map(_of_one_kind, mine, theirs)):
                return True
        return False

    def overwritten(self) -> str:
        """What a run has changed; what it has created for the first time does not count."""
        grown = [each for each in self._empty if each and isinstance(each, list | deque | set)]
        if grown:
            return f"a {type(grown[0]).__name__}"
        for name, container, _, before in self._watched:
            now = tuple(container)
            created = isinstance(container, list | deque | set) and len(now) != len(before)
            pairs = ((old, new) for old, new in zip(before, now, strict=False) if not is_unknown(old))
            if created or not all(_alike(old, new) for old, new in pairs):
                return name
        if any(tensor._version != version for tensor, version in self._versions):
            return "a tensor that is no buffer"
        for thing, state in self._states:
            if state is UNKNOWN or state_of(thing) != state:
                return f"the state of {_named(thing)}"
        return "an array" if any(memory.changed() for memory in self._memories) else ""

    def _fixed(self) -> list[Tensor]:
        """Tensors whose content a run must not change."""
        buffers = {id(buffer) for buffer in self.buffers}
        return [tensor for tensor in self.tensors if id(tensor) not in buffers]

    def _look_into(self, thing: object) -> Iterator[object]:
        """Watch what `thing` holds, and give what is to be looked into next."""
        name = thing.__qualname__ if isinstance(thing, types.FunctionType) else type(thing).__name__
        if isinstance(thing, Tensor):
            self.tensors.append(thing)
            if any(isinstance(value, PLAIN) for value in vars(thing).values()):
                yield from self._watch(name, Plain(thing))
        elif is_memory(thing):
            self._memories.append(Memory(thing))
        elif isinstance(thing, types.MethodType):
            yield from (thing.__self__, thing.__func__)
        elif isinstance(thing, types.FunctionType):
            yield from self._watch(name, Free(thing))
            yield from self._watch(name, vars(thing).values())
        elif isinstance(thing, _lru_cache_wrapper):
            yield from self._watch(thing.__qualname__, Cached(thing))
            yield thing.__wrapped__
        elif callable(thing) and hasattr(type(thing), "__self__"):
            if not isinstance(thing.__self__, types.ModuleType):  # type: ignore[attr-defined]
                yield thing.__self__  # type: ignore[attr-defined]
        elif isinstance(thing, ContextVar):
            yield from self._watch(thing.name, ContextValue(thing))
        elif isinstance(thing, weakref.ReferenceType):
            yield thing()
        elif isinstance(thing, property):
            yield from (thing.fget, thing.fset)
        elif isinstance(thing, staticmethod | classmethod):
            yield thing.__func__
        elif isinstance(thing, partial):
            yield from (thing.func, thing.args, thing.keywords)
        elif isinstance(thing, type):
            yield from self._classes(thing)
            yield from self._classes(type(thing))
        elif not isinstance(thing, types.ModuleType):
            yield from self._object(name, thing)

    def _object(self, name: str, thing: object) -> Iterator[object]:
        """Elements, attributes and class of an object, and the state that it keeps in C."""
        if is_opaque(thing):
            self._states.append((thing, state_of(thing)))
            yield from inside(thing)
        elif not isinstance(thing, Mapping | list | tuple | set | frozenset | deque) and inside(thing):
            yield from self._watch(name, Inside(thing))
        if isinstance(thing, Mapping):
            yield from self._watch(name, thing.keys())
            yield from self._watch(name, thing.values())
        elif isinstance(thing, list | tuple | set | frozenset | deque):
            yield from self._watch(name, thing)
        if isinstance(thing, AutoGuide) and not isinstance(thing, AutoGuideList):
            self.unprepared |= thing.prototype_trace is None
        if isinstance(thing, nn.Module):
            self.buffers.extend(buffer for buffer in thing._buffers.values() if buffer is not None)
        but = next((but for kind, but in _SCRATCH.items() if isinstance(thing, kind)), None)
        held = attributes(thing).values() if but is None else Attributes(thing, but)
        yield from self._watch(name, held)
        if not is_library(type(thing).__module__):
            yield from self._watch(name, Slots(thing))
        yield from self._classes(type(thing))

    def _classes(self, kind: type) -> Iterator[object]:
        """What a user's class and its bases hold."""
        for each in kind.__mro__:
            if not is_library(each.__module__):
                yield from self._watch(each.__name__, vars(each).values())

    def _watch(self, name: str, container: Collection[object]) -> tuple[object, ...]:
        before = tuple(container)
        if before:
            self._watched.append((name, container, [*map(id, before)], before))
        elif not isinstance(container, tuple | frozenset | Free | Slots | Inside):
            self._empty.append(container)
        return before


def _named(thing: object) -> str:
    """A class with its article."""
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _same(container: Collection[object], before: tuple[object, ...]) -> bool:
    """Whether the elements are those of before, plain ones by value."""
    now = tuple(container)
    return len(now) == len(before) and all(map(_alike, before, now))


def is_unknown(value: object) -> bool:
    """Whether a first run finds out what is to be put here, as the plate nesting of an ELBO."""
    empty = isinstance(value, dict | list | set) and not value
    return value is None or empty or (isinstance(value, float) and value == math.inf)


def _alike(old: object, new: object) -> bool:
    if new is old:
        return True
    # −0.0 is not 0.0
    same = isinstance(new, PLAIN) and type(new) is type(old) and new == old
    return same and (bool(new) or repr(new) == repr(old))


def _of_one_kind(one: object, other: object) -> bool:
    """Whether two things are of one type, and equal where they are plain."""
    return _alike(one, other) or (type(one) is type(other) and not isinstance(one, PLAIN))


def _describe(tensor: Tensor) -> tuple[object, ...]:
    if is_lazy(tensor):
        return ("lazy",)
    stride = tensor.stride() if tensor.layout is torch.strided else None
    hooks = len(tensor._backward_hooks or ())
    return tensor.shape, stride, tensor.dtype, tensor.device, tensor.requires_grad, hooks
