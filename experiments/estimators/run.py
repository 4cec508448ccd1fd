"""Estimators of log p(x) on ten posteriors with reference values: error against gradients and seconds.

    python experiments/estimators/run.py

A finished estimate is kept at once in OUT/estimates.jsonl; a command that was interrupted goes on with those
that are not there. Tables and picture are made from that file alone.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from experiments.command import options_of, run_script
from experiments.estimators.estimators import ESTIMATORS, Estimator
from experiments.estimators.figures import picture
from experiments.estimators.posteriors import POSTERIORS, Posterior
from experiments.estimators.report import sections, summary
from experiments.estimators.setting import SMOKE, Options
from experiments.records import Records, publish
from pyro_vae import plots
from pyro_vae.randomness import own_randomness

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    setting = SMOKE if options.smoke else Options()
    about = {
        name: list(each) if isinstance(each, tuple) else each for name, each in setting._asdict().items()
    }
    records = Records(options.out / "estimates.jsonl", about)
    for name, made in POSTERIORS.items():
        todo = [each for each in _names(name, setting) if each not in records.found]
        posterior = made.make(setting, options.runs) if todo else None
        for each in todo:
            assert posterior is not None
            records.add(each, measured(posterior, each, setting))
            print(f"{each}: {records.found[each]['seconds']} s", flush=True)
    plots.save(picture(records.found), options.out / "errors.png")
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


def _names(posterior: str, setting: Options) -> list[str]:
    """Of the records of a posterior: its reference, and each estimator with each of its budgets."""
    found = [f"{name} {num}" for name, each in ESTIMATORS.items() for num in each.budgets(setting)]
    return [f"{posterior} {each}" for each in ("reference", *found)]


def measured(posterior: Posterior, name: str, setting: Options) -> dict[str, Any]:
    """One record; seconds are of the CPU."""
    what = name.split()[1:]
    start = time.process_time()
    with own_randomness(0, torch.device("cpu")):
        if what == ["reference"]:
            found = {**posterior.reference()._asdict(), "torch": torch.__version__}
        else:
            found = estimated(posterior, ESTIMATORS[what[0]], int(what[1]), setting)
    return {**found, "seconds": round(time.process_time() - start, 2)}


def estimated(posterior: Posterior, estimator: Estimator, num: int, setting: Options) -> dict[str, Any]:
    """All data several times, each time with draws of its own: estimates (R, B), and gradients."""
    data = posterior.data.repeat(setting.repetitions)
    found = estimator.run(posterior, data, num, setting)
    rows = found.estimate.reshape(setting.repetitions, -1).tolist()
    return {
        "estimates": [[round(each, 5) for each in row] for row in rows],
        "gradients": round(found.gradients),
    }


if __name__ == "__main__":
    run_script(main)
