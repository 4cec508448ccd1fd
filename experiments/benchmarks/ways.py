"""The time of log p(x) for programs that take an axis of draws, and for the same ones that do not.

    python experiments/benchmarks/ways.py

A program that counts axes from the left, reshapes, or asserts its shapes is run on repeated data: right, and
slower. Here the same VAE is made such a program by an assertion in the model, in the guide, or in both. All
run interleaved in one process: A B C A B C …
"""

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.benchmarks.annealing import Work, race
from experiments.benchmarks.results import circumstances
from experiments.keras_conv.network import KerasConvolutional
from experiments.markdown import markdown
from experiments.records import renew
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
NETWORKS: dict[str, pv.MLP | pv.Convolutional] = {
    "MLP 784-400-20": pv.MLP((400,), nn.Softplus),
    "convolutional 28×28": KerasConvolutional((32, 64), activation=nn.ReLU),
}
#: Data, and draws of each.
SIZE, SMOKE_SIZE = (20, 500), (3, 20)
FASTEST = "an axis of draws"

Program = Callable[[Tensor], object]


def asserting(program: Program, ndim: int) -> Program:
    """The same, which refuses a latent with an axis more than it was written for."""

    def run(x: Tensor) -> object:
        z = program(x)
        assert isinstance(z, Tensor) and z.ndim == ndim
        return z

    return run


def contenders(network: pv.MLP | pv.Convolutional, num_data: int, num_particles: int) -> dict[str, Work]:
    """What is timed, by name."""
    torch.manual_seed(0)
    shape = (1, 28, 28)
    vae = pv.VAE(
        pv.StandardNormalPrior(20),
        pv.BernoulliLikelihood(network.decoder(20, shape), shape),
        pv.DiagonalNormalPosterior(network.encoder(shape), 20),
    ).eval()
    x = torch.randint(2, (num_data, *shape)).float()
    model, guide = asserting(_codes_of(vae), 2), asserting(vae.guide, 2)
    pairs: dict[str, tuple[Program, Program]] = {
        FASTEST: (vae.model, vae.guide),
        "model on repeated data": (model, vae.guide),
        "model and guide on repeated data": (model, guide),
    }
    return {name: partial(_measured, *pair, x, num_particles) for name, pair in pairs.items()}


def _codes_of(vae: pv.VAE) -> Program:
    """The model, which gives its latent."""

    def run(x: Tensor) -> Tensor:
        vae.register(vae.prior, vae.likelihood)
        with pyro.plate("data", len(x), dim=-1):
            z: Tensor = pyro.sample("z", vae.prior())
            pyro.sample("x", vae.likelihood(z), obs=x)
        return z

    return run


def _measured(model: Program, guide: Program, x: Tensor, num_particles: int) -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*run on repeated data")
        return pv.log_evidence(model, guide, x, num_particles=num_particles, compile="off")


def table(cases: dict[str, dict[str, list[float]]]) -> str:
    """Ratios of medians to the first row, with its milliseconds."""
    medians = {
        case: {name: statistics.median(each) for name, each in rows.items()} for case, rows in cases.items()
    }
    rows = [["log_evidence, time of a call", *cases]]
    for name in next(iter(medians.values())):
        cells = [f"{found[name] / found[FASTEST]:.2f}" for found in medians.values()]
        if name == FASTEST:
            cells = [f"1.00 ({found[FASTEST]:.0f} ms)" for found in medians.values()]
        rows.append([name, *cells])
    return markdown(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu")
    parser.add_argument("--smoke", action="store_true", help="few data and draws")
    options = parser.parse_args(arguments)
    size = SMOKE_SIZE if options.smoke else SIZE
    found = {
        name: race(contenders(network, *size), options.rounds, per_work=1)
        for name, network in NETWORKS.items()
    }
    about = circumstances("cpu", None, "random bits")
    content = {"about": about, "num_data": size[0], "num_particles": size[1], "cases": found}
    write(options.out / "ways.json", json.dumps(content).encode())
    print(table(found))
    renew(HERE / "README.md", {"ways": table(found)}, options.out, HERE / "results" / "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
