"""Paired differences in log p(x) between runs that were evaluated on the same data."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pyro_vae.comparison.believing import Belief, belief_in
from pyro_vae.comparison.options import differing, model_in_words
from pyro_vae.comparison.reading import SAME, Result, read
from pyro_vae.comparison.seeds import Difference, Spread, difference_over_seeds
from pyro_vae.comparison.table import ComparedRun, Comparison, Verdict, name_of
from pyro_vae.errors import InputError
from pyro_vae.storage.runs import runs_in

Reference = Literal["first", "best"]


def compare(folders: Iterable[str | Path], *, reference: Reference = "first") -> Comparison:
    """Paired differences in log p(x) between trained runs, evaluated on the same data.

    Of each run the latest evaluation counts, that of `pyro-vae evaluate` or else of the end of training.
    Runs that differ in their seed only are one row, a model: its numbers are means over seeds. For model
    r and reference a, d_b is the difference of the mean log p(x_b) of their seeds, and the interval holds
    both other data and other seeds: see `difference_over_seeds`. A model of one seed is taken to spread
    over seeds as the others do. Where no model has several, the interval is that of `paired_difference`,
    of these trained parameters alone, and the verdict is not on the models: a run is "higher" or "lower",
    not better or worse. Intervals are per pair, not simultaneous: among twenty equal models expect one
    outside of noise; and the best of many, taken as the reference, looks better than it is.

    Of a difference one side is certain: that log p(x) is at least so much (`belief.at_least`). That the
    lower model is not higher than its estimate is not; k̂ and bounds on simulated data speak for it.

    Args:
        folders: Folders of two runs or more; one of several seeds, as `train --seeds` makes it, stands for
            its runs.
        reference: The model to compare with: that of the `first` run, or the `best` by log p(x).

    Raises:
        InputError: where a folder is no finished run or was given twice; where the runs were evaluated on
            different data, binarisation or units, or by different methods; where a run has no log p(x).
    """
    if reference not in get_args(Reference):
        raise InputError(f"reference expects first or best, got {reference!r}")
    results = [read(folder) for folder in _different(folders)]
    for other in results[1:]:
        _check_same(results[0], other)
    groups = _by_seed(results)
    means = [_log_evidence(group).mean() for group in groups]
    base = groups[0 if reference == "first" else int(np.argmax(means))]
    spread = Spread.of([_log_evidence(group) for group in groups])
    options = differing([_with_seeds(group) for group in groups])
    runs = tuple(
        _compared(group, base, spread, chosen, belief_in(group, len(results)))
        for group, chosen in zip(groups, options, strict=True)
    )
    facts = {each.name: base[0].facts[each.name] for each in fields(Comparison) if each.name in SAME}
    return Comparison(runs, name_of([each.name for each in base]), **facts)


def _by_seed(results: list[Result]) -> list[list[Result]]:
    """Runs that differ in their seed only, together, in the order of the first of each."""
    groups: dict[str, list[list[Result]]] = {}
    for result in results:
        of_model = groups.setdefault(model_in_words(result.config), [])
        seed = result.config.get("seed")
        # the same seed twice is another training of the same: no more is known by it about other seeds
        fitting = (group for group in of_model if seed not in {each.config.get("seed") for each in group})
        group = next(fitting, None)
        if group is None:
            of_model.append([result])
        else:
            group.append(result)
    places = {result.name: number for number, result in enumerate(results)}
    every = (group for of_model in groups.values() for group in of_model)
    return sorted(every, key=lambda group: places[group[0].name])


def _with_seeds(group: list[Result]) -> dict[str, Any]:
    """The configuration of a model, with the seeds of its runs."""
    seeds = [result.config.get("seed") for result in group]
    return {**group[0].config, "seed": seeds[0] if len(seeds) == 1 else seeds}


def _log_evidence(group: list[Result]) -> np.ndarray:
    """Of each seed and datum: (S, B)."""
    return np.stack([result.log_evidence for result in group])


def paired_difference(values: np.ndarray, reference: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean of d_b = values_b − reference_b and its 95 % interval by Student's t over the data.

    d̄ ± t(0.975, B − 1) · sd(d) / √B. The Monte Carlo error of either estimate varies from datum to datum,
    so it is contained. Student (1908), "The probable error of a mean".

    Args:
        values: (B,), B at least 2.
        reference: (B,), of the same data in the same order.

    >>> difference, (low, high) = paired_difference(np.array([-20.0, -31.0, -9.0]), np.array([-21, -31, -11]))
    >>> f"{difference:.3f} [{low:.3f}, {high:.3f}]"
    '1.000 [-1.484, 3.484]'
    """
    from scipy.special import stdtrit  # slow to import

    differences = values - reference
    mean, half = float(differences.mean()), float(stdtrit(len(differences) - 1, 0.975) * _error(differences))
    return mean, (mean - half, mean + half)


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _different(folders: Iterable[str | Path]) -> list[Path]:
    """The folders, refused where they are fewer than two or one is given twice."""
    given = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    paths = [each for path in given for each in runs_in(path)]
    if len(paths) < 2:
        got = ", ".join(map(str, paths)) or "none"
        raise InputError(
            f"expected the folders of at least two runs, got {got}: name another to compare with"
        )
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise InputError(f"expected different runs, got {path} twice: name each once")
    return paths


def _check_same(first: Result, other: Result) -> None:
    """Refuse results that were not measured on the same data."""
    for name in SAME:
        expected, got = first.facts[name], other.facts[name]
        if expected == got:
            continue
        how = {"units": "in other units", "method": "by another method"}.get(name, "on other data")
        raise InputError(
            f"{other.name} was evaluated {how} than {first.name}: expected {name} {expected}, got {got}: "
            f"{_remedy(first, other, name)}"
        )


def _remedy(first: Result, other: Result, name: str) -> str:
    """What to do where two results differ in the fact `name`; `evaluate` chooses some of them."""
    if name not in ("split", "num_data", "binarisation seed", "method"):
        return "compare runs on one test set in one form (--data.form), in the same units"
    split, num_data, seed = (first.facts[each] for each in ("split", "num_data", "binarisation seed"))
    command = f"pyro-vae evaluate {shlex.quote(other.name)} --split {split} --num_data {num_data}"
    seeded = "" if seed is None else f" --seed {seed}"
    return f"use {command}{seeded}{_method(first)}"


def _method(first: Result) -> str:
    """The options of `evaluate` for the method of a result; none for local proposals, the default."""
    if first.temperatures is None:
        method = first.facts["method"]
        return "" if method == "local" else f" --method {method}"
    return f" --method annealed --chains {first.particles} --temperatures {first.temperatures}"


def _compared(
    group: list[Result], base: list[Result], spread: Spread | None, options: dict[str, str], belief: Belief
) -> ComparedRun:
    values = _log_evidence(group)
    difference = difference_over_seeds(values, _log_evidence(base), spread)
    bits = [result.bits_per_dim for result in group if result.bits_per_dim is not None]
    means = values.mean(1)
    first = group[0]
    return ComparedRun(
        name_of([result.name for result in group]),
        options,
        first.parameters,
        float(np.mean([result.elbo.mean() for result in group])),
        float(values.mean()),
        _error(values.mean(0)),
        first.particles,
        first.temperatures,
        difference.mean,
        (0.0, 0.0) if group is base else difference.interval,
        "reference" if group is base else _verdict(difference),
        tuple(result.name for result in group),
        tuple(float(mean) for mean in means),
        float(means.std(ddof=1)) if len(group) > 1 else None,
        float(np.mean(bits)) if len(bits) == len(group) else None,
        None if group is base else difference.seeds_needed,
        belief,
    )


def _verdict(difference: Difference) -> Verdict:
    low, high = difference.interval
    if low <= 0 <= high:
        return "within noise"
    if difference.over_seeds:
        return "better" if low > 0 else "worse"
    return "higher" if low > 0 else "lower"
