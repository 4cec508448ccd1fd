"""What of a comparison is certain, and what rests on estimates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyro_vae.comparison.reading import Result

#: The probability with which one bound of a comparison is wrong.
DELTA = 0.05


@dataclass(frozen=True, eq=False)
class Belief:
    """How far one model's log p(x) can be believed."""

    #: A lower bound of the mean, which all models of a comparison have together with a probability of 0.95;
    #: None where an estimate is not known to be unbiased.
    at_least: float | None
    #: Data whose k̂ is above 0.7 or unknown, over all seeds, and how many there are; None for annealed ones.
    heavy: tuple[int, int] | None
    #: How far the bounds on simulated data are apart, and the error of that; None where there are none.
    gap: tuple[float, float] | None


def belief_in(group: Sequence[Result], number: int) -> Belief:
    """That in a model of several seeds, one of `number` runs of a comparison.

    A bound that one run has with δ is lower by log(m)/N where all m runs share δ, over N data
    (docs/certificate.md). Runs may share random numbers, so that a model of
    several seeds has no better bound than the mean of theirs.
    """
    size = len(group[0].log_evidence)
    bounds = [
        each.at_least[0] - math.log(number * each.at_least[1] / DELTA) / size
        for each in group
        if each.at_least is not None
    ]
    heavy, gaps = [each.heavy for each in group], [each.gap for each in group]
    return Belief(
        float(np.mean(bounds)) if len(bounds) == len(group) else None,
        None if None in heavy else (sum(each or 0 for each in heavy), size * len(group)),
        _mean_gap([each for each in gaps if each is not None]) if None not in gaps else None,
    )


def _mean_gap(gaps: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of independent gaps, and its error."""
    values, errors = np.array(gaps).T
    return float(values.mean()), float(np.sqrt((errors**2).sum()) / len(gaps))
