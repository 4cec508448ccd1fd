"""Runs that are trained at once: those of `train --seeds`, and those of a trial of a sweep."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.cli.train import Training, noting, say_warm_up, say_where
from pyro_vae.storage.runs import Run
from pyro_vae.training import FitOptions, History
from pyro_vae.training.loop import Callback
from pyro_vae.training.many import Fitted, Task, fit_together


@dataclass(frozen=True, eq=False)
class Member:
    """One of the runs."""

    training: Training
    folder: Path
    #: Whether there is a run in the folder that goes on.
    going_on: bool
    #: Of the epochs that it has trained.
    before: History

    @classmethod
    def of(cls, training: Training, folder: Path) -> "Member":
        """A training in a folder, or that which goes on there.

        Raises:
            InputError: where the run in the folder is another one.
        """
        going_on = (folder / "config.yaml").exists() and not training.settings.overwrite
        return cls(training, folder, going_on, training.history_before(folder) if going_on else History())

    def task(self, *callbacks: Callback) -> Task:
        """Its training, with what else is called after each epoch."""
        one, note = self.training, noting(self.folder, self.training.text)
        options = FitOptions(**one.options)
        return Task(one.vae, one.data, options, self.folder / "checkpoints", one.about, [note, *callbacks])

    def start(self) -> None:
        """Make its folder, where there is none."""
        if not self.going_on:
            Run.create(self.folder, self.training.text, overwrite=self.training.settings.overwrite)

    def evaluate(self, fitted: Fitted) -> None:
        """Write the results, where they are not there."""
        history = fitted.history
        if len(history.epochs) > len(self.before.epochs) or not (self.folder / "summary.json").exists():
            noting(self.folder, self.training.text)(self.training.vae, history)
            with self.training.tracked(self.folder) as tracking:
                tracking.start(self.training.configuration)
                self.training.finish(Run(self.folder), history, tracking)


@contextmanager
def held(members: Sequence[Member]) -> Iterator[None]:
    """Hold the folders of all."""
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(Run.written(member.folder))
        yield


class Start:
    """Makes the folders of all, once everything has been checked: bad input never costs a run.

    Args:
        members: One or more.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.happened = False

    def __call__(self) -> None:
        """Make them, and note that it has happened."""
        for member in self.members:
            member.start()
        self.happened = True
        self.members[0].training.remember()


def fit_members(
    members: Sequence[Member],
    start: Start,
    callbacks: Sequence[Callback] = (),
    *,
    watched: Path | None = None,
    **options: Any,
) -> list[Fitted]:
    """Train all at once, each taken down by a tracker of its own, which has ended when this returns.

    Args:
        members: In folders that are held.
        start: Called before the first step.
        callbacks: One of each member, called after its epochs.
        watched: The folder of all, to say how the training is watched; None to say nothing.
        **options: Of `fit_together`.
    """
    with ExitStack() as stack:
        trackings = [stack.enter_context(member.training.tracked(member.folder)) for member in members]

        def begin() -> None:
            start()
            for member, tracking in zip(members, trackings, strict=True):
                tracking.start(member.training.configuration)
            if watched is not None:
                say_warm_up(members[0].training)
                say_where(trackings[0], watched)

        each: list[list[Callback]] = [[tracking.after_epoch] for tracking in trackings]
        for called, callback in zip(each, callbacks, strict=False):
            called.append(callback)
        tasks = [member.task(*called) for member, called in zip(members, each, strict=True)]
        return fit_together(tasks, resume=True, on_start=begin, **options)
