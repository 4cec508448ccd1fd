"""Calls of constructors, with what they must know filled in by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from pyro_vae.errors import InputError

T = TypeVar("T")

#: Parameters that `assemble` fills in, by the part, and that are no choice of the user.
FACTS: dict[str, frozenset[str]] = {
    "posterior": frozenset({"latent_dim", "data_shape", "encoder"}),
    "likelihood": frozenset({"latent_dim", "data_shape", "decoder", "levels", "columns"}),
    "prior": frozenset({"latent_dim", "data_shape", "posterior", "examples", "conditions"}),
    "program": frozenset(
        {"latent_dim", "data_shape", "encoder", "decoder"}
        | {"posterior", "posteriors", "likelihood", "likelihoods", "prior"}
        | {"classifier", "labelled_share"}
    ),
}


def supply(role: str, component: Callable[..., T], facts: Mapping[str, Callable[[], object]]) -> T:
    """Call `component` with those facts that its signature names and that are not bound already.

    Raises:
        InputError: where it needs a parameter that is no fact for a part of this role.
    """
    bound = component.keywords if isinstance(component, partial) else {}
    asked = {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if name not in bound and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    known = {name: make for name, make in facts.items() if name in FACTS[role]}
    missing = [name for name, given in asked.items() if given.default is given.empty and name not in known]
    if missing:
        raise InputError(
            f"the {role} {name_of(component)} needs {', '.join(missing)}, which is not filled in: give it a "
            f"default or a value (filled in are {', '.join(sorted(known))})"
        )
    return component(**{name: make() for name, make in known.items() if name in asked})


def class_of(component: Callable[..., object]) -> Callable[..., object]:
    """What is called in the end, where `component` may be a `partial` of it."""
    return component.func if isinstance(component, partial) else component


def name_of(component: Callable[..., object]) -> str:
    """The name of what is called in the end."""
    made = class_of(component)
    return getattr(made, "__name__", repr(made))
