"""The picture: what each cell costs beyond the truth, and the dispersions that were learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.count_table.report import SEEDS, of
from experiments.count_table.setting import MODELS

Found = Mapping[str, Mapping[str, Any]]
_COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#56B4E9", "#009E73")
_BINS = 10


def picture(records: Found) -> Figure:
    """Of the first seed."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _short(left, records)
    _dispersions(right, records)
    return figure


def _short(axes: Axes, records: Found) -> None:
    """Nats short of the truth against the library size, as means over tenths of the cells."""
    size = np.array(records["truth"]["size"])
    tenths = np.array_split(size.argsort(), _BINS)
    for (name, model), colour in zip(MODELS.items(), _COLOURS, strict=True):
        short = np.array(records["truth"][model.given]) - of(records, name, SEEDS[0])
        middle = [float(np.median(size[part])) for part in tenths]
        label = f"{model.label}, given {model.given}" if model.given != "–" else model.label
        axes.plot(middle, [float(short[part].mean()) for part in tenths], "o-", color=colour, label=label)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2], ["0.5", "1", "2"], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="library size e of the cells", ylabel="short of log p of the truth (nats per cell)")
    axes.legend(frameon=False, fontsize=8)


def _dispersions(axes: Axes, records: Found) -> None:
    truth = np.array(records["truth"]["dispersion"])
    for name, colour in (("negative binomial", "#0072B2"), ("negative binomial, exposure", "#56B4E9")):
        axes.plot(truth, of(records, name, SEEDS[0], "dispersion"), "o", color=colour, label=name)
    axes.plot([truth.min(), truth.max()], [truth.min(), truth.max()], color="0.6", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="θ of each gene, as simulated", ylabel="θ, as learned")
    axes.legend(frameon=False, fontsize=8)
