"""ELBO, importance sampling, annealing and bidirectional Monte Carlo of one trained model.

    python experiments/evaluation/run.py runs/mnist

A finished estimate is kept at once in OUT/estimates.jsonl; a command that was interrupted goes on with those
that are not there, and within one from its checkpoint. Tables and pictures are made from that file alone.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import run_script
from experiments.estimating import Work, estimate
from experiments.evaluation.report import picture, sections, summary
from experiments.records import Records, publish
from pyro_vae import plots
from pyro_vae.cli.loading import load
from pyro_vae.programs import Program
from pyro_vae.reports import circumstances

HERE = Path(__file__).parent
#: Temperatures of annealing, and particles of importance sampling at the most.
TEMPERATURES, PARTICLES = (100, 1000, 10_000), 100_000
SMOKE_TEMPERATURES, SMOKE_PARTICLES = (5, 20), 100


def works(
    model: Program, guide: Program, x: Tensor, temperatures: tuple[int, ...], particles: int
) -> dict[str, Work]:
    """What is to be estimated, by name."""
    found: dict[str, Work] = {
        "elbo": lambda _: pv.elbo(model, guide, x, num_particles=1000),
        "importance": partial(_importance, model, guide, x, particles),
    }
    for number in temperatures:
        found[f"annealed {number}"] = partial(_annealed, model, guide, x, number)
        found[f"bidirectional {number}"] = partial(_bidirectional, model, guide, x, number)
    return found


def _importance(
    model: Program, guide: Program, x: Tensor, particles: int, checkpoint: Path
) -> pv.LogEvidence:
    return pv.log_evidence(model, guide, x, num_particles=particles, progress=True, checkpoint=checkpoint)


def _annealed(
    model: Program, guide: Program, x: Tensor, number: int, checkpoint: Path
) -> pv.AnnealedEvidence:
    options: dict[str, Any] = {"progress": True, "checkpoint": checkpoint}
    return pv.annealed_log_evidence(model, guide, x, num_temperatures=number, **options)


def _bidirectional(
    model: Program, guide: Program, x: Tensor, number: int, checkpoint: Path
) -> pv.BidirectionalGap:
    options: dict[str, Any] = {"progress": True, "checkpoint": checkpoint}
    return pv.bidirectional_gap(model, guide, len(x), like=x, num_temperatures=number, **options)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--smoke", action="store_true", help="few draws and temperatures")
    parser.add_argument("--only", nargs="*", help="the names of some estimates")
    options = parser.parse_args(arguments)
    opened = load(options.run, device="auto")
    data, vae = opened.data(), opened.vae
    part = data.test.subset(options.num_data)
    x = vae.place(part.batch())
    about = {"data": data.name, "protocol": data.protocol, "hash": part.hash(), "num_data": len(x)}
    estimates = Records(options.out / "estimates.jsonl", about)
    temperatures = SMOKE_TEMPERATURES if options.smoke else TEMPERATURES
    todo = works(vae.model, vae.guide, x, temperatures, SMOKE_PARTICLES if options.smoke else PARTICLES)
    for number, (name, work) in enumerate(todo.items()):
        if name not in estimates.found and (not options.only or name in options.only):
            checkpoint = options.out / f"{name.replace(' ', '-')}.pt"
            found = estimate(name, work, number, vae.device, checkpoint)
            estimates.add(name, {**found, "seed": number, "made": circumstances(vae)})
    if len(estimates.found) == len(todo):
        report(estimates)
    return 0


def report(estimates: Records) -> None:
    """The tables and pictures of what is finished."""
    folder = estimates.path.parent
    plots.save(picture(estimates.found), folder / "bounds.png")
    publish(folder, sections(estimates.found), summary(estimates.found), HERE / "README.md")


if __name__ == "__main__":
    run_script(main)
