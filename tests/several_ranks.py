"""Trainings that are the same on several ranks, each of which runs python -m tests.several_ranks FOLDER."""

import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.ranks import here, sharing
from tests.commands import SMALL

GREY = torch.rand(110, 4, 4, generator=torch.Generator().manual_seed(0))
#: Seven steps in an epoch, the last of them on one datum.
DATA = pv.Dataset(GREY[:61], GREY[61:80], GREY[80:], form=pv.Dynamic())
LINE = GREY[:50, 0, :1].double()
Rows = list[list[float]]


def rows(history: pv.History) -> Rows:
    """All numbers of a training but its time."""
    return [list(epoch._replace(seconds=0.0)) for epoch in history.epochs]


def vae(**options: Any) -> Rows:
    """Of a VAE in float64, on noise of its own in each epoch."""
    torch.manual_seed(1)
    model = pv.assemble(DATA, latent_dim=2, network=pv.MLP((8,))).double()
    return rows(pv.fit(model, DATA, **{"batch_size": 10, "epochs": 8, **options}))


def program(network: nn.Module, y: Tensor, **options: Any) -> pv.History:
    """Of a Pyro program with a latent of all data, and a plate that stands for 1000 of them."""
    pyro.clear_param_store()

    def model(y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        with pyro.plate("data", 1000, subsample=y):
            z = pyro.sample("z", dist.Normal(slope, 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z, 0.5).to_event(1), obs=y)

    def guide(y: Tensor) -> None:
        pyro.module("network", network)
        loc = pyro.param("loc", torch.zeros(1).double())
        pyro.sample("slope", dist.Normal(loc, 0.1).to_event(1))
        with pyro.plate("data", 1000, subsample=y):
            pyro.sample("z", dist.Normal(network(y), 0.7).to_event(1))

    return pv.fit((model, guide), y, **{"batch_size": 20, "epochs": 17, **options})


def linear() -> nn.Module:
    """Another one on each rank, all of which take over what the first one has."""
    torch.manual_seed(int(os.environ.get("RANK", "0")))
    return nn.Linear(1, 1).double()


def counting(**options: Any) -> list[float]:
    """Of a program that counts its calls in training, on which it depends; and the counts."""

    class Counting(pv.JointProgram):  # here, since the command line offers every class of a module
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.calls, self.seen = 0, [0]
            self.encoder, self.decoder = nn.Linear(1, 1), nn.Linear(1, 1)
            self.double()

        count: Tensor

        def model(self, y: Tensor) -> Tensor:
            self.register(self)
            if self.training:
                self.count += 1
                self.calls += 1
                if "log" in options:
                    self.seen.append(self.calls)
            with pyro.plate("data", len(y)):
                z = pyro.sample("z", dist.Normal(y.new_zeros(1), 1.0).to_event(1))
                mean = self.decoder(z) + self.count / 50 + self.calls / 20
                return pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)

        def guide(self, y: Tensor) -> Tensor:
            self.register(self)
            with pyro.plate("data", len(y)):
                return pyro.sample("z", dist.Normal(self.encoder(y), 0.7).to_event(1))

    torch.manual_seed(1)
    model = Counting()
    data = pv.Dataset(LINE, LINE[:20], form=pv.AsGiven())
    history = pv.fit(model, data, batch_size=20, epochs=2, keep="last", compile="off")
    return [*history.column("train_elbo"), float(model.count), model.calls]


def same(folder: Path) -> dict[str, Any]:
    """What must be equal, and how often a callback was called; checkpoints are left in the folder."""
    called: list[int] = []
    found: dict[str, Any] = {
        "by Pyro": vae(compile="off", num_particles=2, kl_warm_up=2),
        "flat": vae(compile="flat", clip_norm=1.0),
        "importance-weighted": vae(objective=pv.ImportanceWeightedELBO, num_particles=5, epochs=2),
        "any program": rows(program(linear(), LINE)),
        "counting": [counting()],
        "stopped early": vae(epochs=60, patience=2, callbacks=[lambda *_: called.append(1)]),
    }
    vae(epochs=3, checkpoints=folder)
    return {**found, "called": len(called)}


def grid(y: Tensor) -> None:
    """Another plate with as many places as a rank has data."""
    with pyro.plate("columns", 10):
        pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def shift(y: Tensor) -> None:
    """A latent of each datum, of which an autoguide holds one for each place."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(y.new_zeros(1), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)


def said(training: Callable[[], object]) -> str:
    """The error or the first warning of a training."""
    pyro.clear_param_store()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            training()
        except (pv.InputError, ArithmeticError) as error:
            return str(error)
    return str(caught[0].message) if caught else ""


def command(*words: object) -> tuple[int, str, str]:
    """Status, standard output and standard error of the command line."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        status = main([str(word) for word in words])
    return status, out.getvalue(), errors.getvalue()


#: Options of estimates by draws, and by chains, in several blocks each.
ESTIMATES: dict[str, tuple[object, ...]] = {
    "drawn": ("--particles", 500, "--num_data", 12),
    "annealed": (
        *("--method", "annealed", "--num_data", 100, "--chains", 16),
        *("--temperatures", 5, "--simulated", 90),
    ),
}


def estimated(run: Path) -> dict[str, Any]:
    """What commands say of a trained run; what they have written is kept under other names."""
    values = run / "values.npy"

    def keep(name: str) -> None:
        for file in (run / "evaluation.json", run / "per_datum.npz"):
            if file.exists():
                file.rename(run / f"{name} {file.name}")

    if here().first:
        np.save(values, np.random.default_rng(0).integers(0, 17, (30, 8, 8)))
        keep("trained")
    here().all("written")
    found: dict[str, Any] = {}
    for name, words in ESTIMATES.items():
        found[name] = command("evaluate", run, *words)
        if here().first:
            keep(name)
    found["scored"] = command("score", run, values, "--particles", 500, "--out", run / "scored.npz")
    return found


def no_density_at_50() -> None:
    """An estimate that fails in the middle of 100 data, which is in one block of many."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, torch.where(x == 45, -1.0, 1.0)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))

    pv.log_evidence(model, guide, torch.arange(100.0)[:, None])


def recipe() -> float:
    """How far the gradient of DistributedDataParallel is from the mean of those of all ranks."""
    torch.set_default_dtype(torch.float32)
    page = Path(__file__).parents[1] / "docs" / "several_devices.md"
    found: dict[str, Any] = {"__name__": page.stem}
    exec(page.read_text().split("```python\n")[-1].split("```")[0], found)
    loss, rank = found["loss"], int(os.environ["RANK"])
    x = found["data"].train.batch(slice(0, 50))
    assert isinstance(loss, nn.parallel.DistributedDataParallel)
    own, shared = (_gradient(each, x, seed=rank) for each in (loss.module, loss))
    return float((here().sum(own) / 2 - shared).norm() / shared.norm())


def _gradient(loss: nn.Module, x: Tensor, seed: int) -> Tensor:
    pyro.set_rng_seed(seed)
    loss.zero_grad()
    loss(x).backward()
    return torch.cat([each.grad.flatten() for each in loss.parameters() if each.grad is not None])


def _on_a_rank(folder: Path) -> dict[str, Any]:
    """All that one rank finds."""
    rank = int(os.environ["RANK"])
    found = same(folder / "by ranks")
    found["gone on"] = vae(checkpoints=folder / "by one", resume=True)
    found["said"] = {
        "batch norm": said(lambda: program(nn.BatchNorm1d(1).double(), LINE, epochs=1)),
        "other data": said(lambda: program(linear(), LINE[: 40 + rank], epochs=1)),
        "small batches": said(lambda: vae(batch_size=1)),
        "not finite": said(lambda: program(linear(), LINE.where(LINE[49] != LINE, torch.inf), steps=8)),
        "no sum": said(lambda: vae(objective=pv.FreeBitsELBO)),
        "plates": said(lambda: pv.fit((grid, AutoNormal(grid)), LINE, batch_size=20, epochs=1)),
        "each datum": said(lambda: pv.fit((shift, AutoNormal(shift)), LINE, batch_size=50, epochs=2)),
        "logging": said(lambda: counting(log=True)),
        "several": said(lambda: pv.fit_many(lambda: pv.assemble(DATA), DATA, seeds=2)),
    }
    found["trained"] = command("train", *SMALL, "--epochs", 2, "--out", folder / "two")
    found["refused"] = command("train", *SMALL, "--prior", "Nothing")
    if here().first:
        shutil.copytree(folder / "two", folder / "evaluated")
    here().all("copied")
    found["estimated"] = estimated(folder / "evaluated")
    with sharing():
        found["said"]["one rank"] = said(no_density_at_50)
    found["other command"] = command("sample", folder / "two")
    found["recipe"] = recipe()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    (place / f"{os.environ['RANK']}.json").write_text(json.dumps(_on_a_rank(place)))
