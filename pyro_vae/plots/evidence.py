"""How far an estimate of log p(x) can be believed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

#: Blue and vermilion of Okabe & Ito (2008), told apart by the colour-blind.
_BLUE, _VERMILION = "#0072B2", "#D55E00"


def bound_curve(
    num_particles: Sequence[int],
    bound: Tensor,
    *,
    other: tuple[float, float] | None = None,
    other_label: str = "annealed",
    units: str = "nats per datum",
) -> Figure:
    """The importance-weighted bound against the number of draws, mean over data, as a line with points.

    The error bars are 95 % intervals of the mean difference to the last point, taken datum by datum, so
    that what all points share is not in them; the last point has none. Levels that a datum lacks (NaN) are
    left out.

    Args:
        num_particles: Numbers of draws, rising.
        bound: `LogEvidence.curve.bound`, (levels, B).
        other: Value and standard error of another estimate of the same mean, drawn as a line with a 95 %
            band.
        other_label: What that is.
        units: Of all values.

    >>> import torch
    >>> bound = torch.tensor([[-21.0, -23.0], [-20.5, -22.0], [-20.25, -21.5]])
    >>> figure = bound_curve([1, 10, 100], bound, other=(-20.75, 0.05))
    >>> figure.axes[0].get_xscale()
    'log'
    """
    draws, values = np.asarray(num_particles), bound.cpu().double().numpy()
    complete = np.isfinite(values).all(1)
    draws, values = draws[complete], values[complete]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    if other is not None:
        value, error = other
        axes.axhspan(value - 1.96 * error, value + 1.96 * error, color=_VERMILION, alpha=0.2, linewidth=0)
        axes.axhline(value, color=_VERMILION, linewidth=1.2, label=f"{other_label}: {value:.2f}")
    if len(draws):
        means, halves = values.mean(1), _paired(values)
        label = f"importance sampling: {means[-1]:.2f} at K = {draws[-1]}"
        axes.errorbar(draws, means, halves, fmt="o-", color=_BLUE, markersize=4, capsize=2, label=label)
    axes.set_xlabel("K, draws per datum (bars: 95 % interval of the difference to the last point)")
    axes.set_ylabel(f"mean of log 1/K Σ w ({units})")
    axes.set_title("a lower bound on log p(x) in expectation, which rises with K", fontsize=10)
    _legend(figure)
    return figure


def _paired(values: np.ndarray) -> np.ndarray:
    """Half widths of 95 % intervals of the mean differences to the last row, (levels,)."""
    differences = values - values[-1]
    num = values.shape[1]
    return 1.96 * differences.std(1, ddof=1) / math.sqrt(num) if num > 1 else np.zeros(len(values))


def pareto_k(k: Tensor, *, reliable: float = 0.7) -> Figure:
    """Pareto k̂ of each datum, from the smallest to the largest, with the line above which nothing is known.

    Args:
        k: `LogEvidence.pareto_k`, (B,). NaN is counted in the title, and infinity drawn at the upper edge.
        reliable: The k̂ above which an estimate cannot be believed.

    >>> import torch
    >>> figure = pareto_k(torch.tensor([0.1, 0.4, 0.9]))
    >>> len(figure.axes)
    1
    """
    known = k[~k.isnan()].cpu().double().sort().values
    finite = known[known.isfinite()]
    top = max(1.0, float(finite.max()) if len(finite) else 1.0)
    bottom = min(0.0, float(finite.min()) if len(finite) else 0.0)
    shown = known.clamp(max=top)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", alpha=0.3)
    axes.axhline(reliable, color="black", linewidth=0.8)
    axes.set_ylim(bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom))
    for chosen, marker, colour, label in [
        (shown <= reliable, "o", _BLUE, f"k̂ at most {reliable:g}: no heavy tail in the draws made"),
        (shown > reliable, "^", _VERMILION, f"k̂ above {reliable:g}: likely too low, by an unknown amount"),
    ]:
        _points(axes, shown, chosen, marker, colour, label)
    above, unknown = int((known > reliable).sum()), int(k.isnan().sum())
    axes.set_xlabel("data, from the smallest k̂ to the largest")
    axes.set_ylabel("Pareto k̂ of the weights' tail")
    rest = f", unknown for {unknown}" if unknown else ""
    share = 100 * above / max(len(k), 1)
    axes.set_title(f"k̂ above {reliable:g} for {above} of {len(k)} data ({share:.3g} %){rest}", fontsize=10)
    _legend(figure)
    return figure


def _points(axes: Axes, values: Tensor, chosen: Tensor, marker: str, colour: str, label: str) -> None:
    if chosen.any():
        places = torch.arange(1, len(values) + 1)[chosen]
        axes.plot(
            places.numpy(),
            values[chosen].numpy(),
            marker,
            color=colour,
            markersize=4,
            label=f"{label} ({int(chosen.sum())})",
        )


def _legend(figure: Figure) -> None:
    """Below the picture, where there is something to explain."""
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
