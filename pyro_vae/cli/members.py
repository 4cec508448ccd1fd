"""Runs that are trained at once: those of `train --seeds`, and those of a trial of a sweep."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyro_vae.cli.configuration import text_of
from pyro_vae.cli.train import Training, about_of, noting
from pyro_vae.cli.trust import named_in, remember
from pyro_vae.storage.runs import Run
from pyro_vae.training import FitOptions, History
from pyro_vae.training.loop import Callback
from pyro_vae.training.many import Fitted, Task


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

    @property
    def text(self) -> str:
        """Of config.yaml."""
        return text_of(self.training.settings)

    def task(self, *callbacks: Callback) -> Task:
        """Its training, with what else is called after each epoch."""
        one, note = self.training, noting(self.folder, self.text)
        about = about_of(one.settings, one.data)
        options = FitOptions(**one.options)
        return Task(one.vae, one.data, options, self.folder / "checkpoints", about, [note, *callbacks])

    def start(self) -> None:
        """Make its folder, where there is none."""
        if not self.going_on:
            Run.create(self.folder, self.text, overwrite=self.training.settings.overwrite)

    def evaluate(self, fitted: Fitted) -> None:
        """Write the results, where they are not there."""
        history = fitted.history
        if len(history.epochs) > len(self.before.epochs) or not (self.folder / "summary.json").exists():
            noting(self.folder, self.text)(self.training.vae, history)
            self.training.finish(Run(self.folder), history)


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
        remember(named_in(self.members[0].training.configuration))
