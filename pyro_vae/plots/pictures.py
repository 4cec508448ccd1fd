"""Data as pictures."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from torch import Tensor

from pyro_vae.errors import InputError


def images(
    pictures: Tensor, *, columns: int | None = None, title: str = "", like: Tensor | None = None
) -> Figure:
    """Pictures in a grid, row by row: values in [0, 1] as they are, any other range stretched to it.

    Args:
        pictures: (N, C, H, W) with one or three channels, or (N, D), each datum then a strip of grey.
        columns: Number of columns; about square by default.
        title: Above the grid.
        like: Whose range is shown, by default that of all pictures; what is beyond it is cut.

    >>> import torch
    >>> figure = images(torch.rand(6, 1, 8, 8), columns=3)
    >>> len(figure.axes)
    1
    """
    tiles = [_tile(picture) for picture in pictures]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    scale = pictures if like is None else like
    low, high = float(scale.min()), float(scale.max())
    canvas = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + 1), column * (width + 1)
        canvas[top : top + height, left : left + width] = _unit(tile, low, high)
    return _canvas(canvas, title)


def reconstructions(
    originals: Tensor, reconstructed: Tensor, *, seen: Tensor | None = None, columns: int = 10
) -> Figure:
    """Originals over their reconstructions, in pairs of rows, in the range of the originals.

    Args:
        originals: (N, *data_shape).
        reconstructed: (N, *data_shape).
        seen: (N, *data_shape), what the model saw in the place of the originals, as the bits of grey levels;
            shown as a row between the two.
        columns: Data in a row.

    >>> import torch
    >>> x = torch.rand(4, 1, 8, 8)
    >>> figure = reconstructions(x, x.round(), columns=4)
    >>> len(figure.axes)
    1
    """
    parts = [originals, reconstructed] if seen is None else [originals, seen, reconstructed]
    rows = [
        _filled(part[start : start + columns], columns)
        for start in range(0, len(originals), columns)
        for part in parts
    ]
    title = "originals (odd rows) over reconstructions (even rows)"
    if seen is not None:
        title = "in threes: originals, what the model saw of them, and their reconstructions"
    return images(torch.cat(rows), columns=columns, title=title, like=originals)


def strips(rows: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Pictures in rows from top to bottom, each row with its name to the left.

    Args:
        rows: By name, (N, C, H, W) each; N may differ. Values in [0, 1] as they are.
        title: Above the rows.

    Raises:
        InputError: where there is no row, or the pictures differ in shape.

    >>> import torch
    >>> figure = strips({"data": torch.rand(5, 1, 8, 8), "samples": torch.rand(3, 1, 8, 8)})
    >>> len(figure.axes)
    1
    """
    shapes = {tuple(pictures.shape[1:]) for pictures in rows.values()}
    if len(shapes) != 1:
        raise InputError(f"strips expects rows of pictures of one shape, got {sorted(shapes)}")
    across = max(len(pictures) for pictures in rows.values())
    figure = images(torch.cat([_filled(each, across) for each in rows.values()]), columns=across, title=title)
    axes, height = _bare_axes(figure), shapes.pop()[1]
    places = [row * (height + 1) + (height - 1) / 2 for row in range(len(rows))]
    axes.set_yticks(places, [fill(name, 18) for name in rows], fontsize=9, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    return figure


def plane(
    pictures: Tensor, across: Sequence[float], down: Sequence[float], labels: tuple[str, str]
) -> Figure:
    """Decoded grid over two latent axes.

    Args:
        pictures: (len(down) · len(across), *data_shape), row by row, the top row at the largest `down`.
        across: Values of the first axis, increasing.
        down: Values of the second axis, from top to bottom.
        labels: Names of the two axes.

    >>> import torch
    >>> figure = plane(torch.rand(6, 1, 8, 8), [-1.0, 0.0, 1.0], [1.0, -1.0], ("$z_1$", "$z_2$"))
    >>> figure.axes[0].get_xlabel()
    '$z_1$'
    """
    figure = images(pictures, columns=len(across))
    axes = _bare_axes(figure)
    height, width = _tile(pictures[0]).shape[:2]
    columns = np.linspace(0, len(across) - 1, min(7, len(across))).round().astype(int)
    rows = np.linspace(0, len(down) - 1, min(7, len(down))).round().astype(int)
    axes.set_xticks(columns * (width + 1) + width / 2 - 0.5, [f"{across[i]:.2f}" for i in columns])
    axes.set_yticks(rows * (height + 1) + height / 2 - 0.5, [f"{down[i]:.2f}" for i in rows])
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return figure


def scatter(
    codes: Tensor,
    labels: Tensor | None = None,
    *,
    names: tuple[str, str] = ("$z_1$", "$z_2$"),
    title: str = "",
) -> Figure:
    """Codes of data as points of a plane, coloured by class, with each class's number at its median.

    Args:
        codes: (N, 2).
        labels: (N,) whole numbers; one colour without.
        names: Of the two axes.
        title: Above the points.

    Raises:
        InputError: where the codes have not two columns, or the labels are not one per code.

    >>> import torch
    >>> figure = scatter(torch.randn(50, 2), torch.arange(50) % 10, title="codes")
    >>> figure.axes[0].get_title()
    'codes'
    """
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, codes, labels)
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal", title=title)
    axes.set_adjustable("datalim")  # an axis that is not active would leave a strip
    axes.title.set_fontsize(10)
    return figure


def scatters(
    panels: Mapping[str, Tensor],
    labels: Tensor | None = None,
    *,
    circle: bool = False,
    names: tuple[str, str] = ("$z_1$", "$z_2$"),
) -> Figure:
    """Codes of the same data by several models, as `scatter` shows one, side by side.

    Args:
        panels: By title, codes (N, 2).
        labels: (N,) whole numbers; one colour without.
        circle: Draw the circle around 0 that holds 95 % of N(0, I), of radius √(−2 log 0.05) ≈ 2.45.
        names: Of the two axes.

    Raises:
        InputError: as `scatter`.

    >>> import torch
    >>> figure = scatters({"VAE": torch.randn(50, 2), "autoencoder": 9 * torch.randn(50, 2)}, circle=True)
    >>> [axes.get_title() for axes in figure.axes]
    ['VAE', 'autoencoder']
    """
    figure = Figure(figsize=(5.2 * len(panels), 5.2), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, codes) in zip(row, panels.items(), strict=True):
        _scatter(axes, codes, labels)
        axes.set(xlabel=names[0], ylabel=names[1], aspect="equal", title=title)
        axes.set_adjustable("datalim")
        axes.title.set_fontsize(10)
        if circle:
            radius = math.sqrt(-2 * math.log(0.05))
            axes.add_patch(Circle((0, 0), radius, fill=False, linewidth=1.5))
            ring = Line2D([], [], color="black", marker="o", fillstyle="none", linestyle="none")
            axes.legend([ring], ["95 % of N(0, I)"], loc="upper right", fontsize=8)
    return figure


def _scatter(axes: Axes, codes: Tensor, labels: Tensor | None) -> None:
    """Codes by class, checked."""
    if codes.ndim != 2 or codes.shape[1] != 2:
        raise InputError(f"scatter expects codes (N, 2), got {tuple(codes.shape)}: choose two axes")
    if labels is not None and labels.shape != codes.shape[:1]:
        raise InputError(
            f"scatter expects one label per code, got {tuple(labels.shape)} for {len(codes)} codes"
        )
    _points(axes, codes.detach().cpu().numpy(), None if labels is None else labels.cpu().numpy())


def _points(axes: Axes, codes: np.ndarray, labels: np.ndarray | None) -> None:
    style: dict[str, Any] = {"s": 25_000 / max(len(codes), 2500), "linewidths": 0, "alpha": 0.7}
    if labels is None:
        axes.scatter(codes[:, 0], codes[:, 1], color="#0072B2", **style)
        return
    classes = np.unique(labels)
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"]
    order = np.random.RandomState(0).permutation(len(codes))  # so that no class lies on top of the others
    places = np.searchsorted(classes, labels[order])
    shades = colours(places if len(classes) <= 10 else places / (len(classes) - 1))
    axes.scatter(codes[order, 0], codes[order, 1], c=shades, **style)
    for each in classes:
        middle = np.median(codes[labels == each], axis=0)
        outline = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(
            middle[0], middle[1], str(each), ha="center", va="center", fontweight="bold", path_effects=outline
        )


def _filled(pictures: Tensor, number: int) -> Tensor:
    """Pictures, followed by white ones up to `number`."""
    white = torch.ones_like(pictures[:1]).expand(number - len(pictures), *pictures.shape[1:])
    return torch.cat([pictures, white])


def _bare_axes(figure: Figure) -> Axes:
    """The axes of a grid of pictures, for ticks and labels without a frame."""
    axes = figure.axes[0]
    axes.set_axis_on()
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _canvas(canvas: np.ndarray, title: str) -> Figure:
    height, width = canvas.shape[:2]
    inches = 7 / max(height, width)
    figure = Figure(figsize=(max(width * inches, 2), max(height * inches, 1)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def _tile(picture: Tensor) -> np.ndarray:
    """(H, W, 1 or 3), of a picture (C, H, W) or of a vector as one row."""
    array = picture.detach().cpu().float().numpy()
    if array.ndim != 3:
        return array.reshape(1, -1, 1)
    # more than three channels have no colour: show their mean
    return np.moveaxis(array if len(array) in (1, 3) else array.mean(0, keepdims=True), 0, -1)


def _unit(tile: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values in [0, 1] as they are; any other range stretched to it; what is beyond it is cut."""
    shown = tile if low >= 0 and high <= 1 else (tile - low) / max(high - low, 1e-12)
    return shown.clip(0, 1)
