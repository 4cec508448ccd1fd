"""Tables and a picture of the estimates in a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments.markdown import markdown, three_digits
from pyro_vae import plots

Records = Mapping[str, Mapping[str, Any]]


def sections(records: Records) -> dict[str, str]:
    """The tables by name."""
    return {
        "estimates": _estimates(records),
        "agreement": _agreement(records),
        "gaps": _gaps(records),
        "facts": _facts(records),
    }


def summary(records: Records) -> dict[str, float]:
    """The numbers of the answer."""
    most = temperatures(records, "annealed")[-1]
    sampled, annealed = (np.array(records[name]["estimate"]) for name in ("importance", f"annealed {most}"))
    numbers = {
        "particles": int(records["importance"]["num_particles"][0]),
        "sampled_short": float((annealed - sampled).mean()),
    }
    for number in temperatures(records, "bidirectional"):
        numbers[f"gap_{number}"] = float(np.mean(records[f"bidirectional {number}"]["gap"]))
    return numbers


def temperatures(records: Records, kind: str) -> list[int]:
    """The numbers of temperatures of one kind of estimate, rising."""
    names = [name.split() for name in records]
    return sorted(int(name[1]) for name in names if name[0] == kind)


def curve(record: Mapping[str, Any]) -> tuple[list[int], np.ndarray]:
    """K′ and the bound at each, (levels, B)."""
    levels, bound = record["curve"]
    return levels, np.array(bound).reshape(len(levels), -1)


def _estimates(records: Records) -> str:
    """Every estimate, with its paired difference to the last one, that of most temperatures."""
    best = records[f"annealed {temperatures(records, 'annealed')[-1]}"]
    reference = np.array(best["estimate"])
    rows = [["estimate", "mean, nats", "Monte Carlo error", "less than the last row by", "seconds"]]

    def add(name: str, values: np.ndarray, error: str, seconds: object) -> None:
        rows.append([name, three_digits(values.mean()), error, _paired(reference - values), str(seconds)])

    elbo = records["elbo"]
    add("ELBO, 1000 draws", np.array(elbo["elbo"]), "", elbo["seconds"])
    sampled = records["importance"]
    for level, bound in zip(*curve(sampled), strict=True):
        if str(level).strip("0") == "1" and level > 1:
            last = level == sampled["num_particles"][0]
            error = _monte_carlo(sampled) if last else ""
            add(f"importance, K = {level:,}", bound, error, sampled["seconds"] if last else "")
    for number in temperatures(records, "annealed"):
        found = records[f"annealed {number}"]
        add(
            f"annealed, T = {number:,}",
            np.array(found["estimate"]),
            _monte_carlo(found),
            found["seconds"],
        )
    rows[-1][3] = "reference"
    return markdown(rows)


def _agreement(records: Records) -> str:
    """Importance sampling against annealing, datum by datum."""
    sampled = records["importance"]
    number = temperatures(records, "annealed")[-1]
    annealed = records[f"annealed {number}"]
    difference = np.array(annealed["estimate"]) - np.array(sampled["estimate"])
    error = np.hypot(annealed["standard_error"], sampled["standard_error"])
    k = np.array(sampled["pareto_k"], dtype=float)
    inside = int((np.abs(difference) < 2 * error).sum())
    mean, largest = (three_digits(each, sign=True) for each in (difference.mean(), max(difference, key=abs)))
    kinds = {"at most 0.7": k <= 0.7, "0.7 to 1": (k > 0.7) & (k <= 1), "above 1": k > 1}
    rows = [["Pareto k̂", "data", "difference, nats", "within twice the errors"]]
    for name, chosen in ((name, each) for name, each in kinds.items() if each.any()):
        close = int((np.abs(difference) < 2 * error)[chosen].sum())
        gained = f"{three_digits(difference[chosen].mean(), sign=True)} ± {_rooted(error[chosen]):.3f}"
        rows.append([name, str(chosen.sum()), gained, str(close)])
    return (
        f"Annealed (T = {number:,}) less importance-sampled (K = {int(sampled['num_particles'][0]):,}): "
        f"{mean} ± {_rooted(error):.3f} nats in the mean, where ± is the Monte Carlo error of both; "
        f"{inside} of {len(error)} data agree within twice their errors, the largest difference is "
        f"{largest}. By the diagnosis of importance sampling:\n\n{markdown(rows)}"
    )


def _rooted(errors: np.ndarray) -> float:
    """The error of a mean of independent estimates."""
    return float(np.sqrt((errors**2).sum()) / max(len(errors), 1))


def _gaps(records: Records) -> str:
    rows = [["temperatures", "lower bound", "upper bound", "gap", "acceptance", "seconds"]]
    for number in temperatures(records, "bidirectional"):
        found = records[f"bidirectional {number}"]
        gap = np.array(found["gap"])
        rows.append(
            [
                f"{number:,}",
                three_digits(float(np.mean(found["lower"]))),
                three_digits(float(np.mean(found["upper"]))),
                f"{three_digits(gap.mean())} ± {_error(gap):.3f}",
                f"{np.mean(found['acceptance']):.2f}",
                str(found["seconds"]),
            ]
        )
    return markdown(rows)


def _facts(records: Records) -> str:
    first = next(iter(records.values()))
    about, made = first["about"], first["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return (
        f"{about['num_data']} test images of {about['data']}, {about['protocol']}, hash `{about['hash']}`; "
        f"{made['device']}; {versions}."
    )


def picture(records: Records) -> Figure:
    """The bound against K, with the annealed estimate."""
    levels, bound = curve(records["importance"])
    number = temperatures(records, "annealed")[-1]
    annealed = records[f"annealed {number}"]
    error = _rooted(np.array(annealed["standard_error"]))
    return plots.bound_curve(
        levels,
        torch.as_tensor(bound),
        other=(float(np.mean(annealed["estimate"])), error),
        other_label=f"annealed, {number} temperatures",
    )


def _monte_carlo(record: Mapping[str, Any]) -> str:
    return f"{_rooted(np.array(record['standard_error'], dtype=float)):.3f}"


def _paired(difference: np.ndarray) -> str:
    """Mean and standard error over the data."""
    return f"{three_digits(difference.mean())} ± {_error(difference):.3f}"


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
