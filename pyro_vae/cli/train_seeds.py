"""`pyro-vae train --seeds`: several runs at once, which differ in their seed."""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae import comparison
from pyro_vae.cli.configuration import text_of
from pyro_vae.cli.loading import data_of
from pyro_vae.cli.train import Training, about_of, announce, check_numbers, noting, say_where
from pyro_vae.columns import Schema
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, warn
from pyro_vae.ranks import here
from pyro_vae.storage.files import read_json, read_text
from pyro_vae.storage.runs import Run, of_seed
from pyro_vae.tracking import Tracking
from pyro_vae.training import FitOptions
from pyro_vae.training.many import Fitted, Task, fit_together


@dataclass(frozen=True, eq=False)
class _Member:
    """One of the runs."""

    training: Training
    folder: Path
    #: Whether there is a run in the folder that goes on.
    going_on: bool
    #: Epochs that it has trained.
    before: int

    @classmethod
    def of(cls, settings: Namespace, seed: int, folder: Path, data: Dataset | None) -> "_Member":
        """The run of a seed."""
        own = settings.clone()
        own.seed, own.seeds = seed, None
        training = Training.of(own, data_of(own) if data is None else data)
        place = of_seed(folder, seed)
        going_on = (place / "config.yaml").exists() and not settings.overwrite
        return cls(training, place, going_on, training.epochs_before(place) if going_on else 0)

    @property
    def text(self) -> str:
        """Of config.yaml."""
        return text_of(self.training.settings)

    def task(self, tracking: Tracking) -> Task:
        """Its training."""
        one, callbacks = self.training, [noting(self.folder, self.text), tracking.after_epoch]
        about = about_of(one.settings, one.data)
        return Task(
            one.vae, one.data, FitOptions(**one.options), self.folder / "checkpoints", about, callbacks
        )

    def start(self, tracking: Tracking) -> None:
        """Make its folder, where there is none."""
        if not self.going_on:
            Run.create(self.folder, self.text, overwrite=self.training.settings.overwrite)
        tracking.start(self.training.configuration)

    def result(self, fitted: Fitted, tracking: Tracking) -> Mapping[str, Any]:
        """The summary, made where it is not there."""
        path = self.folder / "summary.json"
        if len(fitted.history.epochs) == self.before and path.exists():
            return dict(read_json(read_text(path)))
        noting(self.folder, self.text)(self.training.vae, fitted.history)
        return self.training.finish(Run(self.folder), fitted.history, tracking)


def train_seeds(settings: Namespace, seeds: Sequence[int], out: Path | None) -> int:
    """`pyro-vae train --seeds`: returns the exit status.

    Args:
        settings: All options.
        seeds: Of the runs.
        out: The folder in which they are, each in one of its own; runs that are there go on.
    """
    here().only_one("pyro-vae train --seeds")
    check_numbers(settings)
    data = data_of(settings)
    if data.columns:
        print(Schema(data.columns), end="\n\n")
    if data.form.name != data.first_form.name:
        announce(data, settings)
    if out is not None and (out / "config.yaml").exists():
        raise InputError(
            f"{out} is the folder of one run, and --seeds has several: choose another with --out"
        )
    shared = data if settings.num_labelled is None else None  # labels are chosen by the seed
    with Run.written(out, data.name) as folder:
        members = [_Member.of(settings, seed, folder, shared) for seed in seeds]
        return _trained(folder, members)


def _trained(folder: Path, members: Sequence[_Member]) -> int:
    """Train, evaluate, and keep everything in the folders."""
    started = False

    def start() -> None:
        nonlocal started
        for member, tracking in tracked:  # only now: bad input never costs the runs that are overwritten
            member.start(tracking)
        started = True
        members[0].training.remember()
        say_where(tracked[0][1], folder)

    try:
        with ExitStack() as stack:
            for member in members:
                stack.enter_context(Run.written(member.folder))
            tracked = [
                (member, stack.enter_context(member.training.tracked(member.folder))) for member in members
            ]
            tasks = [member.task(tracking) for member, tracking in tracked]
            fitted = fit_together(tasks, resume=True, on_start=start)
            results = [
                member.result(one, tracking)
                for (member, tracking), one in zip(tracked, fitted, strict=True)
                if one.error is None
            ]
    except KeyboardInterrupt:
        if not started:
            raise
        command = f"pyro-vae train --resume {shlex.quote(str(folder))}"
        print(f"\ninterrupted; go on with: {command}", file=sys.stderr)
        return 128 + signal.SIGINT
    errors = {member.folder: one.error for member, one in zip(members, fitted, strict=True) if one.error}
    for place, error in errors.items():
        print(f"pyro-vae: {place}: {error}", file=sys.stderr)
    good = [member.folder for member in members if member.folder not in errors]
    if good:
        print(_table(good, results))
    return 1 if errors else 0


def _table(folders: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> str:
    """A line of each run, and all as one."""
    rows = {str(folder): _words(content) for folder, content in zip(folders, results, strict=True)}
    found = _compared(folders) if all(content["log_evidence"] for content in results) else None
    if found is not None:
        model = found.runs[0]
        spread = f"sd {model.seed_deviation:.3f} over seeds"
        rows[f"{len(folders)} seeds"] = f"ELBO {model.elbo:.3f}   log p(x) {model.log_evidence:.3f} {spread}"
        measured = f"{found.num_data} {found.split} data of {found.data}"
        rows["measured"] = f"{measured}, {found.units}, {found.protocol}, hash {found.data_hash}"
    width = max(map(len, rows)) + 3
    return "\n".join(f"{name:<{width}}{words}" for name, words in rows.items())


def _compared(folders: Sequence[Path]) -> comparison.Comparison | None:
    """The runs as one model; None of one, or where they were evaluated in different ways since."""
    if len(folders) == 1:
        return None
    try:
        return comparison.compare(folders)
    except InputError as error:
        warn(f"no row of all seeds: {error}")
        return None


def _words(content: Mapping[str, Any]) -> str:
    """What a run has come to."""
    training, split, found = content["training"], content["split"], content["log_evidence"]
    words = [f"ELBO {content['elbo'][split]['elbo']:.3f}"]
    if found:
        words.append(f"log p(x) {found['estimate']:.3f} ± {found['standard_error']:.3f}")
    epochs = f"{training['epochs']} epochs, the best {training['best_epoch']}"
    return "   ".join([*words, f"{epochs}, ended by {training['ended_by']}"])
