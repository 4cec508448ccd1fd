"""Pictures in rows with names."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.plots.pictures import images


def rows(pictures: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Pictures in rows, each with its name to the left.

    Args:
        pictures: By the name of the row, from top to bottom, (N, C, H, W) each, values in [0, 1] as they are.
        title: Above the rows.

    Raises:
        InputError: where there is no row, or the rows differ in shape.
    """
    shapes = {tuple(each.shape) for each in pictures.values()}
    if len(shapes) != 1:
        raise InputError(f"rows expects pictures of one shape (N, C, H, W), got {sorted(shapes)}")
    number, _, height, _ = shapes.pop()
    figure = images(torch.cat(list(pictures.values())), columns=number, title=title)
    axes = figure.axes[0]
    axes.set_axis_on()
    for spine in axes.spines.values():
        spine.set_visible(False)
    places = [row * (height + 1) + (height - 1) / 2 for row in range(len(pictures))]
    axes.set_yticks(places, list(pictures), fontsize=9, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    return figure
