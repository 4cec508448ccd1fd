"""Whether q(z|x) is the posterior, as pictures."""

import math
from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.plots.pictures import _tile, _unit

#: Blue and vermilion of Okabe & Ito (2008), told apart by the colour-blind.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
#: Of the points from which coverage is seen, by the same.
_POINTS = ("#009E73", "#CC79A7", "black")


def rank_histograms(
    ranks: Tensor,
    names: Sequence[str],
    num_draws: int,
    *,
    bins: int,
    p_values: Sequence[float],
    verdicts: Sequence[str],
    panels: int = 12,
    coverage: tuple[Tensor, Tensor] | None = None,
    points: Sequence[str] = (),
) -> Figure:
    """Ranks of the truth among draws, a panel for each quantity: flat where the draws are calibrated.

    The grey band holds 99 % of the heights that one bar has by chance, that of Binomial(N, 1 / bins).
    Talts et al. (2018). Of more than `panels` quantities those with the smallest p-values are shown.

    Args:
        ranks: (N, Q), from 0 to `num_draws`; like all that follows, a `Calibration` has it.
        names: Of the quantities.
        num_draws: L.
        bins: Bars in a panel, a divisor of L + 1.
        p_values: Of the quantities.
        verdicts: Of the quantities, "calibrated" where not rejected.
        panels: Panels of ranks at the most.
        coverage: Of a `RandomCoverage`, its `curve()`, drawn in one more panel.
        points: Of the same, a word for each of its points.

    >>> import torch
    >>> figure = rank_histograms(
    ...     torch.arange(40)[:, None] % 10, ["z[0]"], 9, bins=5, p_values=[1.0], verdicts=["calibrated"]
    ... )
    >>> len(figure.axes)
    1
    """
    from scipy.stats import binom  # slow to import

    shown = sorted(np.argsort(np.asarray(p_values), kind="stable")[:panels].tolist())
    figure, grid = _panels(len(shown) + (coverage is not None), width=2.5, height=1.95)
    counts = [
        np.bincount(ranks[:, number].numpy() * bins // (num_draws + 1), minlength=bins) for number in shown
    ]
    low, high = binom.interval(0.99, len(ranks), 1 / bins)
    top = 1.06 * max(high, *(float(count.max()) for count in counts))
    edges = np.linspace(0, num_draws + 1, bins + 1) - 0.5
    for axes, number, count in zip(grid, shown, counts, strict=False):
        right = verdicts[number] == "calibrated"
        axes.axhspan(low, high, color="0.85", zorder=0)
        axes.axhline(len(ranks) / bins, color="0.5", linewidth=0.8, zorder=0)
        axes.stairs(count, edges, fill=True, color=_BLUE if right else _VERMILION, alpha=0.45)
        axes.stairs(count, edges, color=_BLUE if right else _VERMILION, linewidth=1)
        title = f"{fill(names[number], 30)}\n{verdicts[number]}, p {_probability(p_values[number])}"
        axes.set_title(title, fontsize=8, parse_math=False)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, top))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7)
    if coverage is not None:
        _coverage(grid[-1], *coverage, points, len(ranks))
    number = f" (the worst {len(shown)} of {len(names)} quantities)" if len(shown) < len(names) else ""
    figure.supxlabel(f"rank of the truth among {num_draws} draws from q(z|x){number}", fontsize=9)
    figure.supylabel("simulated data", fontsize=9)
    handles = [
        Patch(color=_BLUE, alpha=0.6, label="calibrated"),
        Patch(color=_VERMILION, alpha=0.6, label="rejected"),
        Patch(color="0.85", label="99 % band of a bar"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure


def _coverage(axes: Axes, masses: Tensor, found: Tensor, points: Sequence[str], num_data: int) -> None:
    """Coverage of balls around points less their mass under q, with the 99 % band of one mass by chance."""
    from scipy.stats import binom  # slow to import

    mass = masses.numpy()
    low, high = (end / num_data - mass for end in binom.interval(0.99, num_data, mass))
    axes.fill_between(mass, low, high, color="0.85", linewidth=0)
    axes.axhline(0, color="0.5", linewidth=0.8)
    for number, name in enumerate(points):
        line = (found[:, number] - masses).numpy()
        axes.plot(mass, line, color=_POINTS[number % len(_POINTS)], linewidth=1.3, label=name)
    axes.set_title("coverage − mass of balls\naround points", fontsize=8)
    axes.set(xlim=(0, 1))
    # room for the legend below the curves
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.5 * (top - bottom), top)
    axes.legend(loc="lower left", frameon=False, fontsize=6, borderaxespad=0.2, labelspacing=0.2)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("mass under q(z|x)", fontsize=7)


def posterior_contours(
    exact: Tensor,
    guide: Tensor,
    names: Sequence[str],
    *,
    axes: tuple[int, int] | None = None,
    pictures: Tensor | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """p(z|x) by exact draws and q(z|x) by its own, over two latent coordinates, a panel for each datum.

    Points and filled contours are the exact draws, lines are q; the contours hold 50 and 90 % of the mass, by
    a Gaussian kernel density estimate (Scott 1992).

    Args:
        exact: (S, B, n), as `Agreement.exact.u`.
        guide: (S, B, n), as `Agreement.guide_u`.
        names: Of the n coordinates.
        axes: The two to show; by default those with the largest Kolmogorov-Smirnov distances.
        pictures: (B, C, H, W), data to show in a corner of each panel.
        titles: Of the panels.

    Raises:
        InputError: where there are fewer than two coordinates, or `axes` are not two of them.

    >>> import torch
    >>> figure = posterior_contours(torch.randn(200, 1, 2), torch.randn(200, 1, 2) / 2, ["z[0]", "z[1]"])
    >>> len(figure.axes)
    1
    """
    p, q = (each.detach().cpu().double().numpy() for each in (exact, guide))
    if p.shape[-1] < 2:
        raise InputError("contours need two latent coordinates, got one: use rank_histograms")
    chosen = _farthest(p, q) if axes is None else axes
    if len(set(chosen)) < 2 or not all(0 <= axis < p.shape[-1] for axis in chosen):
        raise InputError(
            f"axes expects two different numbers from 0 to {p.shape[-1] - 1}, got {list(chosen)}"
        )
    figure, grid = _panels(p.shape[1], width=3.1, height=3.0)
    for datum, panel in enumerate(grid):
        _contours(panel, p[:, datum][:, chosen], q[:, datum][:, chosen])
        panel.set_title(titles[datum] if titles else f"datum {datum}", fontsize=9, parse_math=False)
        panel.tick_params(labelsize=7)
        if pictures is not None and pictures.ndim == 4:
            _thumbnail(panel, pictures[datum])
    figure.supxlabel(names[chosen[0]], fontsize=9, parse_math=False)
    figure.supylabel(names[chosen[1]], fontsize=9, parse_math=False)
    handles = [
        Patch(color=_BLUE, alpha=0.5, label="p(z|x), exact draws"),
        Line2D([], [], color=_VERMILION, label="q(z|x)"),
    ]
    figure.legend(
        handles=handles,
        title="50 and 90 % of the mass",
        title_fontsize=8,
        loc="outside upper right",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    return figure


def _panels(number: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `number` panels of that size in inches, at most four in a row."""
    down = math.ceil(number / 4)
    across = math.ceil(number / down)
    size = (max(width * across, 4.6) + 0.4, height * down + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in grid[number:]:
        axes.set_axis_off()
    return figure, grid[:number]


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _farthest(p: np.ndarray, q: np.ndarray) -> tuple[int, int]:
    """The two coordinates of (S, B, n) that differ most, by their mean distance over the data."""
    from scipy.stats import ks_2samp  # slow to import

    distances = [
        np.mean([ks_2samp(p[:, datum, axis], q[:, datum, axis]).statistic for datum in range(p.shape[1])])
        for axis in range(p.shape[-1])
    ]
    first, second = sorted(np.argsort(distances)[-2:].tolist())
    return first, second


def _contours(axes: Axes, p: np.ndarray, q: np.ndarray) -> None:
    """Of draws (S, 2)."""
    from scipy.stats import gaussian_kde  # slow to import

    low, high = _range(np.concatenate([p, q]))
    across, down = (np.linspace(low[axis], high[axis], 80) for axis in (0, 1))
    grid = np.stack(np.meshgrid(across, down)).reshape(2, -1)
    for draws, filled in ((p, True), (q, False)):
        draws = draws[:: math.ceil(len(draws) / 1000)]  # enough for a contour
        density = gaussian_kde(draws.T)
        # that of the draws which a region of this mass just leaves out
        levels = np.quantile(density(draws.T), [0.1, 0.5])
        heights = density(grid).reshape(len(down), len(across))
        if filled:
            axes.plot(*draws.T, ".", color=_BLUE, markersize=1.5, alpha=0.35, zorder=1)
            colours = ["#9ecae9", "#5aa5d6"]
            axes.contourf(across, down, heights, [*levels, np.inf], colors=colours, alpha=0.75, zorder=2)
        else:
            axes.contour(across, down, heights, levels, colors=_VERMILION, linewidths=1.4, zorder=3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _range(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends that hold nearly all draws, with a margin."""
    low, high = np.quantile(draws, [0.002, 0.998], axis=0)
    margin = 0.15 * (high - low)
    return low - margin, high + margin


def _thumbnail(axes: Axes, picture: Tensor) -> None:
    """A datum in the upper right corner."""
    inset = axes.inset_axes((0.76, 0.76, 0.22, 0.22), zorder=5)
    inset.imshow(_unit(_tile(picture), float(picture.min()), float(picture.max())), cmap="gray")
    inset.set_xticks([])
    inset.set_yticks([])
