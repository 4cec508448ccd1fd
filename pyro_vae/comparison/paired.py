"""Paired differences in log p(x) between runs that were evaluated on the same data."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pyro_vae.comparison.options import differing
from pyro_vae.comparison.reading import SAME, Result, read
from pyro_vae.comparison.table import ComparedRun, Comparison, Verdict
from pyro_vae.errors import InputError

Reference = Literal["first", "best"]


def compare(folders: Iterable[str | Path], *, reference: Reference = "first") -> Comparison:
    """Paired differences in log p(x) between trained runs, evaluated on the same data.

    Of each run the latest evaluation counts, that of `pyro-vae evaluate` or else of the end of training.
    For run r and reference a, d_b = log p_r(x_b) − log p_a(x_b), and the interval is that of
    `paired_difference`. Intervals are per pair, not simultaneous: among twenty equal runs expect one
    outside of noise; and the best of many, taken as the reference, looks better than it is. They hold for
    these trained parameters: how much another seed of the training would change is not in them.

    Args:
        folders: Folders of two runs or more.
        reference: The run to compare with: the `first`, or the `best` by log p(x).

    Raises:
        InputError: where a folder is no finished run or was given twice; where the runs were evaluated on
            different data, binarisation or units, or by different methods; where a run has no log p(x).
    """
    if reference not in get_args(Reference):
        raise InputError(f"reference expects first or best, got {reference!r}")
    results = [read(folder) for folder in _different(folders)]
    for other in results[1:]:
        _check_same(results[0], other)
    means = [result.log_evidence.mean() for result in results]
    base = results[0 if reference == "first" else int(np.argmax(means))]
    options = differing([result.config for result in results])
    runs = tuple(_compared(result, base, chosen) for result, chosen in zip(results, options, strict=True))
    facts = {each.name: base.facts[each.name] for each in fields(Comparison) if each.name in SAME}
    return Comparison(runs, base.name, **facts)


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
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
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
        return "compare runs on one test set, binarised once, in the same units"
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


def _compared(result: Result, base: Result, options: dict[str, str]) -> ComparedRun:
    difference, interval = paired_difference(result.log_evidence, base.log_evidence)
    return ComparedRun(
        result.name,
        options,
        result.parameters,
        float(result.elbo.mean()),
        float(result.log_evidence.mean()),
        _error(result.log_evidence),
        result.particles,
        result.temperatures,
        difference,
        interval,
        "reference" if result is base else _verdict(*interval),
    )


def _verdict(low: float, high: float) -> Verdict:
    if low <= 0 <= high:
        return "within noise"
    return "better" if low > 0 else "worse"
