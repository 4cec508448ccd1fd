"""How often tests of q(z|x) find a mode or a correlation that is missing, and reject a q that is exact.

    python experiments/calibration_tests/run.py

A finished trial is kept at once in OUT/trials.jsonl; a command that was interrupted goes on with those that
are not there. The table is made from that file alone.
"""

import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import pyro_vae as pv
from experiments.calibration_tests.plants import PLANTS, Plant
from experiments.calibration_tests.report import passing, sections, summary
from experiments.command import options_of, run_script
from experiments.records import Records, publish
from pyro_vae.diagnosis import calibrate_and_cover
from pyro_vae.randomness import own_randomness

HERE = Path(__file__).parent


def trial(plant: Plant, seed: int, *, num_data: int, num_draws: int) -> dict[str, Any]:
    """The p-values of all tests, on data of this seed."""
    with own_randomness(seed, torch.device("cpu")):
        observed = plant.draw(1)
    start = time.perf_counter()
    margins, joint = calibrate_and_cover(
        plant.model, plant.guide, observed, num_data=num_data, num_draws=num_draws, seed=seed, progress=False
    )
    between = time.perf_counter()
    local = pv.local_test(plant.model, plant.guide, observed, num_data=num_data, seed=seed)
    return {
        "margins": _rounded(margins.p_value[:-1]),
        "log p(x, z)": _rounded(margins.p_value[-1:]),
        "tarp": _rounded(joint.p_value),
        "local_test": _rounded(local.p_value),
        "seconds": [round(between - start, 2), round(time.perf_counter() - between, 2)],
    }


def _rounded(p_values: torch.Tensor) -> list[float]:
    return [float(f"{value:.3g}") for value in p_values.tolist()]


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    size: dict[str, int] = (
        {"num_data": 100, "num_draws": 19} if options.smoke else {"num_data": 1000, "num_draws": 99}
    )
    records = Records(options.out / "trials.jsonl", size)
    for name, plant in PLANTS.items():
        # until the margins pass in so many
        for seed in count():
            if passing(records.found, name, ("margins",))[1] == (2 if options.smoke else 100):
                break
            if f"{name}, {seed}" not in records.found:
                records.add(f"{name}, {seed}", {"plant": name, **trial(plant, seed, **size)})
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
