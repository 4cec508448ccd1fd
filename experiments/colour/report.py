"""Tables, the numbers of the answer, and the curves, from the records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.markdown import markdown, spread
from pyro_vae import bits_per_dim

Found = Mapping[str, Mapping[str, Any]]
_COLOURS = ("#D55E00", "#0072B2", "#56B4E9")


def tasks_of(found: Found) -> list[str]:
    """The data sets, in the order of the records."""
    return list(dict.fromkeys(name.partition(", ")[0] for name in found))


def names_of(found: Found, task: str) -> list[str]:
    """The networks of one data set, in the order of the records."""
    names = (name.rpartition(" ")[0].partition(", ") for name in found)
    return list(dict.fromkeys(name for what, _, name in names if what == task))


def of(found: Found, task: str, name: str) -> list[Mapping[str, Any]]:
    """The records of one network on one data set, over seeds."""
    return [record for key, record in found.items() if key.rpartition(" ")[0] == f"{task}, {name}"]


def shared_seconds(found: Found, task: str) -> float:
    """CPU time that every training on a data set took: that of the shortest."""
    return min(float(record["curve"][-1][1]) for key, record in found.items() if key.startswith(f"{task}, "))


def unit_of(task: str) -> str:
    """In what the ELBO is shown: nats per picture where pixels are 0 or 1."""
    return "nats" if task == "MNIST" else "bits per dimension"


def shown(record: Mapping[str, Any], task: str, elbo: float) -> float:
    """An ELBO in the unit of its data."""
    return elbo if unit_of(task) == "nats" else bits_per_dim(elbo, (record["dim"],))


def best_by(record: Mapping[str, Any], task: str, seconds: float) -> float:
    """The best ELBO of the validation pictures by then, or else after the first epoch."""
    known = [elbo for _, spent, elbo in record["curve"] if spent <= seconds]
    return shown(record, task, float(max(known or [record["curve"][0][2]])))


def sections(found: Found) -> dict[str, str]:
    """The tables by name."""
    tables = {task: _table(found, task) for task in tasks_of(found)}
    return {**tables, "facts": _facts(found)}


def _table(found: Found, task: str) -> str:
    whole = shared_seconds(found, task)
    times = [whole / 4, whole / 2, whole]
    heading = ("network", "steps", "ms a step", *(f"after {each:.0f} s" for each in times))
    rows: list[Sequence[str]] = [(*heading, "test, best epoch", "KL, nats")]
    for name in names_of(found, task):
        records = of(found, task, name)
        last = [record["curve"][-1] for record in records]
        step = statistics.median(1000 * spent / steps for steps, spent, _ in last)
        cells = [spread([best_by(record, task, each) for record in records], 3) for each in times]
        cells.append(spread([shown(record, task, record["elbo"]) for record in records], 3))
        cells.append(spread([record["kl"] for record in records], 3))
        rows.append((name, str(last[0][0]), f"{step:.0f}", *cells))
    return markdown(rows)


def _facts(found: Found) -> str:
    record = next(iter(found.values()))
    made = record["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    hashes = {task: of(found, task, names_of(found, task)[0])[0]["task"]["hash"] for task in tasks_of(found)}
    named = ", ".join(f"{task} `{hash}`" for task, hash in hashes.items())
    return f"Hashes of the test data: {named}; on {made['device']} beside other work, {versions}."


def summary(found: Found) -> dict[str, dict[str, float]]:
    """The few numbers of the answer, by data set."""
    return {task: _numbers(found, task) for task in tasks_of(found)}


def _numbers(found: Found, task: str) -> dict[str, float]:
    whole = shared_seconds(found, task)
    numbers = {"seconds": round(whole, 1)}
    for name in names_of(found, task):
        values = [best_by(record, task, whole) for record in of(found, task, name)]
        key = name.replace(", ", "_")
        numbers[key] = round(statistics.mean(values), 4)
        numbers[f"{key}_spread"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
    return numbers


def curves(found: Found) -> Figure:
    """What is learned of the validation pictures against CPU time, a line for each seed."""
    tasks = tasks_of(found)
    figure = Figure(figsize=(5 * len(tasks), 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for name, colour in zip(names_of(found, task), _COLOURS, strict=False):
            for seed, record in enumerate(of(found, task, name)):
                _, spent, elbos = np.array(record["curve"]).T
                values = [shown(record, task, elbo) for elbo in elbos]
                axes.plot(spent, values, color=colour, linewidth=1, label=None if seed else name)
        axes.set(title=task, xlabel="CPU time of training (s)", ylabel=f"validation, {unit_of(task)}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure
