"""What an object holds, seen as a collection whose elements can be compared with those of before."""

import gc
import os
import sys
import threading
import types
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.compiled.opaque import inside
from pyro_vae.compiled.source import is_library

#: What counts by its value.
PLAIN: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None), np.generic, slice)
PLAIN += (torch.dtype, torch.device, torch.Size)


class View(Collection[object]):
    """A collection that is looked up anew each time."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, thing: object) -> bool:
        return any(thing is each for each in self)


class Free(View):
    """What a function takes from outside: closure, defaults, and what its code names."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self.names: list[tuple[dict[str, object], str]] = []
        if is_library(function.__module__):
            return
        names = list(dict.fromkeys(_names(function.__code__)))
        places: list[dict[str, object]] = [function.__globals__]
        found = [*map(sys.modules.get, names), *map(_content, function.__closure__ or ())]
        for place in places:  # grows, as there are modules in modules
            found += map(place.get, names)
            for module in (each for each in found if isinstance(each, types.ModuleType)):
                new = not any(vars(module) is known for known in places)
                if new and not is_library(module.__name__):
                    places.append(vars(module))
            found = []
        self.names = [(place, name) for place in places for name in names if name in place]
        if not {"environ", "getenv"}.isdisjoint(names):
            self.names.append((vars(os), "environ"))

    def __iter__(self) -> Iterator[object]:
        for cell in self.function.__closure__ or ():
            yield _content(cell)
        yield self.function.__code__
        yield self.function.__defaults__
        yield self.function.__kwdefaults__
        for place, name in self.names:
            yield place.get(name)


class Attributes(View):
    """What an object holds, but for attributes whose names begin in some way."""

    def __init__(self, thing: object, but: tuple[str, ...]) -> None:
        self.thing, self.but = thing, but

    def __iter__(self) -> Iterator[object]:
        held = attributes(self.thing).items()
        return (value for name, value in held if not name.startswith(self.but))


class Slots(View):
    """The values in an object's `__slots__`."""

    def __init__(self, thing: object) -> None:
        self.thing = thing
        slots = [(kind, vars(kind).get("__slots__", ())) for kind in type(thing).__mro__]
        names = [(kind, (each,) if isinstance(each, str) else each) for kind, each in slots]
        self.names = [_in_class(kind, name) for kind, each in names for name in each]

    def __iter__(self) -> Iterator[object]:
        return (getattr(self.thing, name, None) for name in self.names)


class Plain(View):
    """The numbers and strings that a tensor has for attributes."""

    def __init__(self, tensor: Tensor) -> None:
        self.held = vars(tensor)

    def __iter__(self) -> Iterator[object]:
        return (value for value in self.held.values() if isinstance(value, PLAIN))


class ContextValue(View):
    """What a context variable has for its value."""

    def __init__(self, variable: ContextVar[Any]) -> None:
        self.variable = variable

    def __iter__(self) -> Iterator[object]:
        yield self.variable.get(None)


class Inside(View):
    """What an object of C refers to."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __iter__(self) -> Iterator[object]:
        return iter(inside(self.thing))


class Cached(View):
    """What a cached function has kept; that it has been run counts, too."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __iter__(self) -> Iterator[object]:
        if not self.function.cache_info().misses:
            return  # it has not been run yet
        yield self.function.cache_info().misses
        parts = [part for part in gc.get_referents(self.function) if part is not vars(self.function)]
        for part in parts:
            if not isinstance(part, dict | type):
                yield part  # where there is a bound, each of the results
            elif isinstance(part, dict):
                yield from [entry for entry in part.values() if type(entry).__name__ != "_lru_list_elem"]


def _in_class(kind: type, name: str) -> str:
    """The name of a slot as it is outside of its class."""
    private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if private else name


def attributes(thing: object) -> dict[str, object]:
    """What is in `__dict__`, without what `__getattr__` may make of the name."""
    if isinstance(thing, threading.local):
        return vars(thing)
    try:
        found: object = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a code, and in the functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant  # as in globals()["name"]
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
