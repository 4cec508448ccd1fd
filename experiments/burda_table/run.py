"""Table 1 of Burda, Grosse & Salakhutdinov (2016) on MNIST: VAE and IWAE, one and two stochastic layers.

    python experiments/burda_table/run.py --budget small
    python experiments/burda_table/run.py --budget paper --device cuda --minutes 9

Models are trained from all seeds at once, and kept in RUNS after each epoch; finished measurements are in
OUT/models.jsonl. The same command goes on with what is missing; with --minutes it stops by itself.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.burda_table.report import picture, sections, summary
from experiments.command import run_script
from experiments.records import Records, publish
from pyro_vae import plots
from pyro_vae.data import Dataset, Dynamic, Levels
from pyro_vae.diagnosis import latent_units
from pyro_vae.randomness import own_randomness
from pyro_vae.reports import circumstances
from pyro_vae.training import Fitted, History
from pyro_vae.vae import JointProgram

HERE = Path(__file__).parent


class Sizes(NamedTuple):
    """How much is trained and measured."""

    train: int
    valid: int
    test: int
    #: Stage i of the schedule has 3^i epochs at a learning rate of 1e-3 · 10^(−i/7).
    stages: int
    particles: tuple[int, ...]
    seeds: tuple[int, ...]
    #: Importance samples of log p(x), data that are annealed, and temperatures of these.
    samples: int
    annealed: int
    temperatures: int
    #: Whether programs are traced into graphs, which pays for all but a few steps.
    compile: Literal["flat", "off"] = "flat"

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(self.milestones[-1:]) + 3 ** (self.stages - 1)

    @property
    def milestones(self) -> list[int]:
        """Epochs after which the learning rate falls."""
        return [sum(3**i for i in range(stage)) for stage in range(1, self.stages)]


BUDGETS = {
    # the paper has 60,000 training images; 10,000 of them are ours for validation, which decides nothing here
    "paper": Sizes(50_000, 10_000, 10_000, 8, (1, 5, 50), (0, 1, 2), 5000, 200, 1000),
    "small": Sizes(5000, 200, 200, 3, (1, 5), (0, 1), 5000, 30, 200),
    "smoke": Sizes(40, 20, 10, 2, (1, 2), (0, 1), 10, 2, 3, "off"),
}


class Cell(NamedTuple):
    """One number of the table."""

    layers: int
    bound: str
    particles: int

    @property
    def name(self) -> str:
        """As "2 layers IWAE 5"."""
        return f"{self.layers} {'layer' if self.layers == 1 else 'layers'} {self.bound} {self.particles}"


def cells(particles: tuple[int, ...]) -> list[Cell]:
    """Those of the table, the cheap ones first; with one particle both bounds are the same."""
    found = [Cell(layers, bound, k) for k in particles for layers in (1, 2) for bound in ("VAE", "IWAE")]
    return [cell for cell in found if (cell.bound, cell.particles) != ("IWAE", 1)]


class PieceEnded(KeyboardInterrupt):
    """The minutes of this piece are over."""


class Experiment:
    """What is trained and measured."""

    def __init__(
        self, runs: Path, sizes: Sizes, kind: Callable[..., Dataset], device: str, end: float
    ) -> None:
        self.runs, self.sizes, self.device, self.end = runs, sizes, device, end
        whole = kind(form=Levels())  # of which validation and test data are not yet binarised
        parts = [getattr(whole, name).subset(getattr(sizes, name)) for name in ("train", "valid", "test")]
        train, valid, test = (part.values for part in parts)
        self.data = Dataset(train, valid, test, form=Dynamic(), maximum=whole.maximum)
        plain = {
            name: list(each) if isinstance(each, tuple) else each for name, each in sizes._asdict().items()
        }
        self.about = {
            "data": whole.name,
            "protocol": self.data.protocol,
            "hash": self.data.test.hash(),
            "sizes": {
                name: each for name, each in plain.items() if name not in ("seeds", "particles", "compile")
            },
        }

    def make(self, layers: int) -> JointProgram:
        """The networks of the paper: two tanh layers of 200, and of 100 between two stochastic ones."""
        network, upper = pv.MLP((200, 200), nn.Tanh), pv.MLP((100, 100), nn.Tanh)
        if layers == 1:
            return pv.assemble(self.data, latent_dim=50, network=network)
        return pv.assemble(
            self.data,
            program=pv.HierarchicalVAE,
            latent_dim=(100, 50),
            network=network,
            upper_network=upper,
        )

    def train(self, cell: Cell) -> list[Fitted]:
        """The models of one cell from all seeds, as one batched program."""
        return pv.fit_many(
            partial(self.make, cell.layers),
            self.data,
            seeds=self.sizes.seeds,
            epochs=self.sizes.epochs,
            batch_size=20,
            optimiser=partial(torch.optim.Adam, lr=1e-3, eps=1e-4, fused=True),
            schedule=partial(MultiStepLR, milestones=self.sizes.milestones, gamma=10 ** (-1 / 7)),
            objective=objective_of(cell),
            num_particles=cell.particles,
            keep="last",
            compile=self.sizes.compile,
            device=self.device,
            checkpoints=self.runs / cell.name.replace(" ", "-"),
            resume=True,
            callbacks=[self.end_of_piece],
        )

    def end_of_piece(self, program: object, history: History) -> bool:
        """Leave the training as it is, to go on another time."""
        if time.monotonic() > self.end:
            raise PieceEnded
        return False

    def measure(self, program: JointProgram, seed: int) -> dict[str, Any]:
        """Log p(x) by importance sampling as in the paper, annealed on the first data, active units."""
        sizes, x = self.sizes, self.data.test.batch().to(program.device)
        programs = program.eval().model, program.guide
        with own_randomness(seed, program.device):
            found = pv.log_evidence(*programs, x, num_particles=sizes.samples, compile=sizes.compile)
            annealed = pv.annealed_log_evidence(
                *programs,
                x[: sizes.annealed],
                num_temperatures=sizes.temperatures,
                num_chains=4,
                compile=sizes.compile,
            )
            bound = pv.elbo(*programs, x, num_particles=10)
            units = latent_units(*programs, x)
        return {
            "log_px": found.estimate.tolist(),
            "unreliable": float((found.pareto_k > 0.7).double().mean()),
            "annealed": annealed.estimate.tolist(),
            "elbo": float(bound.elbo.mean()),
            "active": [units.names[place].split("[")[0] for place in units.active.nonzero()[:, 0].tolist()],
        }

    def work(self, cell: Cell) -> dict[str, Any]:
        """All of one cell."""
        start = time.perf_counter()
        members = self.train(cell)
        seconds = sum(epoch.seconds for epoch in members[0].history.epochs)
        found = {f"seed {each.seed}": rounded(self.measure(each.program, each.seed)) for each in members}
        return {
            "layers": cell.layers,
            "bound": cell.bound,
            "particles": cell.particles,
            "seeds": found,
            "training_seconds": round(seconds, 1),
            "seconds": round(time.perf_counter() - start, 1),
            "steps": members[0].history.epochs[-1].step,
            "made": circumstances(members[0].program),
        }


def objective_of(cell: Cell) -> Callable[..., ELBO]:
    """The bound that is maximised; the gradient is the paper's own."""
    return Trace_ELBO if cell.bound == "VAE" else partial(pv.ImportanceWeightedELBO, gradient="plain")


def rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    """Four digits after the point."""
    return {
        name: [round(each, 4) if isinstance(each, float) else each for each in value]
        if isinstance(value, list)
        else round(value, 4)
        for name, value in numbers.items()
    }


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    budget = "smoke" if options.smoke else options.budget
    runs = options.runs or Path("runs") / f"burda_table-{budget}"
    places = {"smoke": runs / "results", "small": HERE / "results", "paper": HERE / "results" / "paper"}
    out = options.out or places[budget]
    sizes, kind = BUDGETS[budget], pv.Digits if options.smoke else pv.MNIST
    end = time.monotonic() + 60 * options.minutes
    experiment = Experiment(runs, sizes, kind, options.device, end)
    records = Records(out / "models.jsonl", experiment.about)
    for cell in cells(sizes.particles):
        if cell.name not in records.found:
            if time.monotonic() > end:
                raise PieceEnded
            records.add(cell.name, experiment.work(cell))
            print(f"{cell.name}: {records.found[cell.name]['seconds']:.0f} s", flush=True)
    plots.save(picture(records.found), out / "table.png")
    publish(out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", choices=("paper", "small"), default="small", help="how much is trained")
    parser.add_argument("--smoke", action="store_true", help="two stages on the embedded digits, a few draws")
    parser.add_argument("--device", default="auto", help="where to train")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which this piece ends")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--runs", type=Path, help="folder of trained models")
    return parser


if __name__ == "__main__":
    run_script(main)
