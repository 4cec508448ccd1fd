"""Measurements next to each other."""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

#: Colour and sign of a verdict: blue and vermilion of Okabe & Ito (2008), told apart by the colour-blind.
_VERDICTS = {
    "better": ("#0072B2", ">"),
    "worse": ("#D55E00", "<"),
    "higher": ("#56B4E9", ">"),
    "lower": ("#E69F00", "<"),
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
    members: Sequence[Sequence[float]] = (),
) -> Figure:
    """Differences in log p(x) to one run, with their intervals, one row per run from top to bottom.

    Args:
        labels: Of the rows; long lines are wrapped.
        values: The differences; 0 for the reference.
        intervals: Lower and upper end of each.
        verdicts: "better", "worse", "higher", "lower", "within noise" or "reference".
        reference: Name of the reference.
        units: Of the differences.
        members: Those of the seeds of each row, shown as points where there are several.

    >>> figure = differences(
    ...     ["normal", "mixture"],
    ...     [0.0, 0.18],
    ...     [(0.0, 0.0), (0.05, 0.31)],
    ...     ["reference", "better"],
    ...     reference="normal",
    ... )
    >>> len(figure.axes)
    1
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
    several = [
        (value, row) for row, each in zip(rows, members, strict=False) if len(each) > 1 for value in each
    ]
    if several:
        axes.plot(*zip(*several, strict=True), "|", color="0.3", markersize=9, label="one seed")
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

    >>> import numpy as np
    >>> values = np.array([[0.0, 1.0], [0.5, 2.0]])
    >>> texts = [[f"{value:.1f}" for value in row] for row in values]
    >>> figure = heat_map(values, ["normal", "flow"], ["bits", "levels"], texts, label="nats")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0.0', '1.0', '0.5', '2.0']
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

    >>> figure = points(["a", "b"], [[1.0, 1.1], [2.0]], ["ours", "theirs"], xlabel="ms per step")
    >>> figure.axes[0].get_xlabel()
    'ms per step'
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

    >>> panels = {"one thread": [(1.2, 1.1, 1.3), None], "two threads": [(1.5, 1.4, 1.7), (0.9, 0.8, 1.0)]}
    >>> figure = ratios(["MLP", "conv"], ["fast", "plain"], panels, order=["fast", "plain"], xlabel="speed")
    >>> [axes.get_title() for axes in figure.axes]
    ['one thread', 'two threads']
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
