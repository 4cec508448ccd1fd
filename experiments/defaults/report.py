"""The table, and the numbers of the answer, from the records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.defaults import seen
from experiments.markdown import markdown, spread

Found = Mapping[str, Mapping[str, Any]]
#: A training is said to ignore z below this KL, in nats.
IGNORED = 0.5


def sections(found: Found, sights: Found) -> dict[str, str]:
    """The tables and the facts by name."""
    heading = ("`--part Name`", "log p(x)", "worst of the seeds", "KL", "ignore z", "what log p(x) is of")
    rows: list[Sequence[str]] = [heading]
    for name, record in found.items():
        values = record["log_evidence"]
        rows.append(
            (
                f"`--{record['part']} {name}`",
                spread(values),
                spread([min(values)]),
                spread(record["kl"]),
                str(sum(kl < IGNORED for kl in record["kl"])),
                record["protocol"].partition(", ")[0],
            )
        )
    first = next(iter(found.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    facts = f"{len(first['kl'])} seeds each; {versions}."
    return {"parts": markdown(rows), "seen": seen.table(sights), "facts": facts}


def summary(found: Found, sights: Found) -> dict[str, Any]:
    """The few numbers of the answer."""
    spreads = {name: statistics.stdev(record["log_evidence"]) for name, record in found.items()}
    return {
        "parts": len(found),
        "trainings": sum(len(record["kl"]) for record in found.values()),
        "ignored": sum(kl < IGNORED for record in found.values() for kl in record["kl"]),
        "widest": max(spreads, key=lambda name: spreads[name]),
        "widest_spread": round(max(spreads.values()), 3),
        "seen": {name: seen.means(record) for name, record in sights.items()},
    }
