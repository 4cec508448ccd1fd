"""The pictures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae as pv
from experiments.aevb_review.variants import VARIANTS
from pyro_vae import plots

#: Of Okabe & Ito (2008), told apart by the colour-blind.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
#: Panels of the curves, since nats of different kinds do not compare.
_PANELS = {
    "density of grey levels": ("unbounded-30", "unbounded", "bounded", "shared"),
    "density of dequantised data": ("dequantised", "dequantised-5", "dequantised-bounded"),
}
_MAPPED = ("unbounded-30", "bounded", "dequantised")


def pictures(
    vaes: Mapping[str, pv.VAE], x: Mapping[str, Tensor], records: Mapping[str, Any]
) -> dict[str, Figure]:
    """All by the name of their file.

    Args:
        vaes: By the name of the run.
        x: The same ten test images as each run has them.
        records: What was measured.
    """
    torch.manual_seed(0)
    return {
        "curves.png": curves(records),
        "scales.png": maps(records, x["bounded"].shape[-2:]),
        "reconstructions.png": reconstructions(vaes, x),
        "around.png": around(vaes["shared"], x["shared"][:3]),
        "plane.png": plane(vaes["shared"]),
        "plane_unbounded.png": plane(vaes["unbounded-30"]),
    }


def curves(records: Mapping[str, Any]) -> Figure:
    """ELBO by epoch, training broken, validation unbroken."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for name, colour in zip(names, _COLOURS, strict=False):
            _curve(axes, records[name]["curves"], colour, VARIANTS[name].short)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        _leave_out_start(axes)
    figure.suptitle(
        "validation (unbroken) and training (broken); the lowest values lie below the axes", fontsize=10
    )
    return figure


def _curve(axes: Axes, found: Mapping[str, Sequence[float]], colour: str, label: str) -> None:
    epochs = range(1, len(found["train_elbo"]) + 1)
    axes.plot(epochs, found["train_elbo"], "--", color=colour, linewidth=1)
    axes.plot(epochs, found["valid_elbo"], color=colour, label=label)


def _leave_out_start(axes: Axes) -> None:
    """Limits that leave out the first epoch and the lowest twentieth of the others, where there are three."""
    values = [np.asarray(line.get_ydata(), dtype=float)[1:] for line in axes.lines]
    if min(len(each) for each in values) < 2:
        return
    together = np.concatenate(values)
    low, high = np.percentile(together, 5), together.max()
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def maps(records: Mapping[str, Any], shape: Sequence[int]) -> Figure:
    """Mean log scale of each pixel over mean log density of each pixel, one column for each run."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    grid = figure.subplots(2, len(_MAPPED))
    found = {name: np.array(records[name]["density"]["by_pixel"]) for name in _MAPPED}
    what = ("log s, mean over test data", "log density (nats), mean over test data")
    for row, label in enumerate(what):
        low = min(each[row].min() for each in found.values())
        high = max(each[row].max() for each in found.values())
        low = max(low, -10.0)  # a few pixels far below would hide the others
        for axes, (name, each) in zip(grid[row], found.items(), strict=True):
            shown = axes.imshow(each[row].reshape(*shape), cmap="viridis", vmin=low, vmax=high)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(VARIANTS[name].short, fontsize=10)
        figure.colorbar(shown, ax=grid[row], label=label, extend="min" if low == -10 else "neither")
    return figure


@torch.no_grad()
def reconstructions(vaes: Mapping[str, pv.VAE], x: Mapping[str, Tensor]) -> Figure:
    """Means of p(x|z) at the mean of q(z|x), and draws from two of the p(x|z)."""
    shown = {"test images": x["bounded"]}
    for name, vae in vaes.items():
        if name not in ("unbounded", "dequantised-5"):
            shown[f"{VARIANTS[name].short}: mean"] = vae.decode(vae.encode(x[name]))
        if name in ("unbounded-30", "shared"):
            shown[f"{VARIANTS[name].short}: draw"] = vae.likelihood(vae.encode(x[name])).sample()
    return plots.strips({name: each.clamp(0, 1) for name, each in shown.items()})


@torch.no_grad()
def around(vae: pv.VAE, x: Tensor, *, num: int = 9) -> Figure:
    """Each image, then what draws z ~ q(z|x) give, then what points on circles around the mean of q give."""
    shown = {}
    angles = torch.linspace(0, 2 * math.pi, num + 1, device=vae.device, dtype=vae.dtype)[:-1]
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    for number, each in enumerate(vae.place(x).split(1), 1):
        qz = vae.posterior(each)
        scale = float(qz.stddev.mean())
        shown[f"{number}: z ~ q(z|x), s = {scale:.3f}"] = torch.cat(
            [each, vae.decode(qz.sample((num,))[:, 0])]
        )
        for radius in (0.1, 0.5):
            near = torch.cat([each, vae.decode(qz.mean + radius * circle)])
            shown[f"{number}: |z − m| = {radius}"] = near
    title = "left the test image x, to the right means of p(x|z) at z around the mean m of q(z|x)"
    return plots.strips({name: each.clamp(0, 1) for name, each in shown.items()}, title=title)


@torch.no_grad()
def plane(vae: pv.VAE) -> Figure:
    """Means of p(x|z) over the plane of z, at equal steps of prior probability."""
    z, across, down = vae.latent_plane(num=15)
    return plots.plane(vae.decode(z).clamp(0, 1), across.tolist(), down.tolist(), ("$z_1$", "$z_2$"))
