"""Local proposals against annealing over 10,000 temperatures, on trained models of several kinds.

    python experiments/local_proposals/run.py runs/mnist runs/counts
    python experiments/local_proposals/run.py runs/vamp --chains 2 --starts prior guide

A finished estimate is kept at once in OUT/NAME.jsonl, NAME being that of the run's folder; a command that was
interrupted goes on with those that are not there, and within one from its checkpoint. Tables and picture are
made from all files in OUT.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import run_script
from experiments.estimating import Work, estimate
from experiments.local_proposals.report import picture, sections, summary
from experiments.records import Records, finished, publish
from pyro_vae import plots
from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.reports import circumstances

HERE = Path(__file__).parent
#: C and T of the annealing, from the prior, and K of the local proposals.
CHAINS, TEMPERATURES, PARTICLES = 4, 10_000, 1000


def works(
    vae: Any, x: Any, chains: int, temperatures: int, particles: int, starts: list[str]
) -> dict[str, Work]:
    """What is to be estimated, by name, in the order of cost."""
    pair = vae.model, vae.guide, x

    def sampled(proposal: str, checkpoint: Path) -> Any:
        options: dict[str, Any] = {"proposal": proposal, "num_particles": particles}
        return pv.log_evidence(*pair, **options, progress=True, checkpoint=checkpoint)

    def annealed(start: Any, checkpoint: Path) -> Any:
        options: dict[str, Any] = {"num_chains": chains, "num_temperatures": temperatures, "start": start}
        return pv.annealed_log_evidence(*pair, **options, progress=True, checkpoint=checkpoint)

    return {
        "elbo": lambda _: pv.elbo(*pair, num_particles=100),
        "guide": partial(sampled, "guide"),
        "local": partial(sampled, "local"),
        **{f"annealed from the {start}": partial(annealed, start) for start in starts},
    }


def in_words(run: TrainedRun) -> str:
    """The parts of a trained model."""
    network = run.settings.network.class_path.rsplit(".")[-1]
    return f"{network}, {type(run.vae.prior).__name__}, {type(run.vae.likelihood).__name__}"


def measure(run: Path, options: argparse.Namespace) -> Records:
    """All estimates of one run."""
    opened = load(run, device="auto")
    data, vae = opened.data(), opened.vae
    part = data.test.subset(options.num_data)
    x = vae.place(part.batch())
    about = {"data": data.name, "protocol": data.protocol, "hash": part.hash(), "num_data": len(x)}
    about.update(chains=options.chains, temperatures=options.temperatures, particles=options.particles)
    records = Records(options.out / f"{run.name}.jsonl", about)
    todo = works(vae, x, options.chains, options.temperatures, options.particles, options.starts)
    for seed, (name, work) in enumerate(todo.items()):
        if name not in records.found:
            found = estimate(
                f"{run.name}, {name}", work, seed, vae.device, options.out / f"{run.name}-{name}.pt"
            )
            records.add(name, {**found, "seed": seed, "made": circumstances(vae), "model": in_words(opened)})
    return records


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trained runs")
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--chains", type=int, default=CHAINS)
    parser.add_argument("--temperatures", type=int, default=TEMPERATURES)
    parser.add_argument("--starts", nargs="+", default=["prior"], help="of the annealing: prior, guide")
    parser.add_argument("--particles", type=int, default=PARTICLES)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    for run in options.runs:
        measure(run, options)
    found = {path.stem: finished(path) for path in sorted(options.out.glob("*.jsonl"))}
    plots.save(picture(found), options.out / "estimates.png")
    publish(options.out, sections(found), summary(found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
