"""Tables of the estimates in a file, and the few numbers of the answer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.estimators.estimators import ESTIMATORS
from experiments.estimators.posteriors import POSTERIORS
from experiments.markdown import markdown

Records = Mapping[str, Mapping[str, Any]]
#: Mean error per datum that the table of costs asks for, in nats, and the gradients that the other allows.
WANTED, ALLOWED = 0.25, 20_000


class Point(NamedTuple):
    """What an estimator gives for a budget."""

    gradients: float
    #: CPU seconds of the call, all data and repetitions in it.
    seconds: float
    #: Mean over the data of |log p̂(x) − log p(x)|, one for each repetition.
    errors: np.ndarray
    #: Mean of log p̂(x) − log p(x).
    bias: float

    @property
    def error(self) -> float:
        """Over all repetitions."""
        return float(self.errors.mean())


def points(records: Records, posterior: str, estimator: str) -> list[Point]:
    """From the smallest budget to the largest."""
    reference = np.array(records[f"{posterior} reference"]["values"])
    found = []
    for name, record in records.items():
        if name.split()[:2] == [posterior, estimator]:
            away = np.array(record["estimates"]) - reference
            errors = np.abs(away).mean(1)
            found.append(Point(record["gradients"], record["seconds"], errors, float(away.mean())))
    return sorted(found, key=lambda point: point.gradients)


def reached(found: list[Point]) -> Point | None:
    """The first from which on the error is at most that wanted."""
    good = [number for number, point in enumerate(found) if point.error > WANTED]
    later = found[good[-1] + 1 :] if good else found
    return later[0] if later else None


def allowed(found: list[Point]) -> Point:
    """That of the largest budget which is allowed."""
    return [point for point in found if point.gradients <= ALLOWED][-1]


def winners(records: Records, posterior: str) -> list[str]:
    """Those whose error at the gradients allowed is within what the best has in its repetitions."""
    found = {name: allowed(points(records, posterior, name)) for name in ESTIMATORS}
    best = min(found.values(), key=lambda point: point.error)
    return [name for name, point in found.items() if point.error <= best.errors.max()]


def sections(records: Records) -> dict[str, str]:
    """The tables by name."""
    parts = {
        "errors": _errors,
        "costs": _costs,
        "pairs": _pairs,
        "references": _references,
        "facts": _facts,
    }
    return {name: part(records) for name, part in parts.items()}


def _errors(records: Records) -> str:
    rows = [_heading()]
    for posterior, made in POSTERIORS.items():
        best = winners(records, posterior)
        found = {name: _error(allowed(points(records, posterior, name))) for name in ESTIMATORS}
        rows.append([made.label, *(f"**{each}**" if name in best else each for name, each in found.items())])
    return markdown(rows)


def _heading() -> list[str]:
    return ["posterior", *(each.label for each in ESTIMATORS.values())]


def _error(point: Point) -> str:
    """With its sign where nearly all of it has one."""
    biased = abs(point.bias) > 0.9 * point.error and point.error > 0.1
    text = f"{point.bias:+.2f}".replace("-", "−") if biased else f"{point.error:.2g}"
    return f"{text} ({_spread(point)})"


def _spread(point: Point) -> str:
    return f"{point.errors.min():.1g} to {point.errors.max():.1g}"


def _costs(records: Records) -> str:
    rows = [_heading()]
    for posterior, made in POSTERIORS.items():
        rows.append([made.label, *(_cost(points(records, posterior, name)) for name in ESTIMATORS)])
    return markdown(rows)


def _cost(found: list[Point]) -> str:
    """Gradients and seconds to the error wanted."""
    point = reached(found)
    return "–" if point is None else f"{_thousands(point.gradients)}, {point.seconds:.1f} s"


def _thousands(gradients: float) -> str:
    return f"{gradients:.0f}" if gradients < 1000 else f"{float(f'{gradients / 1000:.2g}'):g}k"


#: A change to annealing, and what it is a change of.
_PAIRS = {"adaptive": "prior", "rounds": "prior", "sequential": "prior", "guide_rounds": "guide"}


class Ratio(NamedTuple):
    """Errors of one over those of another, over all posteriors: geometric mean, and how many are below 1."""

    mean: float
    below: int


def ratio(records: Records, name: str, other: str, *, last: bool) -> Ratio:
    """At the largest budgets, or at the largest that are allowed."""
    ratios = []
    for posterior in POSTERIORS:
        found = (points(records, posterior, each) for each in (name, other))
        one, two = (each[-1] if last else allowed(each) for each in found)
        ratios.append(one.error / two.error)
    return Ratio(float(np.exp(np.log(ratios).mean())), sum(each < 1 for each in ratios))


def _pairs(records: Records) -> str:
    rows = [["", "against", f"error at {ALLOWED:,} gradients", "at the largest budgets"]]
    for name, other in _PAIRS.items():
        found = (ratio(records, name, other, last=last) for last in (False, True))
        cells = (f"{each.mean:.2f}, smaller on {each.below} of {len(POSTERIORS)}" for each in found)
        rows.append([ESTIMATORS[name].label, ESTIMATORS[other].label, *cells])
    return markdown(rows)


def _references(records: Records) -> str:
    rows = [["posterior", "mean log p(x)", "known by", "distance to a second way"]]
    for name, made in POSTERIORS.items():
        found = records[f"{name} reference"]
        distance = f"{found['distance']:.1g}" if found["distance"] else "–"
        rows.append([made.label, _number(float(np.mean(found["values"]))), found["how"], distance])
    return markdown(rows)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _facts(records: Records) -> str:
    about = next(iter(records.values()))["about"]
    seconds = sum(record["seconds"] for record in records.values())
    version = next(record["torch"] for record in records.values() if "torch" in record)
    return (
        f"{about['num_data']} data of each posterior, estimated {about['repetitions']} times in one call "
        f"of {about['num_data'] * about['repetitions']}; {about['chains']} chains for each; "
        f"all measurements took {seconds / 60:.0f} minutes of one core (two-core AMD EPYC, "
        f"shared with other work); torch {version}."
    )


def summary(records: Records) -> dict[str, Any]:
    """On how many posteriors each wins or gets to the error wanted, and errors at the gradients allowed."""
    best = [winners(records, posterior) for posterior in POSTERIORS]
    found = {name: [points(records, posterior, name) for posterior in POSTERIORS] for name in ESTIMATORS}
    return {
        "posteriors": len(POSTERIORS),
        "wins": {name: sum(name in each for each in best) for name in ESTIMATORS},
        "reached": {name: sum(reached(each) is not None for each in found[name]) for name in ESTIMATORS},
        "errors": {
            posterior: {name: round(allowed(found[name][number]).error, 4) for name in ESTIMATORS}
            for number, posterior in enumerate(POSTERIORS)
        },
    }
