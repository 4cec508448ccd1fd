"""Tables, the numbers of the answer, and the picture, from the records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.markdown import markdown, three_digits
from pyro_vae.comparison.seeds import Difference, difference_over_seeds

Record = Mapping[str, Any]


def sections(found: Mapping[str, Record]) -> dict[str, str]:
    """The tables by name."""
    return {"table": _table(found), "trend": _trend(found), "facts": _facts(found)}


def _values(record: Record, name: str = "log_px") -> np.ndarray:
    """Of each seed and datum: (S, B)."""
    return np.array([seed[name] for seed in record["seeds"].values()])


def _table(found: Mapping[str, Record]) -> str:
    heading = ("layers", "bound", "k", "−log p(x), 5000 samples", "of the annealed data: samples", "annealed")
    rows: list[Sequence[str]] = [(*heading, "−ELBO", "active units", "k̂ above 0.7, %")]
    for record in found.values():
        seeds = list(record["seeds"].values())
        first = len(seeds[0]["annealed"])
        rows.append(
            (
                str(record["layers"]),
                record["bound"],
                str(record["particles"]),
                _spread(-_values(record).mean(1)),
                _spread(-_values(record)[:, :first].mean(1)),
                _spread(-_values(record, "annealed").mean(1)),
                _spread([-seed["elbo"] for seed in seeds]),
                ", ".join(_active(seed["active"], record["layers"]) for seed in seeds),
                f"{100 * statistics.mean(seed['unreliable'] for seed in seeds):.0f}",
            )
        )
    return markdown(rows)


def _active(names: Sequence[str], layers: int) -> str:
    """Of each layer, as 38+7."""
    kinds = ["z"] if layers == 1 else [f"z{layer + 1}" for layer in range(layers)]
    return "+".join(str(names.count(kind)) for kind in kinds)


def _spread(values: Sequence[float] | np.ndarray) -> str:
    """Mean, and standard deviation over the seeds."""
    text = f"{np.mean(values):.2f}"
    return f"{text} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else text


def differences(found: Mapping[str, Record]) -> dict[str, Difference]:
    """Log p(x) of each cell less that of the VAE with one particle and as many layers."""
    by_cell = {(each["layers"], each["bound"], each["particles"]): each for each in found.values()}
    return {
        name: difference_over_seeds(_values(record), _values(by_cell[record["layers"], "VAE", 1]))
        for name, record in found.items()
        if (record["bound"], record["particles"]) != ("VAE", 1)
    }


def _trend(found: Mapping[str, Record]) -> str:
    rows: list[Sequence[str]] = [("", "log p(x) more than the VAE with k = 1, nats", "95 % interval")]
    for name, each in differences(found).items():
        interval = ", ".join(three_digits(end, sign=True) for end in each.interval)
        rows.append((name, three_digits(each.mean, sign=True), f"[{interval}]"))
    return markdown(rows)


def _facts(found: Mapping[str, Record]) -> str:
    first = next(iter(found.values()))
    about, made = first["about"], first["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    seconds = "; ".join(f"{name} {each['training_seconds'] / 60:.1f}" for name, each in found.items())
    sizes = about["sizes"]
    return (
        f"{about['data']}, {about['protocol']}, hash of the test data `{about['hash']}`; "
        f"{sizes['train']} images, {sizes['stages']} stages, {first['steps']} steps, "
        f"{len(first['seeds'])} seeds at once; {sizes['test']} test images, of which {sizes['annealed']} are "
        f"annealed over {sizes['temperatures']} temperatures; on "
        f"{made['device']}, {versions}. Minutes of training, all seeds of a cell together: {seconds}."
    )


def summary(found: Mapping[str, Record]) -> dict[str, Any]:
    """The few numbers of the answer."""
    most = max(record["particles"] for record in found.values())
    gains = differences(found)
    numbers: dict[str, Any] = {"particles": most}
    for layers in (1, 2):
        for bound in ("VAE", "IWAE"):
            kind = f"{layers} {'layer' if layers == 1 else 'layers'} {bound} {most}"
            if kind not in gains:
                continue
            numbers[f"{bound}_{layers}"] = round(gains[kind].mean, 3)
            numbers[f"{bound}_{layers}_interval"] = [round(end, 3) for end in gains[kind].interval]
    return numbers


def picture(found: Mapping[str, Record]) -> Figure:
    """Log p(x) by k, a point for each seed."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for layers, panel in zip((1, 2), axes, strict=True):
        for bound, marker in (("VAE", "o"), ("IWAE", "s")):
            line = [each for each in found.values() if each["layers"] == layers and _belongs(each, bound)]
            line.sort(key=lambda each: each["particles"])
            k = [each["particles"] for each in line]
            (drawn,) = panel.plot(k, [_values(each).mean() for each in line], label=bound)
            for each in line:
                means = _values(each).mean(1)
                panel.plot([each["particles"]] * len(means), means, marker, color=drawn.get_color(), ms=4)
        panel.set(title=f"{layers} stochastic layer{'s' * (layers > 1)}", xlabel="k", xscale="log")
        ticks = sorted({each["particles"] for each in found.values()})
        panel.set_xticks(ticks, [str(k) for k in ticks])
        panel.set_xticks([], minor=True)
        panel.legend()
    axes[0].set_ylabel("log p(x), nats per datum")
    return figure


def _belongs(record: Record, bound: str) -> bool:
    """With one particle both bounds are the same."""
    return record["bound"] == bound or record["particles"] == 1
