"""Rows of pictures, each with what it shows."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.plots.pictures import _tile, _unit


def strips(
    rows: Mapping[str, Tensor], *, captions: Mapping[str, Sequence[str]] | None = None, title: str = ""
) -> Figure:
    """Rows of pictures from top to bottom, each with its name at the left.

    Args:
        rows: By name, (N, C, H, W) each; N may differ.
        captions: By name of a row, a text under each of its pictures.
        title: Above all.

    Raises:
        InputError: where there is no row, or a row has another number of captions than of pictures.
    """
    captions = captions or {}
    wrong = [name for name, texts in captions.items() if len(texts) != len(rows.get(name, ()))]
    if not rows or wrong:
        raise InputError(f"strips expects rows and one caption per picture, got {wrong or 'no rows'}")
    across = max(len(pictures) for pictures in rows.values())
    height = sum(0.82 + 0.16 * (name in captions) for name in rows) + 0.4 * bool(title)
    figure = Figure(figsize=(1.5 + 0.8 * across, height), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        low, high = float(pictures.min()), float(pictures.max())
        for axes in line[len(pictures) :]:
            axes.set_axis_off()
        for number, (axes, picture) in enumerate(zip(line, pictures, strict=False)):
            tile = _tile(picture)
            axes.imshow(_unit(tile, low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if name in captions:
                axes.set_xlabel(captions[name][number], fontsize=8, labelpad=2)
        label = line[0].set_ylabel(fill(name, 18), fontsize=9, rotation=0, labelpad=6)
        label.set(ha="right", va="center")
    return figure
