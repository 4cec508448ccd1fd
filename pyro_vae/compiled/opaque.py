"""The state of objects that keep it in C: iterators, random-number objects, buffers of bytes."""

import gc
import operator
import random
import warnings
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

import numpy as np
import torch

#: What cannot be told apart from any other state.
UNKNOWN = object()


def is_opaque(thing: object) -> bool:
    """Whether an object keeps state that `state_of` gives, and that a run may move on."""
    return isinstance(thing, _RANDOM) or hasattr(type(thing), "__next__") or _is_file(thing)


def state_of(thing: Any) -> object:
    """The state of an iterator, a file, or an object of random numbers, to be compared by `==`.

    Things that it goes on with, as the iterators in a `zip`, are to be looked into by themselves (`inside`).
    """
    try:
        if isinstance(thing, torch.Generator):
            return thing.get_state().numpy().tobytes()
        if isinstance(thing, random.Random):
            return thing.getstate()
        if isinstance(thing, np.random.Generator):
            return repr(thing.bit_generator.state)
        if isinstance(thing, np.random.RandomState):
            return _in_full(thing.get_state(legacy=False))
        if isinstance(thing, np.random.BitGenerator):
            return _in_full(thing.state)
        if _is_file(thing):
            return None if thing.closed else thing.tell()
        if isinstance(thing, GeneratorType | CoroutineType | AsyncGeneratorType):
            return _of_frame(thing)
        return _of_iterator(thing)
    except Exception:  # of whatever class it is, and however it is used up
        return UNKNOWN


def inside(thing: object) -> list[object]:
    """What an object of C refers to, as the iterators in a `zip`, or the arrays in a table."""
    if not _has_no_attributes(thing) or callable(thing):
        return []
    return [part for part in gc.get_referents(thing) if part is not type(thing)]


_RANDOM = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)


def _of_frame(generator: Any) -> object:
    """Where a generator stands, and the plain values of its variables."""
    frame = getattr(generator, "gi_frame", None) or getattr(generator, "cr_frame", None)
    if frame is None:
        return "ended"
    values = {name: value for name, value in frame.f_locals.items() if isinstance(value, int | float | str)}
    return frame.f_lasti, values


def _of_iterator(thing: Any) -> object:
    """Where an iterator of C stands: how much is left, or what a copy would be made of."""
    if not _has_no_attributes(thing):
        return None  # its attributes say it all
    left = operator.length_hint(thing, -1)
    if left >= 0:
        return left
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = thing.__reduce__()
        except TypeError:
            return UNKNOWN if repr(thing).startswith("<") else repr(thing)
    return [part for part in _leaves(made[1:]) if isinstance(part, int | float | str)]


def _leaves(parts: object) -> Iterator[object]:
    if isinstance(parts, tuple | list):
        for part in parts:
            yield from _leaves(part)
    else:
        yield parts


def _has_no_attributes(thing: object) -> bool:
    return not hasattr(thing, "__dict__")


def _is_file(thing: object) -> bool:
    return all(hasattr(type(thing), name) for name in ("tell", "seek", "read", "closed"))


def _in_full(state: object) -> object:
    """A nested dictionary with arrays, as something that can be compared."""
    if isinstance(state, dict):
        return {name: _in_full(value) for name, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


class Memory:
    """The content of an array, or of something else that shares its memory, as it was."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.before = self._now()

    def changed(self) -> bool:
        """Whether it is another one now."""
        return self._now() != self.before

    def _now(self) -> tuple[object, ...]:
        if isinstance(self.thing, np.ndarray):
            elements = self.thing.tolist() if self.thing.dtype.hasobject else self.thing.tobytes()
            return self.thing.shape, self.thing.dtype, elements
        return (bytes(memoryview(self.thing)),)


def is_memory(thing: object) -> bool:
    """Whether an object shares memory that can be changed in place, tensors aside."""
    if isinstance(thing, np.ndarray | bytearray):
        return True
    if not _has_no_attributes(thing) or isinstance(thing, bytes | torch.Tensor):
        return False
    try:
        with memoryview(thing) as view:  # type: ignore[arg-type]
            return not view.readonly
    except (TypeError, BufferError):
        return False
