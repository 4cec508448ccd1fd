"""`pyro-vae train`."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor

from pyro_vae import reports
from pyro_vae.cli.configuration import check_options, options_of, text_of
from pyro_vae.cli.drawing import draw
from pyro_vae.cli.loading import data_of, model_of, options_for_fit, tracker_of
from pyro_vae.cli.trust import named_in, remember
from pyro_vae.columns import Schema
from pyro_vae.data import DataFacts, Dataset
from pyro_vae.errors import InputError, LostRankError, count, draws
from pyro_vae.priors import asks_for_warm_up
from pyro_vae.ranks import here, sharing
from pyro_vae.storage.files import write
from pyro_vae.storage.hashing import fingerprint_of
from pyro_vae.storage.identity import identity
from pyro_vae.storage.runs import Run
from pyro_vae.tracking import Tracking
from pyro_vae.training import Epoch, FitOptions, History, fit
from pyro_vae.training.saved import history_of, load_last
from pyro_vae.vae import JointProgram


@dataclass(frozen=True, eq=False)
class Training:
    """What a training is of: its options, and what they stand for."""

    settings: Namespace
    data: Dataset
    vae: JointProgram
    #: Of `fit`.
    options: dict[str, Any]

    @classmethod
    def of(cls, settings: Namespace, data: Dataset) -> "Training":
        """That of settings, on the data that they name.

        Raises:
            InputError: where they cannot be used.
        """
        check_numbers(settings)
        options, vae = options_for_fit(settings), model_of(settings, data)
        return cls(settings, as_trained(data, vae, settings), vae, options)

    @cached_property
    def text(self) -> str:
        """Of config.yaml."""
        return text_of(self.settings)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """All that it depends on, by option."""
        return options_of(self.text)

    @property
    def about(self) -> dict[str, Any]:
        """What is kept in each checkpoint."""
        return {"configuration": self.configuration, "data": DataFacts.of(self.data).plain()}

    def history_before(self, folder: Path) -> History:
        """What the run in a folder has trained, refused where it is another one."""
        return history_before(folder, self.configuration, self.settings)

    def run(
        self,
        folder: Path,
        *,
        going_on: bool,
        on_start: Callable[[], object] | None = None,
        callbacks: Sequence[Callable[[Any, History], bool | None]] = (),
        tracking: Tracking | None = None,
        progress: bool | None = None,
    ) -> History:
        """Train in a folder, or go on there: all of a run but its results.

        Args:
            folder: Held by `Run.written`.
            going_on: With the run in the folder.
            on_start: Called when all has been checked and the folder is that of a run.
            callbacks: As of `fit`.
            tracking: Where its epochs are taken down, of `tracked`.
            progress: As of `fit`.
        """

        def start() -> None:
            # only now, so that bad input never costs the run that is overwritten
            if not going_on and here().first:
                Run.create(folder, self.text, overwrite=self.settings.overwrite)
            if on_start is not None:
                on_start()
            self.remember()
            if tracking is not None:
                tracking.start(self.configuration)

        note = noting(folder, self.text)
        after_epoch = [note] if tracking is None else [note, tracking.after_epoch]
        history = fit(
            self.vae,
            self.data,
            **self.options,
            checkpoints=folder / "checkpoints",
            resume=going_on,
            about=self.about,
            on_start=start,
            callbacks=[*after_epoch, *callbacks],
            progress=progress,
        )
        note(self.vae, history)
        return history

    def remember(self) -> None:
        """Keep that the user has trained with the modules that are named."""
        track = self.settings.track
        remember(named_in([self.configuration, track.class_path if track else ""]))

    @contextmanager
    def tracked(self, folder: Path) -> Iterator[Tracking]:
        """Around a training in a folder: what takes it down."""
        tracking = Tracking(tracker_of(self.settings), folder)
        try:
            yield tracking
        finally:
            tracking.end()

    def evaluated(self, split: str) -> reports.Evaluation:
        """ELBO and, where there is one, log p(x) of a split, as the options say."""
        settings, estimator = self.settings, None
        if not self.vae.no_evidence:
            like = reports.like(self.vae, reports.part_of(self.data, split, settings.num_data))
            method = reports.usual_method(self.vae, like, settings.particles)
            estimator = reports.Estimator(method, settings.particles)
        options: dict[str, Any] = {"num_data": settings.num_data, "seed": settings.seed}
        return reports.evaluation(self.vae, self.data, split=split, estimator=estimator, **options)

    def finish(self, run: Run, history: History, tracking: Tracking | None = None) -> dict[str, Any]:
        """The results of a run, written into its folder: the summary, which is returned, and the pictures.

        Log p(x) is shared by all ranks; the first one does the rest, and the others have nothing.
        """
        if here().first:
            reports.note_other_data(run, self.data)
        here().copy_from_first(each for each in self.vae.state_dict().values() if isinstance(each, Tensor))
        with sharing():
            evaluated = self.evaluated(reports.held_out(self.data))
        if not here().first:
            return {}
        belongs_to = identity(self.configuration, fingerprint_of(self.vae))
        content = {**reports.summary(self.vae, self.data, history, evaluated.content), **belongs_to}
        run.write_arrays("per_datum.npz", {**evaluated.per_datum, **belongs_to})
        run.write_json("summary.json", content)
        figures = draw(run, self.vae, self.data, history, self.settings.seed)
        if tracking is not None:
            tracking.log(history.epochs[-1].step, _scalars(content), figures)
        return content


def _scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of the held-out data by name, as test_elbo."""
    split, found = summary["split"], summary["log_evidence"]
    scalars = {f"{split}_{name}": value for name, value in summary["elbo"][split].items()}
    if found:
        scalars |= {
            f"{split}_log_evidence": found["estimate"],
            f"{split}_standard_error": found["standard_error"],
        }
    return {name: value for name, value in scalars.items() if isinstance(value, float)}


def say_where(tracking: Tracking, folder: Path) -> None:
    """Say how to watch a training."""
    command = tracking.watched_by(shlex.quote(str(folder)))
    if command:
        print(f"pyro-vae: note: to watch the training: {command}", file=sys.stderr)


def say_warm_up(training: Training) -> None:
    """Say that the KL term is weighted because the prior asks for it."""
    prior = asks_for_warm_up(training.vae)
    if prior and FitOptions(**training.options).prior_warms_up:
        print(
            f"pyro-vae: note: over the first {prior.warm_up_share:.0%} of the training the weight of the KL "
            f"term rises to its value, as {type(prior).__name__} asks; --kl_warm_up 0 for none",
            file=sys.stderr,
        )


def train(settings: Namespace, resume: Path | None = None) -> int:
    """`pyro-vae train`: returns the exit status.

    Args:
        settings: All options.
        resume: The folder of the run to go on with.
    """
    data = data_of(settings)
    training = Training.of(settings, data)
    if data.columns:
        print(Schema(data.columns), end="\n\n")
    if resume is None and data.form.name != data.first_form.name:
        announce(data, settings)
    with _held(resume or settings.out, data.name) as folder:
        return _trained(training, folder, going_on=resume is not None)


@contextmanager
def _held(folder: Path | None, name: str) -> Iterator[Path]:
    """The folder of a run, which the first of all ranks holds."""
    with Run.written(folder, name) if here().first else nullcontext(folder) as held:
        found = here().from_first(lambda: held)
        assert found is not None
        yield found


def check_numbers(settings: Namespace) -> None:
    """Refuse bad numbers of the evaluation before the training."""
    draws("particles", settings.particles)
    if settings.num_data is not None:
        count("num_data", settings.num_data)


def as_trained(data: Dataset, vae: JointProgram, settings: Namespace) -> Dataset:
    """The data, giving what the model depends on.

    Beside those fields that the data give anyway, which are refused where nothing names them.
    """
    given = dict.fromkeys((*data.given, *vae.conditions))
    given.pop(settings.weight, None)
    return data.giving(*given)


def announce(data: Dataset, settings: Namespace) -> None:
    """Say which form the likelihood has chosen."""
    low, high = data.raw.ends
    bits = data.form.name == "Dynamic" and data.raw.whole
    others = (
        ", and --likelihood DiscretizedLogisticLikelihood takes levels as they are, PoissonLikelihood counts"
    )
    name = settings.likelihood.class_path.rpartition(".")[2]
    print(
        f"pyro-vae: note: values from {low:g} to {high:g} become x in the form {data.form.name}, for {name} "
        f"({data.form.protocol(data.raw)}); --data.form names another{others if bits else ''}",
        file=sys.stderr,
    )


def _trained(training: Training, folder: Path, *, going_on: bool) -> int:
    """Train in a folder, evaluate, and keep everything there."""
    started = going_on
    before = training.history_before(folder) if going_on else History()
    command = f"pyro-vae train --resume {shlex.quote(str(folder))}"

    def start() -> None:
        nonlocal started
        started = True
        say_warm_up(training)
        say_where(tracking, folder)

    try:
        with training.tracked(folder) as tracking:
            history = training.run(folder, going_on=going_on, on_start=start, tracking=tracking)
            summary = training.finish(Run(folder), history, tracking)
        if here().first and going_on and len(history.epochs) == len(before.epochs):
            print(
                f"pyro-vae: note: the training had ended by {history.ended_by}: to go on, give more "
                "--epochs, --steps or --patience",
                file=sys.stderr,
            )
        if here().first:
            print(reports.table(summary, folder))
    except KeyboardInterrupt:
        if not started:
            raise
        line = f"interrupted; go on with: {command}"
        if here().tells(line):
            print(f"\n{line}", file=sys.stderr)
        return 128 + signal.SIGINT
    except LostRankError as error:
        raise LostRankError(f"{error}: {command}") from error
    return 0


def noting(folder: Path, text: str) -> Callable[[object, History], None]:
    """Writes metrics.csv of all epochs so far, and config.yaml where its budget is a new one."""

    def note(_: object, history: History) -> None:
        if not here().first:
            return
        run = Run(folder)
        if run.config.read_text() != text:
            write(run.config, text.encode())
        run.write_metrics(Epoch._fields, history.epochs)

    return note


def history_before(folder: Path, here: Mapping[str, Any], settings: Namespace) -> History:
    """What a run has trained.

    Raises:
        InputError: where config.yaml is not that by which it was made, or the budget is used up already.
    """
    path = folder / "checkpoints" / "last.pt"
    if not path.exists():
        return History()
    state = load_last(path)
    check_options(state["about"].get("configuration"), here, path, folder / "config.yaml")
    epochs, steps = len(state["epochs"]), state["step"]
    for name, asked, done in (("steps", settings.steps, steps), ("epochs", settings.epochs, epochs)):
        if asked is not None:
            if asked < done:
                raise InputError(f"{folder} has trained {done} {name}, got --{name} {asked}: give more")
            break  # steps count where they are given
    return history_of(state)
