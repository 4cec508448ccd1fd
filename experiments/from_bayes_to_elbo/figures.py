"""Pictures of one model, and of the variances of all."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae as pv
from experiments.from_bayes_to_elbo.integrals import lattice, plane_sums
from experiments.grid import log_joint_table
from pyro_vae import plots

#: Blue, vermilion and green of Okabe & Ito (2008), told apart by the colour-blind.
_STYLES = {
    "score": ("score function", "#D55E00", "o"),
    "baseline": ("score function, less the ELBO", "#009E73", "s"),
    "reparameterised": ("reparameterised", "#0072B2", "D"),
}


@torch.no_grad()
def pictures(vae: pv.VAE, data: pv.Digits, *, coarse: bool = False) -> dict[str, Figure]:
    """Posteriors over the plane, images of draws from them, and images along straight lines."""
    x = vae.place(data.test.batch())[: 8 if coarse else 300]
    kl = plane_sums(vae, x, step=0.5 if coarse else 0.2).kl
    axis = lattice(0.3 if coarse else 0.05, 6.0, 1)[:, 0]
    width, order = _widths(vae, x), kl.argsort()
    chosen = torch.stack([order[0], order[len(x) // 2], order[-1], width.argmax()])
    exact, guide = _tables(vae, x[chosen], axis)
    titles = [f"KL(q ‖ p) {kl[i]:.2f} nats, width {width[i]:.2f}" for i in chosen]
    return {
        "posteriors": plots.density_contours(axis, exact, guide, pictures=x[chosen], titles=titles),
        "draws": _draws(vae, x[chosen[[0, -1]]], axis, exact[[0, -1]]),
        "moves": _moves(vae, data, x),
    }


def _widths(vae: pv.VAE, x: Tensor) -> Tensor:
    """The root of the summed variances of p(z|x), (B,): largest for an ambiguous image."""
    z = lattice(0.2, 6.0, 2)
    mass = log_joint_table(vae, z, x).softmax(0).T
    return (mass @ z.square() - (mass @ z).square()).sum(1).sqrt()


def _tables(vae: pv.VAE, x: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(x, z) and log q(z|x) on the square grid: (B, G, G) each."""
    z = torch.cartesian_prod(axis, axis)
    log_p = log_joint_table(vae, z, x)
    log_q = vae.posterior(x).log_prob(z[:, None])
    return tuple(each.T.reshape(len(x), len(axis), len(axis)) for each in (log_p, log_q))  # type: ignore[return-value]


def _draws(vae: pv.VAE, x: Tensor, axis: Tensor, exact: Tensor, number: int = 9) -> Figure:
    """For two data, means of p(x|z) at draws from q(z|x) and at draws from the table of p(z|x)."""
    z = torch.cartesian_prod(axis, axis)
    places = exact.flatten(1).softmax(1).multinomial(number, replacement=True)
    from_q = vae.posterior(x).sample((number,)).movedim(0, 1)
    rows = {}
    for name, datum in (("easy", 0), ("ambiguous", 1)):
        for density, codes in (("q(z|x)", from_q[datum]), ("p(z|x)", z[places[datum]])):
            rows[f"{name}: x, codes from {density}"] = torch.cat([x[datum : datum + 1], vae.decode(codes)])
    return plots.strips(rows)


def _moves(vae: pv.VAE, data: pv.Digits, x: Tensor, number: int = 10) -> Figure:
    """Straight lines between two data of different classes, in z and in pixels, and small moves."""
    labels = data.test.labels
    assert labels is not None
    other = int((labels[: len(x)] != labels[0]).nonzero()[0])
    weight = torch.linspace(0, 1, number, dtype=x.dtype)
    code = vae.encode(x[[0, other]])
    path = code[0] + weight[:, None] * (code[1] - code[0])
    blend = x[0] + weight[:, None, None, None] * (x[other] - x[0])
    angle = 2 * torch.pi * torch.arange(number - 1, dtype=x.dtype) / (number - 1)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    rows = {"straight line in z": vae.decode(path), "straight line in pixels": blend}
    for radius in (0.1, 0.5):
        around = torch.cat([code[:1], code[0] + radius * circle])
        rows[f"first image, and {radius:g} away in z"] = vae.decode(around)
    return plots.strips(rows)


def variances(records: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Variance of a datum's gradient against K, and of the encoder's over the reparameterised one."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = [record for name, record in records.items() if name.startswith("gradients")]
    for estimator, (label, colour, marker) in _STYLES.items():
        drawn = [each for each in found[0]["drawn"] if each["estimator"] == estimator]
        number = [each["num_particles"] for each in drawn]
        left.plot(number, [each["exact"] for each in drawn], color=colour, linewidth=1)
        left.plot(number, [each["variance"] for each in drawn], marker, color=colour, label=label)
    left.set(xscale="log", yscale="log", xlabel="draws K", ylabel="variance of the gradient")
    left.set_title("one datum, by (m, log s): drawn (signs), integrated (lines)", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    _ratios(right, records)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _ratios(axes: Axes, records: Mapping[str, Mapping[str, Any]]) -> None:
    """The encoder's ratios by latent dimension, a sign for each seed."""
    found = [name.split() for name in records if name.startswith("encoder")]
    dims = sorted({int(words[1]) for words in found})
    for estimator in ("score", "baseline"):
        label, colour, marker = _STYLES[estimator]
        for words in found:
            ratio = ratios_of(records[" ".join(words)])[estimator]
            text = label if words == found[0] else None
            axes.plot(dims.index(int(words[1])), ratio, marker, color=colour, alpha=0.7, label=text)
    axes.axhline(1, color=_STYLES["reparameterised"][1], label="reparameterised")
    axes.set(
        yscale="log", xlabel="latent dimensions", ylabel="ratio of variances", xlim=(-0.5, len(dims) - 0.5)
    )
    axes.set_xticks(np.arange(len(dims)), [str(dim) for dim in dims])
    axes.set_title("encoder's parameters, K = 1", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def ratios_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Variance at K = 1 over that of the reparameterised estimator."""
    variance = {each["estimator"]: each["variance"] for each in record["drawn"] if each["num_particles"] == 1}
    return {name: value / variance["reparameterised"] for name, value in variance.items()}
