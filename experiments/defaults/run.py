"""Priors, likelihoods, posteriors and a network as a newcomer gets them: by name, and nothing else.

    python experiments/defaults/run.py

Finished measurements are kept in OUT/parts.jsonl, those of what q(z|x) sees in OUT/seen.jsonl; a command that
was interrupted goes on with those that are not there.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.defaults import seen
from experiments.defaults.report import sections, summary
from experiments.records import Records, publish
from pyro_vae.cli import main as pyro_vae

HERE = Path(__file__).parent
#: What is named on the command line, by kind of part; all else is left to its default.
PARTS = {
    "prior": (
        "StandardNormalPrior",
        "LaplacePrior",
        "StudentTPrior",
        "MixturePrior",
        "VampPrior",
        "FlowPrior",
    ),
    "likelihood": (
        "CategoricalLikelihood",
        "DiscretizedLogisticLikelihood",
        "DiscretizedLogisticMixtureLikelihood",
        "PoissonLikelihood",
        "NegativeBinomialLikelihood",
        "ContinuousBernoulliLikelihood",
        "NormalLikelihood",
        "LaplaceLikelihood",
    ),
    "posterior": ("FullNormalPosterior", "LowRankNormalPosterior", "FlowPosterior"),
    "network": ("GatedMLP", "Convolutional"),
}
SEEDS = 5


def measure(part: str, name: str, runs: Path, *, smoke: bool) -> dict[str, Any]:
    """What the test data say of `pyro-vae train --PART NAME`, by seed."""
    folder = runs / name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    words = [f"--{part}", name, "--seeds", "2" if smoke else str(SEEDS), "--out", str(folder)]
    words += ["--steps", "2", "--particles", "5", "--num_data", "20"] if smoke else []
    if status := pyro_vae(["train", *words]):
        raise pv.InputError(f"{name} ended with status {status}")
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*/summary.json"))]
    return {
        "part": part,
        "log_evidence": [each["log_evidence"]["estimate"] for each in found],
        "elbo": [each["elbo"]["test"]["elbo"] for each in found],
        "kl": [each["elbo"]["test"]["kl"] for each in found],
        "seconds": [each["training"]["seconds"] for each in found],
        "protocol": found[0]["protocol"],
        "versions": found[0]["versions"],
    }


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    records = Records(options.out / "parts.jsonl", {"smoke": options.smoke})
    parts = {part: names[:1] for part, names in PARTS.items()} if options.smoke else PARTS
    for part, name in ((part, name) for part, names in parts.items() for name in names):
        if name not in records.found:
            records.add(name, measure(part, name, options.runs, smoke=options.smoke))
    sights = Records(options.out / "seen.jsonl", {"smoke": options.smoke})
    for name in seen.names(options.smoke):
        if name not in sights.found:
            sights.add(name, seen.measure(name, smoke=options.smoke))
    found = records.found, sights.found
    publish(options.out, sections(*found), summary(*found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
