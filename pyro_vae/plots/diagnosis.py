"""Where the nats go, as pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

#: Of Okabe & Ito (2008), told apart by the colour-blind: a loss, a gain, what is not used.
_LOSS, _GAIN, _IDLE = "#D55E00", "#0072B2", "0.6"


def waterfall(
    steps: Sequence[tuple[str, float, float]],
    *,
    totals: Sequence[tuple[int, str, float, float]] = (),
    saved: tuple[int, float, str] | None = None,
    units: str = "nats per datum",
) -> Figure:
    """Steps from one number to another, one row each from top to bottom, with what they add up to.

    The first step is where the sum begins, drawn as a point like the totals; every other is a bar from the
    sum before it to the sum after it, so that the axis need not contain 0.

    Args:
        steps: Label, change and its standard error of each.
        totals: Sums to show: after how many steps, label, value and its standard error.
        saved: A part at the end of a step's bar to be marked: the step's number, its size, its label.
        units: Of all numbers.

    >>> steps = [("− distortion", -20.0, 0.2), ("− rate", -5.0, 0.1), ("+ gaps", 0.5, 0.05)]
    >>> figure = waterfall(steps, totals=[(2, "ELBO", -25.0, 0.2), (3, "log p(x)", -24.5, 0.2)])
    >>> len(figure.axes)
    1
    """
    figure = Figure(figsize=(9, 0.5 * (len(steps) + len(totals)) + 1.1), layout="constrained")
    axes = figure.subplots()
    labels: list[str] = []
    total = 0.0
    for number, (label, change, error) in enumerate(steps):
        row = len(labels)
        labels.append(label)
        if number == 0:
            _point(axes, row, change, error)
        else:
            _step(axes, row, total, change, error)
            if saved is not None and saved[0] == number:
                _saved(axes, row, total + change, *saved[1:])
        total += change
        for _, name, value, value_error in (each for each in totals if each[0] == number + 1):
            _point(axes, len(labels), value, value_error)
            labels.append(name)
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.margins(x=0.16)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{units}, mean over the data; lines are ± standard error", parse_math=False)
    if saved is not None:
        figure.legend(loc="outside upper right", frameon=False, fontsize=8)
    return figure


def latent_units(
    names: Sequence[str],
    activity: Tensor,
    *,
    threshold: float = 0.01,
    kl: Tensor | None = None,
    kl_error: Tensor | None = None,
) -> Figure:
    """KL and activity of each latent unit as bars, the largest first; those below the threshold in grey.

    Args:
        names: Of the n units.
        activity: Var_x(E_q[u_d|x]), (n,).
        threshold: Activity above which a unit is active.
        kl: KL of each, in nats per datum, (n,).
        kl_error: Its standard error, (n,).

    >>> import torch
    >>> figure = latent_units(["z[0]", "z[1]"], torch.tensor([0.9, 0.001]), kl=torch.tensor([2.5, 0.0]))
    >>> len(figure.axes)
    2
    """
    order = (activity if kl is None else kl).argsort(descending=True).tolist()
    values = activity.cpu().double().numpy()[order]
    colours = [_GAIN if value > threshold else _IDLE for value in values]
    size = (min(max(5.0, 1.5 + 0.24 * len(names)), 12), 2.6 if kl is None else 4.6)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1 if kl is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    if kl is not None:
        errors = None if kl_error is None else kl_error.cpu().double().numpy()[order]
        heights = kl.cpu().double().numpy()[order]
        panels[0].bar(range(len(names)), heights, color=colours, yerr=errors, ecolor="0.3")
        panels[0].set_ylabel("KL (nats per datum)")
    _activity(panels[-1], values, colours, threshold)
    shown = [names[number] for number in order] if len(names) <= 48 else []
    panels[-1].set_xticks(range(len(shown)), shown, rotation=90, fontsize=8, parse_math=False)
    active = int((values > threshold).sum())
    panels[-1].set_xlabel(f"latent units, largest first; {active} of {len(names)} active, the others grey")
    for axes in panels:
        axes.margins(x=0.02)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def _activity(axes: Axes, values: np.ndarray, colours: Sequence[str], threshold: float) -> None:
    """Activity on a logarithmic axis, whose bars begin well below the threshold."""
    low = min(threshold, max(values.min(), threshold / 100)) / 2
    axes.set_yscale("log")
    axes.bar(range(len(values)), np.maximum(values - low, 0), bottom=low, color=colours)
    axes.set_ylim(low, max(values.max(), threshold) * 2)
    axes.axhline(threshold, color="black", linewidth=0.8, linestyle="--")
    text = axes.annotate("active above", (1, threshold), (-2, 2), ("axes fraction", "data"), "offset points")
    text.set(fontsize=7, ha="right", va="bottom")
    axes.set_ylabel("activity, Var E[u]")


def _point(axes: Axes, row: int, value: float, error: float) -> None:
    """A sum, as a diamond with its error and number."""
    if np.isfinite(error):
        axes.hlines(row, value - error, value + error, color="black", linewidth=1)
    axes.plot([value], [row], "D", color="black", markersize=6)
    axes.vlines(value, row, row + 1, color="0.5", linewidth=0.8, linestyle=":")
    _number(axes, row, value + np.nan_to_num(error), f"{value:.2f}", 7)


def _step(axes: Axes, row: int, start: float, change: float, error: float) -> None:
    """A change, as a bar from the sum before it, with its error at its end."""
    stop = start + change
    colour = _GAIN if change >= 0 else _LOSS
    axes.barh(row, change, left=start, height=0.6, color=colour)
    axes.vlines(stop, row, row + 1, color="0.5", linewidth=0.8, linestyle=":")
    half = float(np.nan_to_num(error))
    axes.hlines(row, stop - half, stop + half, color="0.2", linewidth=1)
    _number(axes, row, max(start, stop + half), f"{change:+.2f}", 4)


def _saved(axes: Axes, row: int, stop: float, size: float, label: str) -> None:
    """The part of a loss, at its end, that a swap saves."""
    bar = axes.barh(row, size, left=stop, height=0.6, color=_LOSS, edgecolor="white", hatch="////")
    bar.set_label(label)


def _number(axes: Axes, row: int, outer: float, text: str, points: int) -> None:
    note = axes.annotate(text, (outer, row), (points, 0), textcoords="offset points")
    note.set(fontsize=8, va="center", ha="left")
