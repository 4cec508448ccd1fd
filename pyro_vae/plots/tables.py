"""Rows of mixed tables: data against draws from a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.columns import WORDS, Column, Columns
from pyro_vae.errors import InputError
from pyro_vae.plots.calibration import _BLUE, _VERMILION, _panels

#: Bars of a histogram, and classes with a bar each.
_BINS, _CLASSES = 30, 12

Numbers = NDArray[Any]


def marginals(draws: Tensor, columns: Columns, data: Tensor | None = None, *, panels: int = 24) -> Figure:
    """Each column by itself: shares of the data as bars, of draws from the model as a line.

    Args:
        draws: (M, D), drawn from the model.
        columns: Of the table.
        data: (N, D); NaN where missing is left out. None for the draws alone.
        panels: Columns at the most, the first ones.

    Raises:
        InputError: where draws or data have not D columns.

    >>> import torch
    >>> from pyro_vae import Column
    >>> columns = (Column("height", "real", location=1.7, scale=0.1),)
    >>> figure = marginals(1.7 + 0.1 * torch.randn(100, 1), columns, 1.7 + 0.1 * torch.randn(40, 1))
    >>> len(figure.axes)
    1
    """
    rows, model = _as_numbers(draws, columns), None if data is None else _as_numbers(data, columns)
    figure, axes = _panels(min(len(columns), panels), width=2.6, height=2.0)
    for place, (panel, column) in enumerate(zip(axes, columns, strict=False)):
        there = None if model is None else model[:, place]
        _marginal(panel, column, rows[:, place], there)
        panel.set_title(_title(column), fontsize=9, parse_math=False)
        panel.tick_params(labelsize=7)
        panel.set_yticks([])
    shown = f" (the first {panels} of {len(columns)} columns)" if len(columns) > panels else ""
    figure.supxlabel(f"values, 98 % of them{shown}", fontsize=9)
    figure.supylabel("share", fontsize=9)
    _legend(figure, data is not None)
    return figure


def pairs(
    draws: Tensor, columns: Columns, data: Tensor | None = None, *, names: Sequence[str] | None = None
) -> Figure:
    """Pairs of columns: draws from the model above the diagonal, data below it, marginals on it.

    Args:
        draws: (M, D), drawn from the model.
        columns: Of the table.
        data: (N, D), NaN where missing; None for the draws alone.
        names: Of two columns or more; by default up to five that depend most on others, by rank correlation.

    Raises:
        InputError: where draws or data have not D columns, or fewer than two are named.

    >>> import torch
    >>> from pyro_vae import Column
    >>> columns = (Column("height", "real"), Column("weight", "real"))
    >>> figure = pairs(torch.randn(100, 2), columns, torch.randn(40, 2))
    >>> len(figure.axes)
    4
    """
    model = _as_numbers(draws, columns)
    there = model if data is None else _as_numbers(data, columns)
    chosen = _chosen(there, columns, names)
    number = len(chosen)
    figure = Figure(figsize=(2.0 * number + 0.6, 1.8 * number + 0.8), layout="constrained")
    grid: Any = figure.subplots(number, number, squeeze=False)
    random = np.random.RandomState(0)
    for down, across in np.ndindex(number, number):
        axes: Axes = grid[down, across]
        one, other = chosen[across], chosen[down]
        if down == across:
            observed = None if data is None else there[:, one]
            _marginal(axes, columns[one], model[:, one], observed)
            axes.set_yticks([])
        else:
            rows, colour = (model, _VERMILION) if across > down else (there, _BLUE)
            colour = _VERMILION if data is None else colour
            _points(axes, rows[:, [one, other]], (columns[one], columns[other]), colour, random)
            _limits(axes, columns[one], there[:, one], axes.set_xlim)
            _limits(axes, columns[other], there[:, other], axes.set_ylim)
        _label(axes.xaxis, columns[one], here=down == number - 1)
        if down != across:
            _label(axes.yaxis, columns[other], here=across == 0)
    _legend(figure, data is not None)
    return figure


def _as_numbers(rows: Tensor, columns: Columns) -> Numbers:
    """Rows in a user's units, positive numbers in logarithms to base 10."""
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise InputError(f"expected rows of {len(columns)} columns, got {tuple(rows.shape)}")
    values = rows.detach().cpu().double().numpy() + np.array([column.origin for column in columns])
    for place, column in enumerate(columns):
        if column.kind == "positive":
            values[:, place] = np.log10(values[:, place])
    return values


def _title(column: Column) -> str:
    name = column.name if len(column.name) <= 24 else f"{column.name[:22]}…"
    return f"{name}, powers of ten" if column.kind == "positive" else name


def _marginal(axes: Axes, column: Column, model: Numbers, data: Numbers | None) -> None:
    """Bars of data and a line of draws, on one set of bins."""
    drawn, seen = (np.zeros(0) if each is None else each[np.isfinite(each)] for each in (model, data))
    edges = _edges(column, seen if len(seen) else drawn)
    for values, style in ((seen, {"fill": True, "color": _BLUE, "alpha": 0.45}), (drawn, _LINE)):
        if len(values):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, **style)
    if column.kind in WORDS:
        shown = column.classes[:_CLASSES]
        words = [word if len(word) <= 10 else f"{word[:9]}…" for word in shown]
        axes.set_xticks(range(len(shown)), words, rotation=30 if len(shown) > 2 else 0)
        for tick in axes.get_xticklabels():
            tick.set_parse_math(False)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=column.kind == "count"))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)


_LINE: dict[str, Any] = {"color": _VERMILION, "linewidth": 1.4}


def _edges(column: Column, values: Numbers) -> Numbers:
    """Edges of bins: one for each class or few counts, else equal ones of 98 % of the values."""
    if column.kind in WORDS:
        return np.arange(min(len(column.classes), _CLASSES) + 1) - 0.5
    low, high = np.quantile(values, [0.01, 0.99])
    if column.kind == "count":
        step = max(1, int(np.ceil((high - low + 1) / _BINS)))
        return np.arange(float(np.floor(low)), float(high) + step + 0.5, step) - 0.5
    margin = 0.05 * float(high - low) or 1.0
    return np.linspace(float(low) - margin, float(high) + margin, _BINS + 1)


def _limits(axes: Axes, column: Column, values: Numbers, put: Any) -> None:
    edges = _edges(column, values[np.isfinite(values)])
    put(edges[0], edges[-1])


def _points(
    axes: Axes, rows: Numbers, columns: tuple[Column, Column], colour: str, random: np.random.RandomState
) -> None:
    """At most 1000 points; whole numbers are spread a little, so that they do not hide each other."""
    rows = rows[np.isfinite(rows).all(1)][:1000].copy()
    for place, column in enumerate(columns):
        if column.kind in (*WORDS, "count"):
            rows[:, place] += random.uniform(-0.3, 0.3, len(rows))
    size = min(12.0, 4000 / max(len(rows), 1))
    axes.scatter(rows[:, 0], rows[:, 1], s=size, color=colour, alpha=0.45, linewidths=0)


def _label(axis: Axis, column: Column, *, here: bool) -> None:
    """The ticks of an axis; their words, and the name of the column, only at the edge of the picture."""
    if column.kind in WORDS:
        axis.set_ticks(range(min(len(column.classes), _CLASSES)))
        axis.set_ticklabels([word[:8] for word in column.classes[:_CLASSES]], parse_math=False)
    else:
        axis.set_major_locator(MaxNLocator(3))
    axis.set_tick_params(labelsize=6)
    axis.set_label_text(_title(column) if here else "", fontsize=8, parse_math=False)
    if not here:
        axis.set_ticklabels([])


def _chosen(values: Numbers, columns: Columns, names: Sequence[str] | None) -> list[int]:
    """Places of the columns that are shown."""
    known = [column.name for column in columns]
    if names is not None:
        unknown = [name for name in names if name not in known]
        if unknown or len(names) < 2:
            raise InputError(
                f"pairs expects names of two columns or more, got {', '.join(names) or 'none'}: choose among "
                f"{', '.join(known)}"
            )
        return [known.index(name) for name in names]
    if len(columns) <= 5:
        return list(range(len(columns)))
    filled = np.where(np.isnan(values), np.nanmean(values, 0), values)
    ranks = filled.argsort(0).argsort(0).astype(float)
    with np.errstate(invalid="ignore"):
        strength = np.nan_to_num(np.abs(np.corrcoef(ranks.T))).sum(0)
    return sorted(np.argsort(-strength, kind="stable")[:5].tolist())


def _legend(figure: Figure, with_data: bool) -> None:
    handles: list[Any] = [Line2D([], [], label="draws from the model", **_LINE)]
    if with_data:
        handles.insert(0, Patch(color=_BLUE, alpha=0.45, label="data"))
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
