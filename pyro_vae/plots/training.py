"""Training as curves."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def history(columns: Mapping[str, Sequence[float]], *, density: bool = True) -> Figure:
    """ELBO of training and validation by epoch, and the validation ELBO's two parts.

    Args:
        columns: The fields of `Epoch` by name.
        density: Whether the program has a p(x); else the "ELBO" is minus an error, of one part.

    >>> from pyro_vae import Epoch
    >>> epochs = [Epoch(1, 13, -43.0, -31.5, -27.0, 4.5, 1e-3, 1.0, 0.2)]
    >>> epochs.append(Epoch(2, 26, -31.0, -30.0, -25.0, 5.0, 1e-3, 1.0, 0.2))
    >>> columns = {name: [getattr(epoch, name) for epoch in epochs] for name in Epoch._fields}
    >>> figure = history(columns)  # of a training: its `history.column(name)`
    >>> len(figure.axes)
    2
    """
    if not density:
        return _errors(columns)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = columns["epoch"]
    left.plot(epochs, columns["train_elbo"], label="train")
    left.plot(epochs, columns["valid_elbo"], label="validation")
    left.set(xlabel="epoch", ylabel="ELBO (nats per datum)")
    left.set_ylim(*_without_start(columns["train_elbo"], columns["valid_elbo"]))
    distortion = [-value for value in columns["valid_reconstruction"]]
    right.plot(epochs, distortion, label="distortion, −E log p(x|z)")
    right.plot(epochs, columns["valid_kl"], label="KL to the prior")
    # from 0, except where a density is above 1
    low = 0 if min([0, *distortion]) == 0 else None
    right.set(xlabel="epoch", ylabel="validation (nats per datum)", ylim=(low, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _errors(columns: Mapping[str, Sequence[float]]) -> Figure:
    """Reconstruction error of training and validation by epoch."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, label in (("train_elbo", "train"), ("valid_elbo", "validation")):
        axes.plot(columns["epoch"], [-value for value in columns[name]], label=label)
    axes.set(xlabel="epoch", ylabel="reconstruction error per datum")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _without_start(*series: Sequence[float]) -> tuple[float | None, float | None]:
    """Limits that leave out the steep first epochs, where there are more than ten."""
    values = [value for values in series for value in values[len(values) // 10 :] if math.isfinite(value)]
    if len(series[0]) <= 10 or not values:
        return None, None
    margin = 0.05 * (max(values) - min(values))
    return min(values) - margin, max(values) + margin
