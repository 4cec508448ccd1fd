"""The errors that a user meets, and the check of a number of things."""

from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used; its text is one line: what was expected, what was got, what to do.

    The command line prints that line and ends with status 2, without a traceback.
    """


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the text names the step, the site and where to go back to."""


def count(name: str, value: int) -> int:
    """`value`, refused where it is not a positive whole number."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} expects a positive whole number, got {value}")
    return value


def counts(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """`values` as a tuple, refused where one is not a positive whole number."""
    values = tuple(values)
    if any(not isinstance(value, int) or value < 1 for value in values):
        raise InputError(f"{name} expects positive whole numbers, got {values}")
    return values
