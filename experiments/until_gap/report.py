"""The table and the picture of the pairs in a file."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from experiments.markdown import markdown

Records = Mapping[str, Mapping[str, Any]]


def ratio(record: Mapping[str, Any]) -> float:
    """Gradients of the search, all rounds and simulated data included, to those by hindsight."""
    return float(record["gradients"] / record["hindsight_gradients"])


def hits(record: Mapping[str, Any], gap: float) -> bool:
    """Whether the mean is within the gap of the exact one."""
    return abs(record["error"]) <= gap


def sections(records: Records, gap: float) -> dict[str, str]:
    """The table, and what it says in all."""
    rows = [
        [
            "model, start",
            "spread",
            "Λ",
            "rounds",
            "gap",
            "change",
            "error",
            "hindsight T",
            "cost to hindsight",
        ]
    ]
    for each in records.values():
        sizes = ", ".join(str(size) for size, *_ in each["rounds"])
        numbers = [f"{each[name]:+.3f}".replace("-", "−") for name in ("gap", "change", "error")]
        numbers[-1] += "" if hits(each, gap) else " (missed)"
        row = [each["case"], f"{each['spread']:g}", f"{each['barrier']:.1f}", sizes, *numbers]
        rows.append([*row, str(each["hindsight"]), f"{ratio(each):.2f}"])
    found = summary(records, gap)
    facts = (
        f"{found['hits']} of {found['pairs']} are within {gap:g} nats of the exact mean; {found['cheap']} "
        f"took at most twice the gradients of hindsight, {found['both']} both (median {found['median']:.2f}, "
        f"most {found['most']:.2f}). {found['again']} had to be run again with more temperatures, "
        f"{found['unreached']} did not reach the gap; {found['certified']} certificates hold. All searches "
        f"took {found['seconds']:.0f} s on one core, beside other work."
    )
    return {"pairs": markdown(rows), "facts": facts}


def summary(records: Records, gap: float) -> dict[str, Any]:
    """The numbers of the answer."""
    all_of = list(records.values())
    ratios = [ratio(each) for each in all_of]
    return {
        "pairs": len(all_of),
        "hits": sum(hits(each, gap) for each in all_of),
        "cheap": sum(each <= 2 for each in ratios),
        "both": sum(hits(each, gap) and ratio(each) <= 2 for each in all_of),
        "median": median(ratios),
        "most": max(ratios),
        "again": sum(each["attempts"] > 1 for each in all_of),
        "unreached": sum(not each["reached"] for each in all_of),
        "certified": sum(each["certified"] for each in all_of),
        "seconds": sum(each["seconds"] for each in all_of),
    }


def picture(records: Records, gap: float) -> Figure:
    """Errors, and cost to hindsight, pair by pair."""
    figure = Figure(figsize=(9, 0.26 * len(records) + 1.4), layout="constrained")
    errors, costs = figure.subplots(1, 2, sharey=True)
    places = list(range(len(records)))
    errors.axvspan(-gap, gap, color="0.92")
    errors.axvline(0, color="0.6", linewidth=0.8)
    errors.scatter([each["error"] for each in records.values()], places, s=18)
    errors.set_xlabel("error of the mean, in nats (grey: the gap)", fontsize=9)
    errors.set_yticks(places, list(records), fontsize=7)
    errors.invert_yaxis()
    costs.axvline(2, color="0.6", linestyle="--", linewidth=0.8)
    costs.scatter([ratio(each) for each in records.values()], places, s=18)
    costs.set_xscale("log", base=2)
    costs.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    costs.set_xlabel("cost next to hindsight (dashed: twice)", fontsize=9)
    return figure
