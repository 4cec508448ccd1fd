"""The rate-distortion curve of a prior and a likelihood, with where q(z|x) lies, as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

#: Blue and vermilion of Okabe & Ito (2008), told apart by the colour-blind.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
#: Part of the rate of p(z|x) below which the curve is not shown.
_LEAST = 0.05


def rate_distortion(
    distortion: Tensor | Sequence[float],
    rate: Tensor | Sequence[float],
    *,
    guide: tuple[float, float] | None = None,
    units: str = "nats per datum",
) -> Figure:
    """The least rate at each distortion, from p(z|x) on; q(z|x); and lines of one distortion + rate.

    The vertical distance of q from the curve is what another q would save at the same distortion; that of the
    two lines is log p(x) − ELBO. Huang et al. (2020).

    Args:
        distortion: Means over the data, (G,), falling; like the next, a `RateDistortion` has it.
        rate: Likewise, (G,), rising.
        guide: Distortion and rate of q(z|x).
        units: Of all numbers.

    >>> figure = rate_distortion([80.0, 40.0, 30.0], [0.0, 4.0, 6.0], guide=(31.0, 7.0))
    >>> len(figure.axes)
    1
    """
    d, r = (torch.as_tensor(each).detach().cpu().double().numpy() for each in (distortion, rate))
    shown = r >= _LEAST * r[-1]
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(d[shown], r[shown], color=_BLUE, linewidth=1.8, label="least rate at each distortion")
    ends = [(d[-1], r[-1], "p(z|x), β = 1", _BLUE, "o", "−log p(x)")]
    if guide is not None:
        ends.append((*guide, "q(z|x)", _VERMILION, "D", "−ELBO"))
    low = min(float(d[shown].min()), ends[-1][0])
    high = max(float(d[shown].max()), ends[-1][0])
    margin = 0.06 * max(high - low, 1e-9)
    axes.set_xlim(low - margin, high + margin)
    top = max(end[1] for end in ends)
    axes.set_ylim(0, 1.18 * max(top, 1e-9))
    for x, y, name, colour, marker, total in ends:
        axes.plot([x], [y], marker, color=colour, markersize=7, label=name, zorder=3)
        _line(axes, x + y, colour, f"distortion + rate = {x + y:.2f} = {total}")
    axes.set_xlabel(f"distortion −E log p(x|z) ({units})", parse_math=False)
    axes.set_ylabel(f"rate KL(· ‖ p(z)) ({units})", parse_math=False)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def _line(axes: Axes, total: float, colour: str, label: str) -> None:
    """All points of one sum, within the picture as it is."""
    ends = np.array(axes.get_xlim())
    axes.plot(ends, total - ends, color=colour, linewidth=0.9, linestyle="--", label=label, zorder=1)
