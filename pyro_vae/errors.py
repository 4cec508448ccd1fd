"""The errors that a user meets, and the checks of numbers that many places share."""

import sys
import warnings
from collections.abc import Callable, Iterable
from operator import index
from typing import Any, SupportsIndex, TypeGuard, TypeVar

T = TypeVar("T")

#: Packages that stand between a user's line and a warning.
_OWN = ("pyro_vae", "torch", "pyro", "contextlib")


class InputError(ValueError):
    """Input that cannot be used; its text is one line: what was expected, what was got, what to do.

    The command line prints that line and ends with status 2, without a traceback.

    >>> from pyro_vae import StandardNormalPrior
    >>> StandardNormalPrior(0)
    Traceback (most recent call last):
    pyro_vae.errors.InputError: latent_dim expects a positive whole number, got 0
    """


class NonFiniteLossError(ArithmeticError):
    """The loss, or a parameter, became NaN or infinite; the text names the step, what, and the way back.

    >>> from functools import partial
    >>> import torch
    >>> from pyro_vae import Digits, assemble, fit
    >>> wild = partial(torch.optim.SGD, lr=1e30)
    >>> fit(assemble(Digits()), Digits(), epochs=1, optimiser=wild)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pyro_vae.errors.NonFiniteLossError: the loss is ... at step 2, ...: lower the learning rate or ...
    """


class LostRankError(RuntimeError):
    """Another process of those that share a computation has ended; the text names the way back."""


def warn(text: str) -> None:
    """Warn at the line outside of this package, and of torch, that has led here."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _OWN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def count(name: str, value: int) -> int:
    """`value`, refused where it is not a positive whole number."""
    if not _is_whole(value) or index(value) < 1:
        raise InputError(f"{name} expects a positive whole number, got {value}")
    return index(value)


#: Of one datum: hours of them at the fastest.
_MOST_DRAWS = 10**9


def draws(name: str, value: int) -> int:
    """`value` as a number of draws of each datum, refused where it is no such number or beyond any use."""
    if count(name, value) > _MOST_DRAWS:
        raise InputError(f"{name} expects at most {_MOST_DRAWS:,} draws of each datum, got {value:,}")
    return index(value)


def counts(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """`values` as a tuple, refused where one is not a positive whole number."""
    values = tuple(values)
    if not all(_is_whole(value) and index(value) >= 1 for value in values):
        raise InputError(f"{name} expects positive whole numbers, got {values}")
    return tuple(index(value) for value in values)


def seed_number(seed: int) -> int:
    """`seed`, refused where it is not a whole number that every generator takes."""
    if not is_seed(seed):
        raise InputError(f"seed expects a whole number from 0 to 2**32 - 1, got {seed}")
    return index(seed)


def is_seed(seed: object) -> bool:
    """Whether `seed` is a whole number that torch's and NumPy's generators take."""
    return _is_whole(seed) and 0 <= index(seed) < 2**32


def one_line(error: BaseException) -> str:
    """An error's text in one line, without the trace shapes that Pyro appends."""
    try:
        text = str(error)
    except Exception:  # of the error's own class
        text = "an error without a text"
    return " ".join(text.split("Trace Shapes:")[0].split())


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, on a CPU or a GPU."""
    said = f"{type(error).__name__} {error}"
    return isinstance(error, MemoryError) or any(
        words in said
        for words in ("OutOfMemory", "not enough memory", "can't allocate memory", "out of memory")
    )


def shortened(value: object) -> str:
    """A value as text, its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def make(role: str, maker: Callable[[Any], T], argument: object) -> T:
    """What `maker` makes, its refusal being that of one option."""
    try:
        return maker(argument)
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"the {role} cannot be made: {one_line(error)}") from error


def _is_whole(value: object) -> TypeGuard[SupportsIndex]:
    return hasattr(value, "__index__") and not isinstance(value, bool)
