"""Whether annealing until a gap hits known answers, and what it costs next to temperatures by hindsight.

    python experiments/until_gap/run.py

A finished pair of model and data is kept at once in OUT/pairs.jsonl; a command that was interrupted goes on
with those that are not there. Table and picture are made from that file alone.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.records import Records, publish
from experiments.until_gap.cases import CASES, SPREADS, Case
from experiments.until_gap.report import picture, sections, summary
from pyro_vae import plots
from pyro_vae.annealing.runner import gradients
from pyro_vae.randomness import own_randomness

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def pair(case: Case, spread: float, *, num_data: int, gap: float, most: int) -> dict[str, Any]:
    """What a search for the gap finds, and what temperatures chosen by hindsight would have."""
    with own_randomness(round(10 * spread), CPU):
        x = spread * case.draw(num_data)
    exact = float(case.evidence(x).mean())
    start = time.perf_counter()
    with own_randomness(0, CPU):
        result = pv.annealed_log_evidence(
            case.model, case.guide, x, start=case.start, until_gap=gap, num_temperatures=most
        )
    seconds = time.perf_counter() - start
    search = result.search
    assert search is not None and result.barrier is not None
    hindsight = _hindsight(case, x, exact, gap, most, 16 * num_data)
    return {
        "error": round(result.mean - exact, 4),
        "reached": search.reached,
        "attempts": search.attempts,
        "temperatures": result.num_temperatures,
        "barrier": round(float(result.barrier.mean()), 2),
        "gap": round(search.gap, 4),
        "change": round(search.change, 4),
        "gradients": search.gradients,
        "rounds": [[each.num_temperatures, each.counts, each.gradients] for each in search.rounds],
        "seconds": round(seconds, 1),
        "certified": result.certificate() <= exact,
        **hindsight,
    }


@contextmanager
def in_float64() -> Iterator[None]:
    """Float64 as the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _hindsight(
    case: Case, x: torch.Tensor, exact: float, gap: float, most: int, chains: int
) -> dict[str, Any]:
    """The fewest doubled temperatures of the default schedule with which each of three seeds hits."""
    errors: list[list[float]] = []
    size = 8
    while size < most and not (errors and len(errors[-1]) == 3):
        size *= 2
        errors.append([])
        for seed in range(3):
            with own_randomness(seed, CPU):
                found = pv.annealed_log_evidence(
                    case.model, case.guide, x, start=case.start, num_temperatures=size
                )
            if abs(found.mean - exact) > gap:
                break
            errors[-1].append(round(found.mean - exact, 4))
    return {
        "hindsight": size,
        "hindsight_gradients": gradients(size, 10) * chains,
        "hindsight_errors": errors[-1],
    }


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    size: dict[str, Any] = {"num_data": 600, "gap": 0.1, "most": 4096}
    if options.smoke:
        size = {"num_data": 10, "gap": 2.0, "most": 64}
    records = Records(options.out / "pairs.jsonl", size)
    pairs = [("linear, 2 in 5, noise 0.5, prior", 1.0)] if options.smoke else [*product(CASES, SPREADS)]
    for name, spread in pairs:
        if f"{name}, {spread}" not in records.found:
            with in_float64():
                found = pair(CASES[name](), spread, **size)
            records.add(f"{name}, {spread}", {"case": name, "spread": spread, **found})
    found, gap = records.found, size["gap"]
    plots.save(picture(found, gap), options.out / "cost.png")
    publish(options.out, sections(found, gap), summary(found, gap), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
