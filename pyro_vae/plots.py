"""Figures from tensors; the only file that imports matplotlib.

Every function returns a `matplotlib.figure.Figure`; `save` writes it.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from pyro_vae.runs import write


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG, atomically."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    write(path, buffer.getvalue())


def history(columns: Mapping[str, Sequence[float]], *, density: bool = True) -> Figure:
    """ELBO of training and validation by epoch, and the validation ELBO's two parts.

    Args:
        columns: The fields of `Epoch` by name.
        density: Whether the program has a p(x); else the "ELBO" is minus an error, of one part.
    """
    if not density:
        return _errors(columns)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = columns["epoch"]
    left.plot(epochs, columns["train_elbo"], label="train")
    left.plot(epochs, columns["valid_elbo"], label="validation")
    left.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
    left.set_ylim(*_without_start(columns["train_elbo"], columns["valid_elbo"]))
    distortion = [-value for value in columns["valid_reconstruction"]]
    right.plot(epochs, distortion, label="distortion, −E log p(x|z)")
    right.plot(epochs, columns["valid_kl"], label="KL to the prior")
    # from 0, except where a density is above 1
    low = 0 if min([0, *distortion]) == 0 else None
    right.set(xlabel="epoch", ylabel="validation (nats per datum)", ylim=(low, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _errors(columns: Mapping[str, Sequence[float]]) -> Figure:
    """Reconstruction error of training and validation by epoch."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, label in (("train_elbo", "train"), ("valid_elbo", "validation")):
        axes.plot(columns["epoch"], [-value for value in columns[name]], label=label)
    axes.set(xlabel="epoch", ylabel="reconstruction error per datum")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def images(pictures: Tensor, *, columns: int | None = None, title: str = "") -> Figure:
    """Pictures in a grid, row by row.

    Args:
        pictures: (N, C, H, W) with one or three channels, or (N, D), each datum then a strip of grey.
        columns: Number of columns; about square by default.
        title: Above the grid.
    """
    tiles = [_tile(picture) for picture in pictures]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    low, high = float(pictures.min()), float(pictures.max())
    canvas = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + 1), column * (width + 1)
        canvas[top : top + height, left : left + width] = _unit(tile, low, high)
    return _canvas(canvas, title)


def reconstructions(originals: Tensor, reconstructed: Tensor, *, columns: int = 10) -> Figure:
    """Originals over their reconstructions, in pairs of rows; both (N, *data_shape)."""
    rows = []
    for start in range(0, len(originals), columns):
        stop = start + columns
        missing = max(0, stop - len(originals))
        for part in (originals[start:stop], reconstructed[start:stop]):
            rows.append(torch.cat([part, torch.ones_like(part[:1]).expand(missing, *part.shape[1:])]))
    title = "originals (odd rows) over reconstructions (even rows)"
    return images(torch.cat(rows), columns=columns, title=title)


def plane(
    pictures: Tensor, across: Sequence[float], down: Sequence[float], labels: tuple[str, str]
) -> Figure:
    """Decoded grid over two latent axes.

    Args:
        pictures: (len(down) · len(across), *data_shape), row by row, the top row at the largest `down`.
        across: Values of the first axis, increasing.
        down: Values of the second axis, from top to bottom.
        labels: Names of the two axes.
    """
    figure = images(pictures, columns=len(across))
    axes = figure.axes[0]
    axes.set_axis_on()
    for spine in axes.spines.values():
        spine.set_visible(False)
    height, width = _tile(pictures[0]).shape[:2]
    columns = np.linspace(0, len(across) - 1, min(7, len(across))).round().astype(int)
    rows = np.linspace(0, len(down) - 1, min(7, len(down))).round().astype(int)
    axes.set_xticks(columns * (width + 1) + width / 2 - 0.5, [f"{across[i]:.2f}" for i in columns])
    axes.set_yticks(rows * (height + 1) + height / 2 - 0.5, [f"{down[i]:.2f}" for i in rows])
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return figure


#: Colour and sign of a verdict: blue and vermilion of Okabe & Ito (2008), told apart by the colour-blind.
_VERDICTS = {
    "better": ("#0072B2", ">"),
    "worse": ("#D55E00", "<"),
    "within noise": ("0.5", "o"),
    "reference": ("black", "D"),
}

#: Colours of groups, likewise.
_COLOURS = ("black", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.6")

#: Colours and signs of kinds, likewise.
_SIGNS = (("#0072B2", "o"), ("#D55E00", "<"), ("#009E73", "s"), ("black", "D"))


def differences(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    verdicts: Sequence[str],
    *,
    reference: str,
    units: str = "nats per datum",
) -> Figure:
    """Differences in log p(x) to one run, with their intervals, one row per run from top to bottom.

    Args:
        labels: Of the rows; long lines are wrapped.
        values: The differences; 0 for the reference.
        intervals: Lower and upper end of each.
        verdicts: "better", "worse", "within noise" or "reference".
        reference: Name of the reference.
        units: Of the differences.
    """
    texts = ["\n".join(fill(line, 60) for line in label.split("\n")) for label in labels]
    heights = np.array([0.2 + 0.14 * (1 + text.count("\n")) for text in texts])  # inches
    rows = heights.cumsum() - heights / 2
    figure = Figure(figsize=(9, heights.sum() + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(rows, texts, fontsize=8, parse_math=False)
    axes.set_ylim(heights.sum(), 0)
    what, how = f"difference in log p(x) to {reference}", f"({units}, paired 95 % interval)"
    axes.set_xlabel(f"{fill(what, 70)}{' ' if len(what + how) < 80 else chr(10)}{how}", parse_math=False)
    _intervals(axes, rows, values, intervals, verdicts)
    figure.legend(loc="outside upper right", ncols=len(_VERDICTS), frameon=False, fontsize=8)
    return figure


def _intervals(
    axes: Axes,
    rows: np.ndarray,
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    verdicts: Sequence[str],
) -> None:
    for verdict, (colour, marker) in _VERDICTS.items():
        chosen = [number for number, each in enumerate(verdicts) if each == verdict]
        if chosen:
            lower, upper = ([intervals[i][end] for i in chosen] for end in (0, 1))
            axes.hlines(rows[chosen], lower, upper, color=colour, linewidth=2)
            points = [values[i] for i in chosen]
            axes.plot(points, rows[chosen], marker, color=colour, markersize=5, label=verdict)


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    *,
    bold: np.ndarray | None = None,
    label: str = "",
) -> Figure:
    """A table whose cells are coloured by their values; NaN leaves a cell empty.

    Args:
        values: (R, C).
        rows: Names of the rows, from top to bottom.
        columns: Names of the columns.
        texts: What stands in each cell.
        bold: (R, C), which cells are marked by bold text.
        label: Of the colours.
    """
    size = (1.6 + 1.45 * len(columns) + 1.0, 0.55 * len(rows) + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), [fill(name, 16) for name in columns], parse_math=False)
    axes.set_yticks(range(len(rows)), [fill(name, 24) for name in rows], parse_math=False)
    axes.tick_params(length=0)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            weight = "bold" if bold is not None and bold[row, column] else "normal"
            # black on yellow and green, white on blue
            colour = "black" if value > middle else "white"
            text = axes.text(column, row, texts[row][column], color=colour, weight=weight, fontsize=9)
            text.set(ha="center", va="center")
    figure.colorbar(picture, label=label)
    return figure


def points(
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    kinds: Sequence[str],
    *,
    xlabel: str,
) -> Figure:
    """Repeated measurements as points, one row each from top to bottom, with a line at their mean.

    Args:
        labels: Of the rows.
        values: Those of each row.
        kinds: What each row is, at most four different words; each has a colour and a sign.
        xlabel: What is measured.
    """
    figure = Figure(figsize=(9, 0.36 * len(labels) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(xlabel, parse_math=False)
    for kind, (colour, marker) in zip(dict.fromkeys(kinds), _SIGNS, strict=False):
        chosen = [row for row, each in enumerate(kinds) if each == kind]
        spread = [(value, row) for row in chosen for value in values[row]]
        axes.plot(*zip(*spread, strict=True), marker, color=colour, markersize=6, alpha=0.7, label=kind)
        axes.vlines([np.mean(values[row]) for row in chosen], *_around(chosen), color=colour, linewidth=2)
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return figure


def _around(rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The upper and lower ends of short vertical lines."""
    return np.array(rows) - 0.3, np.array(rows) + 0.3


def ratios(
    labels: Sequence[str],
    groups: Sequence[str],
    panels: Mapping[str, Sequence[tuple[float, float, float] | None]],
    *,
    order: Sequence[str],
    xlabel: str,
) -> Figure:
    """Ratios to a reference as bars from 1 on a log scale, to the left where smaller; a panel for each case.

    Args:
        labels: Of the rows, from top to bottom.
        groups: What each row belongs to, one of `order`.
        panels: By title, for each row the ratio with the two ends of its interval, or None.
        order: At most six groups, each with a colour that does not depend on which are shown.
        xlabel: What the ratios are of.
    """
    down = math.ceil(len(panels) / 2) if len(panels) > 1 else 1
    across = min(len(panels), 2)
    size = (2.2 + 3.9 * across, (0.24 * len(labels) + 0.55) * down + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, sharey=True, sharex=True, squeeze=False)
    colours = dict(zip(order, _COLOURS, strict=False))
    for axes, (title, rows) in zip(grid.flat, panels.items(), strict=False):
        _bars(axes, rows, [colours[group] for group in groups])
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="x", labelsize=8, labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(xlabel, fontsize=9, parse_math=False)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items() if name in groups]
    figure.legend(handles=handles, loc="outside upper right", ncols=6, frameon=False, fontsize=8)
    return figure


def _bars(axes: Axes, rows: Sequence[tuple[float, float, float] | None], colours: Sequence[str]) -> None:
    """Bars from 1 to each ratio, with its interval as a line and its number at its outer end."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.16)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    for row, (found, colour) in enumerate(zip(rows, colours, strict=True)):
        if found is None:
            continue
        ratio, low, high = found
        axes.barh(row, ratio - 1, left=1, height=0.7, color=colour)
        axes.hlines(row, low, high, color="0.3", linewidth=1)
        outer, side = (min(ratio, low), -1) if ratio < 1 else (max(ratio, high), 1)
        text = axes.annotate(f"{ratio:.2f}", (outer, row), (3 * side, 0), textcoords="offset points")
        text.set(fontsize=7, va="center", ha="left" if side > 0 else "right")


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
    """Values in [0, 1] as they are; any other range of the whole set stretched to it."""
    return tile if low >= 0 and high <= 1 else (tile - low) / max(high - low, 1e-12)


def _without_start(*series: Sequence[float]) -> tuple[float | None, float | None]:
    """Limits that leave out the steep first epochs, where there are more than ten."""
    values = [value for values in series for value in values[len(values) // 10 :] if math.isfinite(value)]
    if len(series[0]) <= 10 or not values:
        return None, None
    margin = 0.05 * (max(values) - min(values))
    return min(values) - margin, max(values) + margin
