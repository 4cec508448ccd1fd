"""The difference of two models, each trained from several seeds, on the same data."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: More seeds than anyone trains.
_MOST_SEEDS = 1000


class Difference(NamedTuple):
    """Mean difference of two models in log p(x), and how sure it is."""

    #: Mean over data and seeds.
    mean: float
    #: 95 % interval.
    interval: tuple[float, float]
    #: Whether the spread over seeds is in the interval.
    over_seeds: bool
    #: Seeds of each model with which such a difference would be outside of noise; 0 where it is already, None
    #: where no number would do, or none is known.
    seeds_needed: int | None


def difference_over_seeds(
    values: np.ndarray, reference: np.ndarray, spread: "Spread | None" = None
) -> Difference:
    """Mean of log p(x) over data and seeds, less that of a reference, with a 95 % interval.

    With y_b and a_b the means over the seeds of each, and d_b = y_b − a_b, the squared error is

        var(d)/B + v_y/S_y + v_a/S_a,

    with v the variance over seeds of a run's mean. The first term is that of other data, paired datum by
    datum; the others are those of other seeds. The part that differs by datum and seed is in both, so that
    the error is rather too large. The interval is d̄ ± t · error, Student's t with the degrees of freedom of
    Satterthwaite (1946), "An approximate distribution of estimates of variance components". A model of one
    seed has the variance in `spread`, that of the others; where there is none, the interval is of these
    trained parameters alone, as `paired_difference`.

    Args:
        values: (S, B), log p(x) of each seed and datum; B at least 2.
        reference: (S′, B), of the same data in the same order.
        spread: Over the seeds of other models.

    >>> random = np.random.RandomState(1)
    >>> hard = random.normal(-100, 10, 500)
    >>> found = difference_over_seeds(hard + random.randn(5, 1), hard + random.randn(4, 1))
    >>> found.over_seeds, found.interval[0] < 0 < found.interval[1]
    (True, True)
    """
    differences = values.mean(0) - reference.mean(0)
    mean, number = float(differences.mean()), len(differences)
    terms = [(float(differences.var(ddof=1)) / number, number - 1.0)]
    spreads = [Spread.of([each]) or spread for each in (values, reference)]
    known = [each for each in spreads if each is not None]
    over_seeds = len(known) == 2
    if over_seeds:
        seeds = (len(values), len(reference))
        terms += [(each.variance / size, each.degrees) for each, size in zip(known, seeds, strict=True)]
    half = _half_width(terms)
    needed = _seeds_needed(mean, half, terms[0], known) if over_seeds else None
    return Difference(mean, (mean - half, mean + half), over_seeds, needed)


class Spread(NamedTuple):
    """Variance over seeds of a run's mean log p(x), and its degrees of freedom."""

    variance: float
    degrees: float

    @classmethod
    def of(cls, groups: Sequence[np.ndarray]) -> "Spread | None":
        """That within groups (S, B) of seeds, pooled; None where each has one seed.

        >>> Spread.of([np.array([[0.0], [2.0]]), np.array([[5.0]])])
        Spread(variance=2.0, degrees=1.0)
        """
        means = [group.mean(1) for group in groups if len(group) > 1]
        degrees = float(sum(len(each) - 1 for each in means))
        if not degrees:
            return None
        return cls(sum(float(((each - each.mean()) ** 2).sum()) for each in means) / degrees, degrees)


def _half_width(terms: Sequence[tuple[float, float]]) -> float:
    """Half of the interval, of squared errors with their degrees of freedom."""
    from scipy.special import stdtrit  # slow to import

    total = sum(term for term, _ in terms)
    if total == 0:
        return 0.0
    degrees = total**2 / sum(term**2 / degrees for term, degrees in terms)
    return float(stdtrit(degrees, 0.975)) * math.sqrt(total)


def _seeds_needed(
    mean: float, half: float, of_data: tuple[float, float], spreads: Sequence[Spread]
) -> int | None:
    """The fewest seeds of each model at which the half width would be below the difference."""
    if abs(mean) > half:
        return 0
    for seeds in range(2, _MOST_SEEDS + 1):
        terms = [of_data, *((each.variance / seeds, seeds - 1.0) for each in spreads)]
        if _half_width(terms) < abs(mean):
            return seeds
    return None
