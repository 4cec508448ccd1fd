"""Tables, the numbers of the answer, and the curves, from the records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.markdown import markdown

Found = Mapping[str, Mapping[str, Any]]
_COLOURS = ("#D55E00", "#0072B2", "#56B4E9")


def names_of(found: Found) -> list[str]:
    """The networks, in the order of the records."""
    return list(dict.fromkeys(name.rpartition(" ")[0] for name in found))


def of(found: Found, name: str) -> list[Mapping[str, Any]]:
    """The records of one network, over seeds."""
    return [record for key, record in found.items() if key.rpartition(" ")[0] == name]


def shared_seconds(found: Found) -> float:
    """CPU time that every training took: that of the shortest."""
    return min(float(record["curve"][-1][1]) for record in found.values())


def bits_at(record: Mapping[str, Any], seconds: float) -> float:
    """The best bits per dimension of the validation pictures by then, or else after the first epoch."""
    known = [bits for _, spent, bits in record["curve"] if spent <= seconds]
    return float(min(known or [record["curve"][0][2]]))


def sections(found: Found) -> dict[str, str]:
    """The tables by name."""
    return {"bits": _bits(found), "facts": _facts(found)}


def _bits(found: Found) -> str:
    whole = shared_seconds(found)
    times = [whole / 4, whole / 2, whole]
    heading = ("network", "steps", "ms a step", *(f"after {each:.1f} s" for each in times))
    rows: list[Sequence[str]] = [(*heading, "test, best epoch", "KL, nats")]
    for name in names_of(found):
        records = of(found, name)
        last = [record["curve"][-1] for record in records]
        step = statistics.median(1000 * spent / steps for steps, spent, _ in last)
        cells = [spread([bits_at(record, each) for record in records]) for each in times]
        cells += [spread([record[key] for record in records]) for key in ("bits", "kl")]
        rows.append((name, str(last[0][0]), f"{step:.0f}", *cells))
    return markdown(rows)


def _facts(found: Found) -> str:
    record = next(iter(found.values()))
    about, made = record["about"], record["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    seeds = ", ".join(map(str, about["seeds"]))
    return (
        f"Hash of the test data `{about['hash']}`; seeds {seeds}; on {made['device']} beside other work, "
        f"{versions}."
    )


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


def summary(found: Found) -> dict[str, float]:
    """The few numbers of the answer."""
    whole = shared_seconds(found)
    numbers = {"seconds": round(whole, 1)}
    for name in names_of(found):
        bits = [bits_at(record, whole) for record in of(found, name)]
        key = name.replace(", ", "_")
        numbers[key] = round(statistics.mean(bits), 4)
        numbers[f"{key}_spread"] = round(statistics.stdev(bits), 4) if len(bits) > 1 else 0.0
    return numbers


def curves(found: Found) -> Figure:
    """Bits per dimension of the validation pictures against CPU time, a line for each seed."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, colour in zip(names_of(found), _COLOURS, strict=True):
        for seed, record in enumerate(of(found, name)):
            _, spent, bits = np.array(record["curve"]).T
            axes.plot(spent, bits, color=colour, linewidth=1, label=None if seed else name)
    axes.set(xlabel="CPU time of training (s)", ylabel="validation, bits per dimension")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
