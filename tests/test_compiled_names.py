"""The private names of torch, Pyro and jsonargparse that the package relies on are all there."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "pyro_vae" / "compiled" / "INVARIANTS.md"
NAMES = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE)


def found(name: str) -> object:
    """What a dotted name stands for: the longest part that is a module, and attributes of it."""
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:number]))
        except ImportError:
            continue
        for part in parts[number:]:
            thing = getattr(thing, part)
        return thing
    raise ImportError(name)


def test_the_page_lists_names() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize("name", NAMES)
def test_private_names_are_there(name: str) -> None:
    try:
        found(name)
    except (ImportError, AttributeError):
        pytest.fail(f"{name} is gone: see {PAGE.name} for what it was used for")
