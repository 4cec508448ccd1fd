"""What is trained."""

import math
from typing import NamedTuple

_DATA = ("--data.form", "Dequantised")


class Variant(NamedTuple):
    """One training: the scale in words, as a number where it is fixed, and the words after config.yaml."""

    label: str
    scale: float | None
    options: tuple[str, ...]


def _fixed(scale: float, meaning: str = "") -> Variant:
    return Variant(f"s = {scale:.4g}{meaning}", scale, (*_DATA, "--likelihood.scale", repr(scale)))


#: By the name of their run, from the widest fixed scale to the learned ones.
VARIANTS = {
    "mean": _fixed(math.sqrt(784 / 2), ", mean over pixels"),
    "one": _fixed(1.0, ", half the sum"),
    "sum": _fixed(math.sqrt(1 / 2), ", the sum"),
    "tenth": _fixed(0.1),
    "shared": Variant("one learned", None, (*_DATA, "--likelihood.scale", "shared")),
    "per-pixel": Variant(
        "learned per pixel",
        None,
        (*_DATA, "--likelihood.scale", "per_pixel", "--likelihood.log_scale_bounds", "[-10,6]"),
    ),
}
