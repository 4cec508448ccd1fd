"""Running a user's program: what it raises becomes one line, and what it changes is given back."""

import functools
import inspect
import linecache
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError, one_line, warn

P = ParamSpec("P")
R = TypeVar("R")

#: Pyro has one stack of handlers per process, and torch one state of the random numbers.
_LOCK = threading.RLock()
#: What has been said since the outermost of nested calls; None outside.
_said: set[str] | None = None

#: Packages of which no line is a user's.
_LIBRARIES = ("torch", "pyro", "pyro_vae", "zuko", "contextlib", "functools", "opt_einsum")


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Let a second thread that calls such a function wait until the first has ended.

    Within one call, those that it makes itself included, `say` says each thing once.
    """

    @functools.wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        global _said
        with _LOCK:
            before = _said
            _said = set() if before is None else before
            try:
                return function(*args, **kwargs)
            finally:
                _said = before

    return locked


def say(text: str) -> None:
    """Warn, once in a call of a function that runs `one_at_a_time`."""
    if _said is not None and text in _said:
        return
    if _said is not None:
        _said.add(text)
    warn(text)


@contextmanager
def refusals(what: str = "model or guide") -> Iterator[None]:
    """What torch, Pyro or a user's program raise, as our own error of one line.

    Args:
        what: The program that runs.

    Raises:
        InputError: of the program, the site, the cause and the user's line, with the original as its cause.
    """
    try:
        yield
    except InputError as error:
        raise InputError(one_line(error)) from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        raise InputError(
            f"the {what} cannot be evaluated on these data: {_cause(error)}{_place(error.__traceback__)}"
        ) from error


def _cause(error: Exception) -> str:
    """The text of an error, with its kind where that is none of a refused value."""
    text = one_line(error).split(", but found invalid values")[0]  # which may be many
    return (
        text if text and isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: {text}"
    )


def _place(trace: TracebackType | None) -> str:
    """The site, and the user's line, at which a traceback passes last; empty where there are none."""
    site, line = "", ""
    for frame, number in traceback.walk_tb(trace):
        name = frame.f_globals.get("__name__", "")
        if name == "pyro.primitives" and frame.f_code.co_name == "sample":
            site = f" at the site {frame.f_locals.get('name')!r}"
        if name.split(".")[0] not in _LIBRARIES:
            path = frame.f_code.co_filename
            source = linecache.getline(path, number, frame.f_globals).strip()
            line = f" in {Path(path).name}, line {number}" + f": {source}" * bool(source)
    return f" ({(site + line).strip()})" if site or line else ""


#: How what lies beside x is given to a function that takes programs and a batch.
_BY_NAME = "give what lies beside x by the names of the arguments, as given={'y': y} for model(x, y)"


def check_signature(what: str, program: Program, batch: Batch, remedy: str = _BY_NAME) -> None:
    """Refuse what is given where the program's signature does not take it."""
    try:
        signature = inspect.signature(program)
    except Exception:  # of C, of nothing that can be called, or of the program's own
        return
    try:
        signature.bind(batch.x, **batch.given)
    except TypeError as error:
        given = f" and given {sorted(batch.given)}" if batch.given else " alone"
        raise InputError(f"the {what} takes {signature}, got x{given}: {error}; {remedy}") from error


@contextmanager
def buffers_kept() -> Iterator[None]:
    """Give modules in train mode, as batch norm, their buffers back as they were found.

    Not in a run that is traced, before which another one has been looked at.
    """
    if get_proxy_mode() is not None:
        yield
        return
    found: dict[int, tuple[Tensor, Tensor]] = {}

    def note(module: nn.Module, _: object) -> None:
        if module.training:
            for buffer in module._buffers.values():
                if buffer is not None:
                    found.setdefault(id(buffer), (buffer, buffer.clone()))

    handle = register_module_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffer, content in found.values():
                if not torch.equal(buffer, content):  # batch norm counts no version
                    buffer.copy_(content)
