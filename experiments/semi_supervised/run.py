"""A VAE that sees few labels, against the same classifier trained on the labelled data alone.

    python experiments/semi_supervised/run.py

Finished measurements are kept in OUT/models.jsonl, models in RUNS; a command that was interrupted goes on
with those that are not there. Tables and picture are made from that file alone.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.records import Records, publish
from experiments.semi_supervised.report import picture, sections, summary
from pyro_vae import plots
from pyro_vae.data import Dataset, Dynamic, Levels
from pyro_vae.randomness import own_randomness
from pyro_vae.reports import circumstances

HERE = Path(__file__).parent


class Sizes(NamedTuple):
    """How much is trained and measured."""

    train: int = 10_000
    valid: int = 1000
    test: int = 1000
    labels: tuple[int, ...] = (100, 1000)
    seeds: tuple[int, ...] = (0, 1)
    epochs: int = 20
    alone_steps: int = 500
    hidden_dim: int = 100
    latent_dim: int = 10
    particles: int = 10
    alpha: float = 5.0


SMOKE = Sizes(200, 20, 20, (20,), (0,), 1, 2, 8, 2, 3)


class Experiment:
    """What is trained and measured."""

    def __init__(self, runs: Path, sizes: Sizes, kind: type[Dataset]) -> None:
        self.runs, self.sizes = runs, sizes
        raw = kind(form=Levels())  # type: ignore[call-arg]
        parts = {name: getattr(raw, name).subset(getattr(sizes, name)) for name in ("train", "valid", "test")}
        self.data = Dataset(
            *(part.values.flatten(1) for part in parts.values()),
            form=Dynamic(),
            maximum=raw.maximum,
            **{f"{name}_labels": part.labels for name, part in parts.items()},
        )
        self.about = {
            "data": raw.name,
            "protocol": self.data.protocol,
            "hash": self.data.test.hash(),
            "sizes": plain(sizes),
        }

    @property
    def network(self) -> pv.MLP:
        """That of all parts."""
        return pv.MLP((self.sizes.hidden_dim,), nn.ReLU)

    def works(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """What is to be measured, by name."""
        found: dict[str, Callable[[], dict[str, Any]]] = {}
        for seed in self.sizes.seeds:
            for num in self.sizes.labels:
                found[f"alone {num} {seed}"] = partial(self.alone, num, seed)
                found[f"semi-supervised {num} {seed}"] = partial(self.semi_supervised, num, seed)
        return found

    def semi_supervised(self, num: int, seed: int) -> dict[str, Any]:
        """The VAE on all data, `num` of them with a label."""
        start, data = time.perf_counter(), self.data.with_labels(num, seed=seed)
        torch.manual_seed(seed)
        vae = pv.assemble(
            data,
            program=partial(pv.SemiSupervisedVAE, alpha=self.sizes.alpha),
            network=self.network,
            latent_dim=self.sizes.latent_dim,
        )
        folder = self.runs / f"{num}-{seed}"
        history = pv.fit(
            vae, data, epochs=self.sizes.epochs, seed=seed, device="cpu", checkpoints=folder, resume=True
        )
        trained = time.perf_counter() - start
        x, labels = data.test.batch(), labels_of(data)
        found = pv.label_posterior(vae.model, vae.guide, x, 10, num_particles=self.sizes.particles)
        bound = pv.elbo(vae.model, vae.guide, x, num_particles=10)
        return {
            "classifier": pv.reliability(vae.classify(x), labels).content(),
            "posterior": pv.reliability(found.probabilities, labels).content(),
            "log_evidence": float(found.log_evidence.mean()),
            "elbo": float(bound.elbo.mean()),
            "unreliable": float((found.pareto_k > 0.7).double().mean()),
            "best_epoch": history.best_epoch,
            "valid_elbo": [epoch.valid_elbo for epoch in history.epochs],
            "training_seconds": trained,
            "seconds": time.perf_counter() - start,
            "made": circumstances(vae),
        }

    def alone(self, num: int, seed: int) -> dict[str, Any]:
        """A classifier of the same network, on the data with a label alone."""
        start, data = time.perf_counter(), self.data.with_labels(num, seed=seed)
        labels = data.train.labels
        assert labels is not None
        seen = labels >= 0
        # the grey levels of these, to be binarised anew at each use, as those of all
        few = Dataset(
            data.train.values[seen],
            form=Dynamic(),
            maximum=data.maximum,
            train_labels=labels[seen],
            given=("label",),
        )
        torch.manual_seed(seed)
        classifier = pv.Classifier(self.network.encoder(data.data_shape), 10)

        def model(x: Tensor, label: Tensor) -> None:
            pyro.module("classifier", classifier)
            with pyro.plate("data", len(x)):
                pyro.sample("label", classifier(x), obs=label)

        def guide(x: Tensor, label: Tensor) -> None:
            """Nothing to draw."""

        with pyro.get_param_store().scope():
            steps, batch = self.sizes.alone_steps, min(num, 100)
            pv.fit((model, guide), few, steps=steps, batch_size=batch, seed=seed, compile="off")
        with torch.no_grad():
            scores = pv.reliability(classifier(data.test.batch()).probs, labels_of(data))
        return {"classifier": scores.content(), "seconds": time.perf_counter() - start}


def plain(sizes: Sizes) -> dict[str, Any]:
    """The numbers by name, without the seeds, of which more can be added."""
    numbers = {name: each for name, each in sizes._asdict().items() if name != "seeds"}
    return {**numbers, "labels": list(sizes.labels)}


def labels_of(data: Dataset) -> Tensor:
    """Of the test data."""
    assert data.test.labels is not None
    return data.test.labels


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    kind, sizes = (pv.Digits, SMOKE) if options.smoke else (pv.MNIST, Sizes())
    experiment = Experiment(options.runs, sizes, kind)
    records = Records(options.out / "models.jsonl", experiment.about)
    for number, (name, work) in enumerate(experiment.works().items()):
        if name not in records.found:
            with own_randomness(number, torch.device("cpu")):
                records.add(name, rounded(work()))
            print(f"{name}: {records.found[name]['seconds']:.0f} s", flush=True)
    plots.save(picture(records.found), options.out / "reliability.png")
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


def rounded(value: Any) -> Any:
    """Numbers with five digits after the point."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    run_script(main)
