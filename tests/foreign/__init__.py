"""Pyro programs in the manner of many different people, each with its answer known beforehand.

``PROGRAMS`` maps a name to a function that builds a fresh ``Case``.
"""

import importlib

from ._common import PROGRAMS, Case

for _name in (
    "axes",
    "networks",
    "plates",
    "sequences",
    "masks",
    "discrete",
    "families",
    "guides",
    "refused",
):
    importlib.import_module(f"{__name__}.{_name}")

__all__ = ["PROGRAMS", "Case"]
