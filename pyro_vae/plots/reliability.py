"""Reliability diagrams: how often a class is right that is said with a given probability."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae.errors import InputError

#: The bins of `Reliability.content`: counts, confidences and accuracies.
Bins = Mapping[str, Sequence[float | int | None]]


def reliability(panels: Mapping[str, Mapping[str, Bins]]) -> Figure:
    """Accuracy over confidence, bin by bin; the diagonal is perfect calibration, below it is overconfidence.

    The area of a point grows with its share of the data. Guo, Pleiss, Sun & Weinberger, "On Calibration of
    Modern Neural Networks" (2017), figure 1.

    Args:
        panels: By title, then by name of a curve: `reliability(...).content()["bins"]`.

    Raises:
        InputError: where there is no panel, or one without a curve.

    >>> import torch, pyro_vae as pv
    >>> found = pv.reliability(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 0]))
    >>> len(reliability({"two data": {"q(y|x)": found.content()["bins"]}}).axes)
    1
    """
    if not panels or not all(panels.values()):
        raise InputError("expected panels with a curve each, got none: give {'title': {'name': bins}}")
    figure = Figure(figsize=(4.2 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for each, (title, curves) in zip(axes, panels.items(), strict=True):
        _panel(each, title, curves)
    axes[0].set_ylabel("accuracy")
    return figure


def _panel(axes: Axes, title: str, curves: Mapping[str, Bins]) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for name, bins in curves.items():
        points = [each for each in zip(*_columns(bins), strict=True) if each[0]]
        counts, confidences, accuracies = zip(*points, strict=True)
        (line,) = axes.plot(confidences, accuracies, linewidth=1, label=name)
        sizes = [10 + 150 * count / sum(counts) for count in counts]
        axes.scatter(confidences, accuracies, s=sizes, color=line.get_color(), alpha=0.7, linewidths=0)
    axes.set(title=title, xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    axes.legend(loc="upper left", fontsize=8, frameon=False)


def _columns(bins: Bins) -> list[Sequence[Any]]:
    return [bins[name] for name in ("counts", "confidences", "accuracies")]
