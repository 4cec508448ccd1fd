"""From the seconds of each round to medians, quartiles and ratios, and what was aimed at."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.race import Row
from experiments.benchmarks.registry import EVIDENCE, FLOOR, OURS, STEPS, Variant


class Spread(NamedTuple):
    """A median with its quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Median and quartiles of `values` over the median of `reference`.

    >>> ratio([1.0, 2.0, 3.0], [1.0, 4.0, 9.0])
    Spread(median=0.5, low=0.375, high=0.625)
    """
    unit = float(np.median(reference))
    return Spread(*(each / unit for each in spread(values)))


def measured(record: Row) -> dict[str, Row]:
    """The rows with times, by variant."""
    return {name: row for name, row in record["rows"].items() if row.get("seconds")}


def median(record: Row, variant: str) -> float:
    """Median seconds; NaN where there are none."""
    row = measured(record).get(variant)
    return spread(row["seconds"]).median if row else math.nan


def floor(record: Row, variants: Mapping[str, Variant]) -> float:
    """Median seconds of the fastest way of doing nothing but the matrix products; NaN where there is none."""
    names = [name for name, variant in variants.items() if variant.group == FLOOR]
    found = [median(record, name) for name in names if name in measured(record)]
    return min(found, default=math.nan)


def fastest(record: Row, variants: Mapping[str, Variant]) -> str:
    """The library's fastest variant in float32, as the others are; empty where there is none."""
    ours = [name for name in measured(record) if variants[name].group == OURS and "bfloat16" not in name]
    return min(ours, key=lambda name: median(record, name), default="")


class Target(NamedTuple):
    """A ratio of this library's time to another's that is to be at most `limit`."""

    case: str
    reference: str
    limit: float

    @property
    def variants(self) -> Mapping[str, Variant]:
        """Those of the case's kind."""
        return EVIDENCE if self.case == "evidence" else STEPS

    def reached(self, record: Row, variant: str) -> float:
        """The ratio of `variant`; NaN where one of the two was not measured."""
        there = floor(record, self.variants) if self.reference == FLOOR else median(record, self.reference)
        return median(record, variant) / there


#: Of training steps on a CPU, and of log p(x).
TARGETS = (
    Target("mlp-20", "PyTorch eager", 1.0),
    Target("mlp-128", "PyTorch eager", 0.95),
    Target("mlp-1000", "PyTorch eager", 0.95),
    Target("mlp-128", "PyTorch torch.compile", 1.0),
    Target("mlp-1000", "PyTorch torch.compile", 1.0),
    Target("tiny-20", "PyTorch eager", 0.6),
    *(Target(case, "NumPyro lax.scan", 1.0) for case in ("mlp-20", "mlp-128", "mlp-1000", "tiny-20")),
    Target("evidence", FLOOR, 1.3),
)


def answer(steps: Mapping[str, Row]) -> dict[str, float]:
    """The range of the fastest variant's time over those of others, over cases of training steps."""
    numbers: dict[str, float] = {}
    for word, reference, names in (
        ("eager", "PyTorch eager", list(steps)),
        ("scan", "NumPyro lax.scan", [name for name in steps if not name.startswith("conv")]),
    ):
        ratios = [
            median(steps[name], fastest(steps[name], STEPS)) / median(steps[name], reference)
            for name in names
        ]
        finite = [each for each in ratios if math.isfinite(each)]
        if finite:
            numbers |= {f"{word}_least": min(finite), f"{word}_most": max(finite)}
    return numbers
