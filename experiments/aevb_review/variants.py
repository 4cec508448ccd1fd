"""What is trained."""

from typing import NamedTuple

_WIDE = ("--likelihood.log_scale_bounds", "[-20,20]")
_GREY = ("--data.form", "Levels")
_SPREAD = ("--data.form", "Dequantised")


class Variant(NamedTuple):
    """One training: its names in tables and pictures, and its words on the command line after config.yaml."""

    label: str
    short: str
    options: tuple[str, ...]


#: By the name of their run.
VARIANTS = {
    "unbounded": Variant("scale per pixel, log s in [−20, 20]", "per pixel, wide", (*_GREY, *_WIDE)),
    "unbounded-30": Variant(
        "the same, 30 epochs whatever they give",
        "per pixel, wide, 30 epochs",
        (*_GREY, *_WIDE, "--patience", "null", "--epochs", "30"),
    ),
    "bounded": Variant(
        "scale per pixel, log s in [−3, 3]",
        "per pixel, bounded",
        (*_GREY, "--likelihood.log_scale_bounds", "[-3,3]"),
    ),
    "shared": Variant("one shared scale", "shared scale", (*_GREY, "--likelihood.scale", "shared")),
    "dequantised": Variant(
        "dequantised, scale per pixel, log s in [−20, 20]",
        "per pixel, dequantised",
        (*_WIDE, *_SPREAD),
    ),
    "dequantised-bounded": Variant(
        "dequantised, scale per pixel, log s in [−3, 3]",
        "per pixel, dequantised, bounded",
        ("--likelihood.log_scale_bounds", "[-3,3]", *_SPREAD),
    ),
    "dequantised-5": Variant(
        "dequantised, log s in [−20, 20], L = 5, 3 epochs",
        "per pixel, dequantised, L = 5",
        (*_WIDE, *_SPREAD, "--num_particles", "5", "--epochs", "3"),
    ),
}
