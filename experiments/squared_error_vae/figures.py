"""The pictures."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae as pv
from experiments.squared_error_vae.variants import VARIANTS
from pyro_vae import plots

#: What is shown against s, with its label.
_NUMBERS = {
    "elbo": "ELBO (nats per datum)",
    "kl": "KL to the prior (nats per datum)",
    "rmse": "RMSE of reconstructions",
}


def pictures(vaes: Mapping[str, pv.VAE], x: Tensor, records: Mapping[str, Any]) -> dict[str, Figure]:
    """All by the name of their file."""
    torch.manual_seed(0)
    return {"pictures.png": side_by_side(vaes, x), "against_scale.png": against_scale(records)}


@torch.no_grad()
def side_by_side(vaes: Mapping[str, pv.VAE], x: Tensor) -> Figure:
    """Left reconstructions of x, right means of p(x|z) at the same z ~ p(z), one row for each scale."""
    gap, blank = torch.ones_like(x[:1]), torch.ones_like(x)
    z = next(iter(vaes.values())).prior().sample((len(x),))
    shown = {"test images": torch.cat([x, gap, blank])}
    for name, vae in vaes.items():
        shown[VARIANTS[name].label] = torch.cat([vae.decode(vae.encode(x)), gap, vae.decode(z)])
    title = "left: reconstructions, m(z) at the mean of q(z|x); right: samples, m(z) at z ~ p(z)"
    return plots.strips({name: each.clamp(0, 1) for name, each in shown.items()}, title=title)


def against_scale(records: Mapping[str, Any]) -> Figure:
    """ELBO, KL and error of fixed scales, with those of the learned ones."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (number, label) in zip(figure.subplots(1, len(_NUMBERS)), _NUMBERS.items(), strict=True):
        _panel(axes, records, number)
        axes.set(xscale="log", xlabel="scale s of the likelihood", ylabel=label)
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _panel(axes: Axes, records: Mapping[str, Any], number: str) -> None:
    fixed = sorted((found["scale"], found[number]) for name, found in records.items() if VARIANTS[name].scale)
    axes.plot(*zip(*fixed, strict=True), "o-", color="#0072B2", label="fixed")
    shared = records["shared"]
    axes.plot(shared["scale"], shared[number], "*", color="#D55E00", markersize=13, label="learned, one")
    each = records["per-pixel"][number]
    axes.axhline(each, color="#009E73", linestyle="--", label="learned for each pixel")
