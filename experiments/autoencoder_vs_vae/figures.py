"""Pictures of two models side by side."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyro_vae as pv
from experiments.autoencoder_vs_vae.measuring import STEPS, Model, Setting, decode, encode, lines
from pyro_vae import plots

#: Okabe & Ito (2008), and signs, so that nothing hangs on colour.
STYLES = {
    "autoencoder": {"color": "#D55E00", "marker": "<"},
    "VAE": {"color": "#0072B2", "marker": "o"},
}
#: Test codes in the scatter; pictures along each axis of a plane; lines in the strips.
NUM_CODES, NUM_PLANE, NUM_STRIPS = 2500, 16, 6
FILES = ("scatter.png", "plane-autoencoder.png", "plane-vae.png", "strips.png", "lines.png")


def pictures(models: Mapping[str, Model], setting: Setting) -> dict[str, Figure]:
    """The figures of one trained model of each kind, by the names of their files."""
    codes = {name: encode(vae, setting.data) for name, vae in models.items()}
    test = setting.data.test
    choice = torch.arange(len(test))[:NUM_CODES]
    labels = None if test.labels is None else test.labels[choice]
    panels = {
        "autoencoder: codes of test images": codes["autoencoder"].test[choice],
        "VAE: means of $q(z|x)$ of the same": codes["VAE"].test[choice],
    }
    found = {"scatter.png": plots.scatters(panels, labels, circle=True)}
    for name, vae in models.items():
        found[f"plane-{name.lower()}.png"] = plane(name, vae, codes[name].train)
    both = {name: (vae, codes[name].test) for name, vae in models.items()}
    return {**found, "strips.png": line_strips(both, test.batch(), setting.pairs[:NUM_STRIPS])}


def plane(name: str, vae: Model, codes: Tensor) -> Figure:
    """The decoded plane: over a VAE's prior, over the quantiles of an autoencoder's codes."""
    prior = isinstance(vae, pv.VAE)
    z, across, down = vae.latent_plane(num=NUM_PLANE, codes=None if prior else codes)
    figure = plots.plane(decode(vae, z), across.tolist(), down.tolist(), ("$z_1$", "$z_2$"))
    what = "quantiles of N(0, I)" if prior else "quantiles of its training codes"
    figure.axes[0].set_title(f"{name}: decoded over {what}", fontsize=10)
    return figure


def line_strips(models: Mapping[str, tuple[Model, Tensor]], x: Tensor, pairs: Tensor) -> Figure:
    """Decoded straight lines between the codes of test images, which stand at both ends.

    Args:
        models: By name, each with its codes of x (N, 2).
        x: Test images.
        pairs: (P, 2).
    """
    decoded = {name: decode(vae, lines(codes, pairs).flatten(0, 1)) for name, (vae, codes) in models.items()}
    rows = []
    for number, (first, last) in enumerate(pairs.tolist()):
        for each in decoded.values():
            steps = each.reshape(STEPS, len(pairs), *x.shape[1:])[:, number]
            rows += [x[first : first + 1], steps, x[last : last + 1]]
    figure = plots.images(torch.cat(rows), columns=STEPS + 2)
    axes, (height, width) = figure.axes[0], x.shape[-2:]
    axes.set_axis_on()
    for spine in axes.spines.values():
        spine.set_visible(False)
    names = list(decoded) * len(pairs)
    axes.set_yticks([row * (height + 1) + height / 2 for row in range(len(names))], names, fontsize=8)
    shown = {0: "image", 1: "0", (STEPS + 1) // 2: "½", STEPS: "1", STEPS + 1: "image"}
    axes.set_xticks([column * (width + 1) + width / 2 for column in shown], list(shown.values()), fontsize=8)
    axes.set_xlabel("way along the straight line between the two codes", fontsize=9)
    axes.tick_params(length=0)
    return figure


def along_lines(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], reference: float) -> Figure:
    """Shares of confident digits along the lines, a thin line per seed and their mean.

    Args:
        curves: Of each model, for each seed the shares `confident` and `third` at each step.
        reference: The share of test images.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    way = torch.linspace(0, 1, STEPS).tolist()
    titles = {"confident": "a confident digit", "third": "a confident digit of neither end's class"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for name, records in curves.items():
            values = torch.tensor([record[key] for record in records]) * 100
            axes.plot(way, values.T, color=STYLES[name]["color"], linewidth=0.6, alpha=0.6)
            axes.plot(way, values.mean(0), label=name, markersize=5, linewidth=1.8, **STYLES[name])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("way along the straight line between two codes", fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].axhline(100 * reference, color="black", linewidth=1, linestyle=":", label="test images")
    panels[0].set_ylabel("% of decoded draws", fontsize=9)
    panels[0].set_ylim(0, 100)
    panels[0].legend(frameon=False, fontsize=8)
    return figure
