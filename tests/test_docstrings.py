"""Every public name says what it does, what it takes and what it holds, and has an example."""

import dataclasses
import inspect
import re
from typing import Any

import pytest

import pyro_vae as pv
from pyro_vae import plots, testing

#: No example of their own, and why.
WITHOUT_EXAMPLE = {
    "Comparison": "of trained runs, which cost seconds each: docs/compare.md",
    "FashionMNIST": "as of MNIST",
    "MLflowTracker": "takes a library that tests do not: see CsvTracker",
    "TensorBoardTracker": "takes a library that tests do not: see CsvTracker",
    "TrainedRun": "as of load",
    "WandbTracker": "takes a library that tests do not: see CsvTracker",
    "compare": "of trained runs, which cost seconds each: docs/compare.md",
}

#: Torch's own, of all its distributions.
OF_TORCH = {"validate_args"}

PUBLIC = {
    **{name: getattr(pv, name) for name in pv.__all__},
    **{f"{room.__name__}.{name}": getattr(room, name) for room in (plots, testing) for name in room.__all__},
}
NAMES = pytest.mark.parametrize("name", PUBLIC)


def documented(name: str) -> tuple[Any, str]:
    found = PUBLIC[name]
    return found, inspect.getdoc(found) or ""


def holds_fields(found: Any) -> bool:
    return dataclasses.is_dataclass(found) or (inspect.isclass(found) and issubclass(found, tuple))


def parameters(found: Any) -> set[str]:
    """Those that a user gives: an abstract class is made by none, and an error by this package."""
    if inspect.isclass(found) and (inspect.isabstract(found) or issubclass(found, Exception)):
        return set()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    every = inspect.signature(found).parameters.values()
    return {each.name for each in every if each.kind not in variadic} - OF_TORCH


def described(text: str) -> set[str]:
    """Names in `Args:` or `Attributes:`."""
    return {*re.findall(r"^    (\w+): ", text, re.MULTILINE)}


def commented(found: type) -> set[str]:
    """Fields below a comment `#:`, which holds for several in a row."""
    source = inspect.cleandoc(inspect.getsource(found).partition("\n")[2])
    groups = re.findall(r"^#: .*\n((?:\w+: .*\n)+)", source + "\n", re.MULTILINE)
    return {name for group in groups for name in re.findall(r"^(\w+): ", group, re.MULTILINE)}


@NAMES
def test_it_says_what_it_is_and_gives_an_example(name: str) -> None:
    found, text = documented(name)
    assert len(text) > 20 and found.__doc__, "inherited, or nothing"
    assert (">>> " in text) != (name in WITHOUT_EXAMPLE)


@NAMES
def test_it_says_what_it_takes_or_holds(name: str) -> None:
    found, text = documented(name)
    if not holds_fields(found):
        assert parameters(found) <= described(text)
    elif not described(text):
        assert inspect.get_annotations(found).keys() <= commented(found)


def test_what_is_excused_is_public() -> None:
    assert WITHOUT_EXAMPLE.keys() <= {*pv.__all__}
