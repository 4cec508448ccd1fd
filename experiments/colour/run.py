"""The convolutional network against dense layers on coloured pictures, at equal time.

    python experiments/colour/run.py

Finished measurements are kept in OUT/models.jsonl; a command that was interrupted goes on with those that are
not there. Tables and curves are made from that file alone, the pictures with the model of the first seed.
"""

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


class Sizes(NamedTuple):
    """How much is drawn and trained."""

    train: int = 2000
    valid: int = 200
    test: int = 200
    side: int = 16
    seeds: tuple[int, ...] = (0, 1, 2)
    latent_dim: int = 16
    #: Of the convolutional networks; dense layers take several in the time of one.
    steps: int = 240
    dense_steps: int = 900


SMOKE = Sizes(100, 20, 20, 5, (0,), 2, 2, 2)


def data_of(sizes: Sizes) -> Dataset:
    """The pictures, in three splits."""
    x = draw(sizes.train + sizes.valid + sizes.test, sizes.side)
    first, last = sizes.train, sizes.train + sizes.valid
    return Dataset(x[:first], x[first:last], x[last:])


def measure(name: str, seed: int, data: Dataset, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Bits per dimension of one model, with the curve of those of the validation pictures over CPU time."""
    torch.manual_seed(seed)
    vae = pv.assemble(
        data,
        latent_dim=sizes.latent_dim,
        network=NETWORKS[name](),
        likelihood=pv.DiscretizedLogisticLikelihood,
    )
    curve: list[tuple[int, float, float]] = []
    start = time.process_time()

    def note(_: JointProgram, history: pv.History) -> None:
        last = history.epochs[-1]
        bits = pv.bits_per_dim(last.valid_elbo, data.data_shape)
        curve.append((last.step, round(time.process_time() - start, 2), round(bits, 4)))

    steps = sizes.dense_steps if name == "MLP" else sizes.steps
    history = pv.fit(vae, data, steps=steps, seed=seed, device="cpu", callbacks=[note])
    x = data.test.batch()
    torch.manual_seed(seed)
    bound = pv.elbo(vae.model, vae.guide, x, num_particles=10)
    if seed == sizes.seeds[0]:
        plots.save(pictures(vae, x[:ACROSS]), out / picture_of(name))
    return {
        "bits": round(pv.bits_per_dim(float(bound.elbo.mean()), data.data_shape), 4),
        "kl": round(float(bound.kl.mean()), 3),
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
    """The file of a network's pictures."""
    return f"{name.replace(', ', '_')}.png"


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    sizes = SMOKE if options.smoke else Sizes()
    data = data_of(sizes)
    about = {**sizes._asdict(), "hash": data.test.hash()}
    records = Records(options.out / "models.jsonl", {**about, "seeds": list(sizes.seeds)})
    for name in NETWORKS:
        for seed in sizes.seeds:
            if f"{name} {seed}" not in records.found:
                records.add(f"{name} {seed}", measure(name, seed, data, sizes, options.out))
                print(f"{name} {seed}: {records.found[f'{name} {seed}']['bits']} bits", flush=True)
    plots.save(curves(records.found), options.out / "curves.png")
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
