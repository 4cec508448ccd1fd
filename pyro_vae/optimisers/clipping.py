"""Bounds on the gradient."""

from collections.abc import Mapping

from pyro_vae.errors import InputError


def clip_bounds(clip_args: object) -> tuple[float | None, float | None]:
    """Bounds on the norm of the whole gradient and on each of its elements.

    Raises:
        InputError: where `clip_args` is no dictionary of them.
    """
    names = ("clip_norm", "clip_value")
    given = {} if clip_args is None else clip_args
    if not isinstance(given, Mapping) or not set(given) <= set(names):
        raise InputError(f"clip_args expects a dictionary of clip_norm and clip_value, got {clip_args}")
    for name, bound in given.items():
        if bound is not None and not bound > 0:
            raise InputError(f"{name} expects a positive number, got {bound}")
    return given.get(names[0]), given.get(names[1])
