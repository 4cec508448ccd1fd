"""The picture: error against gradients, a panel for each posterior."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.estimators.estimators import ESTIMATORS
from experiments.estimators.posteriors import POSTERIORS
from experiments.estimators.report import Records, points

_COLUMNS = 5
#: Colours of Okabe & Ito (2008) by family; dashes and markers tell the members apart.
_STYLES = {
    "importance": ("black", "o", "-"),
    "local": ("#D55E00", "s", "-"),
    "matched": ("#E69F00", "D", "-"),
    "prior": ("#0072B2", "o", "-"),
    "adaptive": ("#0072B2", "^", ":"),
    "rounds": ("#0072B2", "s", "--"),
    "sequential": ("#56B4E9", "v", "-"),
    "guide": ("#009E73", "o", "-"),
    "guide_rounds": ("#009E73", "s", "--"),
    "harmonic": ("#CC79A7", "X", "-"),
}


def picture(records: Records) -> Figure:
    """The mean error of each repetition as a bar from the least to the largest, and their mean as a point."""
    rows = -(-len(POSTERIORS) // _COLUMNS)
    figure = Figure(figsize=(3.1 * _COLUMNS, 3.2 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    for axes, (name, made) in zip(panels.flat, POSTERIORS.items(), strict=False):
        _panel(axes, records, name)
        axes.set_title(made.label, fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("gradients per datum", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("error of log p(x), nats", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=_COLUMNS, frameon=False, fontsize=9)
    return figure


def _panel(axes: Axes, records: Records, posterior: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.25)
    for name, estimator in ESTIMATORS.items():
        found = points(records, posterior, name)
        colour, marker, line = _STYLES[name]
        x, y = [point.gradients for point in found], [point.error for point in found]
        low = [point.error - point.errors.min() for point in found]
        high = [point.errors.max() - point.error for point in found]
        axes.errorbar(
            x,
            y,
            [low, high],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.7,
            label=estimator.label,
        )
