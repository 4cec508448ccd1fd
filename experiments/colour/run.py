"""The convolutional network against dense layers on coloured and on aligned pictures, at equal time.

    python experiments/colour/run.py

Finished measurements are kept in OUT/models.jsonl; a command that was interrupted goes on with those that are
not there. Tables and curves are made from that file alone, the pictures with the model of the first seed.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.colour.drawing import draw
from experiments.colour.report import curves, sections, summary
from experiments.command import options_of, run_script
from experiments.records import Records, publish
from pyro_vae import plots
from pyro_vae.data import Dataset
from pyro_vae.networks import Architecture
from pyro_vae.reports import circumstances
from pyro_vae.vae import JointProgram

HERE = Path(__file__).parent
NETWORKS: dict[str, Callable[[], Architecture]] = {
    "MLP": pv.MLP,
    "Convolutional": pv.Convolutional,
    "Convolutional, ReLU": partial(pv.Convolutional, activation=nn.ReLU),
}
#: Pictures in a row.
ACROSS = 12


class Task(NamedTuple):
    """Pictures, by what they are learned, and for how long."""

    data: Dataset
    likelihood: type[pv.Likelihood]
    latent_dim: int
    #: Of the convolutional networks; dense layers take several in the time of one.
    steps: int
    dense_steps: int
    seeds: tuple[int, ...] = (0, 1, 2)
    networks: tuple[str, ...] = ("MLP", "Convolutional")

    def about(self) -> dict[str, Any]:
        """What its numbers depend on."""
        sizes = [len(each) for each in (self.data.train, self.data.valid, self.data.test)]
        return {
            "sizes": sizes,
            "hash": self.data.test.hash(),
            "likelihood": self.likelihood.__name__,
            "latent_dim": self.latent_dim,
            "steps": [self.steps, self.dense_steps],
        }


def drawn(number: int, others: int, side: int) -> Dataset:
    """Coloured pictures, so many for training and others for validation and test."""
    x = draw(number + 2 * others, side)
    return Dataset(x[:number], x[number : number + others], x[number + others :])


def tasks_of(smoke: bool) -> dict[str, Task]:
    """Colour, and the aligned pictures whose files are there."""
    levels = pv.DiscretizedLogisticLikelihood
    if smoke:
        return {"colour": Task(drawn(100, 20, 5), levels, 2, 2, 2, (0,), tuple(NETWORKS))}
    tasks = {"colour": Task(drawn(2000, 200, 16), levels, 16, 1200, 2000, networks=tuple(NETWORKS))}
    if "PYRO_VAE_DATA" in os.environ:
        x = pv.StaticMNIST()
        sizes = ((x.train, 20_000), (x.valid, 1000), (x.test, 1000))
        part = Dataset(*(each.take(slice(0, size)).x.numpy() for each, size in sizes))
        tasks["MNIST"] = Task(part, pv.BernoulliLikelihood, 20, 1200, 5400)
        tasks["faces"] = Task(pv.FreyFaces(), levels, 10, 4500, 14_400)
    return tasks


def measure(name: str, seed: int, task: Task, picture: Path | None) -> dict[str, Any]:
    """The ELBO of one model, with the curve of that of the validation pictures over CPU time."""
    torch.manual_seed(seed)
    vae = pv.assemble(
        task.data, latent_dim=task.latent_dim, network=NETWORKS[name](), likelihood=task.likelihood
    )
    curve: list[tuple[int, float, float]] = []
    start = time.process_time()

    def note(_: JointProgram, history: pv.History) -> None:
        last = history.epochs[-1]
        curve.append((last.step, round(time.process_time() - start, 2), round(last.valid_elbo, 3)))

    steps = task.dense_steps if name == "MLP" else task.steps
    history = pv.fit(vae, task.data, steps=steps, seed=seed, device="cpu", callbacks=[note])
    x = task.data.test.batch()
    torch.manual_seed(seed)
    bound = pv.elbo(vae.model, vae.guide, x, num_particles=10)
    if picture is not None:
        plots.save(pictures(vae, x[:ACROSS]), picture)
    return {
        "elbo": round(float(bound.elbo.mean()), 3),
        "kl": round(float(bound.kl.mean()), 3),
        "dim": math.prod(task.data.data_shape),
        "best_epoch": history.best_epoch,
        "epochs": len(history.epochs),
        "curve": curve,
        "made": circumstances(vae),
    }


@torch.no_grad()
def pictures(vae: pv.VAE, x: Tensor) -> Figure:
    """Originals, their reconstructions, and means of p(x|z) at z drawn from p(z)."""
    torch.manual_seed(0)
    rows = {
        "originals": x,
        "reconstructions": vae.likelihood(vae.posterior(x).mean).mean,
        "samples": vae.likelihood(vae.prior().sample(x.shape[:1])).mean,
    }
    return plots.strips({name: each.clamp(0, 1) for name, each in rows.items()})


def picture_of(name: str) -> str:
    """The file of a network's pictures in colour."""
    return f"{name.replace(', ', '_')}.png"


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    tasks = tasks_of(options.smoke)
    records = Records(options.out / "models.jsonl", {})
    for (what, task), name in ((each, name) for each in tasks.items() for name in each[1].networks):
        for seed in task.seeds:
            key = f"{what}, {name} {seed}"
            drawn = options.out / picture_of(name) if what == "colour" and seed == task.seeds[0] else None
            if key not in records.found:
                records.add(key, {"task": task.about(), **measure(name, seed, task, drawn)})
                print(f"{key}: {records.found[key]['elbo']} nats", flush=True)
            elif records.found[key]["task"] != task.about():
                raise pv.InputError(f"{records.path} has {key} of {records.found[key]['task']}: choose --out")
    found = records.found
    plots.save(curves(found), options.out / "curves.png")
    publish(options.out, sections(found), summary(found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
