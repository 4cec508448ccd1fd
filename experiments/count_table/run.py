"""Likelihoods of a count table, with and without exposure, held against the program it comes from.

    python experiments/count_table/run.py

Finished measurements are kept in OUT/models.jsonl; a command that was interrupted goes on with those that are
not there. Tables and picture are made from that file alone.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.command import options_of, run_script
from experiments.count_table.figures import picture
from experiments.count_table.measuring import of_model, of_truth
from experiments.count_table.report import SEEDS, sections, summary
from experiments.count_table.setting import MODELS, SMOKE, Options
from experiments.count_table.truth import data_of, truth_of
from experiments.records import Records, publish
from pyro_vae import plots

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    setting = SMOKE if options.smoke else Options()
    truth = truth_of(setting.genes)
    data = data_of(truth, setting.sizes)
    about = {
        name: list(value) if isinstance(value, tuple) else value for name, value in setting._asdict().items()
    }
    records = Records(options.out / "models.jsonl", {"hash": data.test.hash(), **about})
    works: dict[str, Callable[[], dict[str, Any]]] = {"truth": partial(of_truth, truth, data)}
    for seed in SEEDS:
        works |= {f"{name} {seed}": partial(of_model, name, data, setting, seed) for name in MODELS}
    for name, work in works.items():
        if name not in records.found:
            start = time.process_time()
            found = work()
            records.add(name, {**found, "seconds": round(time.process_time() - start, 1)})
            print(f"{name}: {records.found[name]['seconds']} s of CPU", flush=True)
    plots.save(picture(records.found), options.out / "short.png")
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
