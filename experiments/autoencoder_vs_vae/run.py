"""A plain autoencoder and a VAE of the same networks, with a code of two dimensions.

    python experiments/autoencoder_vs_vae/run.py

Trained runs are kept in RUNS, finished measurements in OUT/models.jsonl; a command that was interrupted goes
on with those that are not there. Tables are made from that file alone.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.autoencoder_vs_vae import figures
from experiments.autoencoder_vs_vae.judge import Judge, labels_of
from experiments.autoencoder_vs_vae.measuring import (
    Model,
    Setting,
    as_vae,
    encode,
    evidence,
    measure,
    of_codes,
    pairs_of_classes,
    sampled_evidence,
)
from experiments.autoencoder_vs_vae.report import OPTIONS, of_kind, sections, summary
from experiments.command import options_of, run_script
from experiments.records import Records, config_hash, publish
from experiments.training import summary_of, trained
from pyro_vae import plots
from pyro_vae.randomness import own_randomness
from pyro_vae.reports import circumstances
from pyro_vae.storage.runs import Run

HERE = Path(__file__).parent


class Experiment:
    """What is trained and measured, and where it is kept."""

    def __init__(self, runs: Path, *, smoke: bool) -> None:
        self.runs, self.smoke = runs, smoke
        self.seeds = (0,) if smoke else (0, 1)
        self.num_draws, self.num_pairs = (100, 10) if smoke else (10_000, 1000)
        self.num_grid, self.points = (3, 21) if smoke else (500, 801)
        kind = pv.Digits if smoke else pv.MNIST
        self.data, self.sharp = kind(), kind(form=pv.Threshold())
        self._setting: Setting | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What all is measured on."""
        data = self.data
        facts = {"data": data.name, "protocol": data.protocol, "hash": data.test.hash()}
        return {**facts, "draws": self.num_draws, "pairs": self.num_pairs, "points": self.points}

    @property
    def setting(self) -> Setting:
        """With a trained classifier, once it is asked for."""
        if self._setting is None:
            judge = Judge.of(self.data, self.sharp, epochs=1 if self.smoke else 8)
            pairs = pairs_of_classes(labels_of(self.data.test), self.num_pairs)
            self._setting = Setting(self.data, judge, self.num_draws, pairs)
        return self._setting

    def model(self, kind: str, seed: int) -> tuple[Run, Model]:
        """One trained model."""
        config = ["--config", str(HERE / "config.yaml"), *OPTIONS[kind], "--seed", str(seed)]
        run, _, vae = trained(self.runs / f"{kind.lower()}-{seed}", *config, smoke=self.smoke)
        assert isinstance(vae, pv.VAE | pv.Autoencoder)
        return run, vae

    def works(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What is to be measured, by name."""
        models = {
            f"{kind} {seed}": partial(self.of_model, kind, seed) for seed in self.seeds for kind in OPTIONS
        }
        return {"images": self.of_images, **models}

    def of_images(self) -> dict[str, Any]:
        """The classifier on test images, and draws of N(0, I) as if they were codes."""
        start, data, labels = time.perf_counter(), self.data, labels_of(self.data.test)
        found = self.setting.judge.of_pictures(data.test.batch(), self.sharp.test.batch(), labels)
        normal = of_codes(torch.randn(len(data.test), 2))
        return {"test": found, "normal": normal, "seconds": time.perf_counter() - start}

    def of_model(self, kind: str, seed: int) -> dict[str, Any]:
        """All numbers of one model."""
        run, vae = self.model(kind, seed)
        start = time.perf_counter()
        found = measure(vae, self.setting)
        generative = vae if isinstance(vae, pv.VAE) else as_vae(vae, encode(vae, self.data).train)
        found["evidence"] = evidence(generative, self.data.test, num=self.num_grid, points=self.points)
        if generative is vae:
            found["evidence"] |= sampled_evidence(run, np.array(found["evidence"]["each"]))
        training = summary_of(run)["training"]
        seconds = time.perf_counter() - start
        return {**found, "training": training, "made": circumstances(vae), "seconds": seconds}

    def pictures(self) -> dict[str, Any]:
        """The figures of the models of the first seed."""
        return figures.pictures({kind: self.model(kind, 0)[1] for kind in OPTIONS}, self.setting)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    experiment = Experiment(options.runs, smoke=options.smoke)
    about = {**experiment.about, "config": config_hash(HERE / "config.yaml")}
    records = Records(options.out / "models.jsonl", about)
    works = experiment.works()
    new = works.keys() - records.found.keys()
    for number, (name, work) in enumerate(works.items()):
        if name not in records.found:
            with own_randomness(number, torch.device("cpu")):
                records.add(name, rounded(work()))
            print(f"{name}: {records.found[name]['seconds']:.0f} s", flush=True)
    report(records.found, options.out)
    drawn = set(figures.FILES) - {"lines.png"}
    if new or not all((options.out / name).exists() for name in drawn):
        for name, figure in experiment.pictures().items():
            plots.save(figure, options.out / name)
    return 0


def rounded(value: Any) -> Any:
    """Numbers with six digits after the point, or three where they are many."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [round(each, 3) for each in value] if len(value) > 20 else [rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def report(found: dict[str, dict[str, Any]], folder: Path) -> None:
    """The tables, the summary and the picture that need no model."""
    curves = {kind: [record["line"] for record in of_kind(found, kind)] for kind in OPTIONS}
    plots.save(figures.along_lines(curves, found["images"]["test"]["confident"]), folder / "lines.png")
    publish(folder, sections(found), summary(found), HERE / "README.md")


if __name__ == "__main__":
    run_script(main)
