"""Tables and a picture of local proposals held against annealing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.markdown import markdown, three_digits
from pyro_vae import LocalProposal

#: Estimates of each model, by their names.
Models = Mapping[str, Mapping[str, Mapping[str, Any]]]
#: Gradients of a transition of annealing, and draws of the pilots of a local proposal.
LEAPFROG, PILOT = 10, 250


def sections(models: Models) -> dict[str, str]:
    """The tables by name."""
    return {"estimates": _estimates(models), "facts": _facts(models)}


def summary(models: Models) -> dict[str, dict[str, float]]:
    """The numbers of the answer."""
    found = {name: _difference(records, "local") for name, records in models.items()}
    worst = max(found, key=lambda name: abs(found[name][0]))
    return {
        **{
            name: {"difference": each[0], "error": each[1], "cost": cost(models[name])}
            for name, each in found.items()
        },
        "all": {
            "number": len(found),
            "largest": abs(found[worst][0]),
            "cost": max(cost(records) for records in models.values()),
        },
    }


def annealed_in(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of the estimates by annealing."""
    return [name for name in records if name.startswith("annealed")]


def reference_of(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The highest of them, each being a lower bound in expectation."""
    return max(annealed_in(records), key=lambda name: _of(records, name).mean())


def cost(records: Mapping[str, Mapping[str, Any]]) -> float:
    """Gradients of the local estimate, each density counted as one, over those of annealing."""
    about = records["local"]["about"]
    local = LocalProposal()
    gradients = PILOT + local.steps * local.draws + about["particles"]
    return float(gradients / (about["chains"] * about["temperatures"] * LEAPFROG))


def picture(models: Models) -> Figure:
    """Local proposals against annealing, datum by datum, beside draws from the guide."""
    figure = Figure(figsize=(3.2 * len(models), 3.4), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    for axis, (name, records) in zip(axes, models.items(), strict=True):
        reference = _of(records, reference_of(records))
        for kind, label, style in (("guide", "draws from the guide", "o"), ("local", "local proposals", "x")):
            axis.plot(reference, _of(records, kind) - reference, style, markersize=4, label=label, alpha=0.7)
        axis.axhline(0.0, color="0.5", linewidth=0.8)
        axis.set(title=name, xlabel="log p(x) by annealing, nats")
    axes[0].set_ylabel("less annealing, nats")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _estimates(models: Models) -> str:
    rows = [["model", "parts", "estimate", "mean, nats", "less annealing", "k-hat above 0.7", "seconds"]]
    for name, records in models.items():
        first = (f"`{name}`", records["local"]["model"])
        rows.append(
            [
                *first,
                "ELBO",
                three_digits(float(np.mean(records["elbo"]["elbo"]))),
                "",
                "",
                _seconds(records, "elbo"),
            ]
        )
        for kind, words in (("guide", "draws from the guide"), ("local", "local proposals")):
            gained, error = _difference(records, kind)
            heavy = int((np.array(records[kind]["pareto_k"], dtype=float) > 0.7).sum())
            difference = f"{three_digits(gained, sign=True)} ± {error:.3f}"
            mean = three_digits(_of(records, kind).mean())
            rows.append(["", "", words, mean, difference, str(heavy), _seconds(records, kind)])
        for kind in sorted(annealed_in(records), key=reference_of(records).__eq__):
            gained, error = _difference(records, kind)
            reference = kind == reference_of(records)
            difference = "reference" if reference else f"{three_digits(gained, sign=True)} ± {error:.3f}"
            mean = three_digits(_of(records, kind).mean())
            rows.append(["", "", kind, mean, difference, "", _seconds(records, kind)])
    return markdown(rows)


def _difference(records: Mapping[str, Mapping[str, Any]], kind: str) -> tuple[float, float]:
    """The mean difference to the reference, and its standard error over the data."""
    difference = _of(records, kind) - _of(records, reference_of(records))
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _facts(models: Models) -> str:
    lines = []
    for name, records in models.items():
        about, made = records["local"]["about"], records["local"]["made"]
        versions = ", ".join(f"{each} {number}" for each, number in made["versions"].items())
        measured = (
            f"{about['num_data']} test data of {about['data']}, {about['protocol']}, hash `{about['hash']}`"
        )
        chains = f"{about['chains']} chains of {about['temperatures']:,} temperatures"
        lines.append(f"`{name}`: {measured}; {chains}; {made['device']}; {versions}.")
    return "\n\n".join(lines)


def _of(records: Mapping[str, Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array(records[name]["estimate"], dtype=float)


def _seconds(records: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str(records[name]["seconds"])
