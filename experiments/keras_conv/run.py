"""The convolutional VAE of the Keras examples on MNIST and, where its files are present, Fashion-MNIST.

    python experiments/keras_conv/run.py

Trains what is missing, integrates log p(x) of 100 test images over a grid, draws the pictures, and renews
README's table.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.grid import grid_log_evidence
from experiments.markdown import markdown
from experiments.records import Records, config_hash, publish
from experiments.training import TRUST, summary_of, trained
from pyro_vae.cli import main as pyro_vae
from pyro_vae.data import Dataset
from pyro_vae.reports import circumstances
from pyro_vae.storage.files import write
from pyro_vae.storage.runs import Run
from pyro_vae.vae import VAE

HERE = Path(__file__).parent
#: The verbs that draw, and what they draw.
PICTURES = {"traverse": "plane", "scatter": "scatter", "sample": "samples"}


def measure(run: Run, data: Dataset, vae: VAE, grey: Tensor, num_data: int, points: int) -> dict[str, Any]:
    """What the run found, and log p(x) of its first test data over a grid."""
    summary = summary_of(run)
    with np.load(run.folder / "per_datum.npz") as kept:
        measured = len(kept["elbo"])
        bound, sampled = (torch.from_numpy(kept[name])[:num_data] for name in ("elbo", "log_evidence"))
    x = vae.place(data.test.subset(measured).batch()[:num_data])  # the first of those in per_datum.npz
    start = time.perf_counter()
    grid = grid_log_evidence(vae, x, points=points, progress=sys.stderr.isatty())
    return {
        "parameters": {name: _count(getattr(vae, name)) for name in ("posterior", "likelihood")},
        "elbo": summary["elbo"]["test"]["elbo"],
        "kl": summary["elbo"]["test"]["kl"],
        "log_evidence": summary["log_evidence"],
        "pareto_k": summary["pareto_k"],
        "grey_loss": grey_loss(vae, grey),
        "dead_units": dead_units(vae, vae.place(data.test.batch())),
        "training": summary["training"],
        "grid": {
            "num_data": len(x),
            "points": points,
            "estimate": float(grid.estimate.mean()),
            "coarse": float((grid.estimate - grid.coarse).abs().max()),
            "elbo": float(bound.mean()),
            "sampled": float(sampled.mean()),
            "sampled_largest": float((sampled - grid.estimate).abs().max()),
            "seconds": round(time.perf_counter() - start, 1),
        },
        "made": circumstances(vae),
    }


@torch.no_grad()
def grey_loss(vae: VAE, grey: Tensor) -> float:
    """The source's loss: cross-entropy of grey pixels at one draw z ~ q(z|x), plus KL, in nats per image.

    The cross-entropy of a grey x is the mean of −log p(b|z) over binarisations b ~ Bernoulli(x), so that the
    whole bounds the mean of −log p(b) from above, by a q(z) that saw x and not b.
    """
    torch.manual_seed(0)
    total = 0.0
    for x in grey.split(1000):
        qz = vae.posterior(x)
        logits = vae.likelihood(qz.rsample()).base_dist.logits
        error = binary_cross_entropy_with_logits(logits, x, reduction="sum")
        total += float(error + kl_divergence(qz, vae.prior().expand(qz.batch_shape)).sum())
    return total / len(grey)


@torch.no_grad()
def dead_units(vae: VAE, x: Tensor) -> int:
    """How many features of the encoder are 0 for all of x, so that q(z|x) has the others only."""
    alive = torch.stack([vae.posterior.encoder(part).ne(0).any(0) for part in x.split(1000)])
    return int((~alive.any(0)).sum())


def _count(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def draw(run: Run, name: str, out: Path) -> None:
    """The run's pictures, among the results."""
    for (verb, picture), path in zip(PICTURES.items(), pictures(name, out), strict=True):
        if status := pyro_vae([verb, str(run.folder), *TRUST]):
            raise SystemExit(status)
        write(path, (run.figures / f"{picture}.png").read_bytes())


def pictures(name: str, out: Path) -> list[Path]:
    """Where they are kept."""
    return [out / f"{name}_{picture}.png" for picture in PICTURES.values()]


def summary(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of the answer."""
    sampled = found["log_evidence"]
    return {
        **found["parameters"],
        "log_evidence": sampled["estimate"],
        "standard_error": sampled["standard_error"],
        "num_data": sampled["num_data"],
        "integrated_more": found["grid"]["estimate"] - found["grid"]["sampled"],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """A column for each data set."""
    rows = [("", *found)]
    for title, text in (
        ("parameters of encoder, decoder", lambda each: _counts(each["parameters"])),
        ("test ELBO", lambda each: f"{each['elbo']:.2f}"),
        ("KL", lambda each: f"{each['kl']:.2f}"),
        ("log p(x), importance sampling", lambda each: _sampled(each["log_evidence"])),
        ("test data with k̂ above 0.7", lambda each: f"{each['pareto_k']['above']}"),
        ("log p(x) of the first 100, integrated", lambda each: f"{each['grid']['estimate']:.2f}"),
        ("the same 100 by importance sampling", lambda each: f"{each['grid']['sampled']:.2f}"),
        ("their ELBO", lambda each: f"{each['grid']['elbo']:.2f}"),
        ("a grid half as fine differs on one image by up to", lambda each: f"{each['grid']['coarse']:.3f}"),
        ("encoder's 16 last features that are 0 for all test images", lambda each: f"{each['dead_units']}"),
        ("the source's loss on grey test images", lambda each: f"{each['grey_loss']:.2f}"),
        ("time of training", lambda each: f"{each['training']['seconds'] / 60:.0f} min"),
    ):
        rows.append((title, *(text(each).replace("-", "−") for each in found.values())))
    return markdown(rows)


def _counts(parameters: dict[str, int]) -> str:
    return f"{parameters['posterior']:,}, {parameters['likelihood']:,}"


def _sampled(found: dict[str, Any]) -> str:
    return f"{found['estimate']:.2f} ± {found['standard_error']:.2f} ({found['num_data']} data)"


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    num_data, points = (5, 41) if options.smoke else (100, 801)
    records = Records(
        options.out / "results.jsonl",
        {"num_data": num_data, "points": points, "config": config_hash(HERE / "config.yaml")},
    )
    for name in ("Digits",) if options.smoke else _present():
        words = ["--config", str(HERE / "config.yaml"), "--data", name, "--data.form", "Dynamic"]
        run, data, vae = trained(options.runs / name, *words, smoke=options.smoke)
        assert isinstance(vae, VAE)
        if name not in records.found or not all(path.exists() for path in pictures(name, options.out)):
            draw(run, name, options.out)
        if name not in records.found:
            grey = vae.place(getattr(pv, data.name)(form=pv.Levels()).test.batch())
            records.add(name, measure(run, data, vae, grey, num_data, points))
    found = records.found
    publish(options.out, {"results": table(found)}, summary(next(iter(found.values()))), HERE / "README.md")
    return 0


def _present() -> list[str]:
    """Fashion-MNIST only where its files are there."""
    found = ["MNIST"]
    try:
        pv.FashionMNIST()
        found.append("FashionMNIST")
    except pv.InputError:
        print("without Fashion-MNIST, whose files are not there", file=sys.stderr)
    return found


if __name__ == "__main__":
    run_script(main)
