"""`pyro-vae sweep`."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from tqdm import tqdm

from pyro_vae import plots, reports
from pyro_vae.cli.compare import compare
from pyro_vae.cli.loading import data_of
from pyro_vae.cli.members import Member, Start, fit_members, held
from pyro_vae.cli.parser import settings_from, settings_of
from pyro_vae.cli.train import Training
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, count, one_line
from pyro_vae.progress import progress_bar
from pyro_vae.storage.files import read_json, read_text, write
from pyro_vae.storage.locks import locked
from pyro_vae.storage.runs import Run
from pyro_vae.training import History
from pyro_vae.training.many import Fitted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from pyro_vae.sweeps.queue import Queue
    from pyro_vae.sweeps.reading import StudyFile
    from pyro_vae.sweeps.worker import AfterEpoch

#: Units of a probability.
_MASS = "nats per datum"
#: Commands that --dry_run shows.
_SHOWN = 12


def sweep(
    file: Path,
    *,
    out: Path | None = None,
    storage: str | None = None,
    threads: int | None = None,
    dry_run: bool = False,
) -> None:
    """Train many configurations, as a study in a YAML file says, by Optuna: a grid, at random, or by TPE.

    The file names options of `pyro-vae train` and their values; docs/sweeps.md has an example. The same
    command, started again or elsewhere, is one more worker of the same study: each trial is trained by one of
    them, and the trial of a worker that was killed goes on from its checkpoint. The number of trials is that
    of the study, whoever trains them. Trials are chosen by their validation data; in the end the best are
    evaluated on test data and compared.

    Args:
        file: The study.
        out: Folder of the study, with a folder for each trial; by default sweeps/NAME.
        storage: URL of a database in place of the one in the file, as postgresql+psycopg://USER@HOST/NAME;
            by default a file of SQLite in the folder, for workers on one machine.
        threads: Of each worker, in place of those in the file; there it is 1 by default, for one worker on
            each core.
        dry_run: Only check the file, and show the first commands that it stands for.
    """
    try:
        from pyro_vae.sweeps.reading import read_study
    except ImportError as error:
        raise InputError(
            f'sweep needs Optuna ({error.name} is missing): install it by pip install -e ".[sweep]"'
        ) from error
    said = read_study(file)
    folder = out or Path("sweeps") / said.name
    before = torch.get_num_threads()
    torch.set_num_threads(said.threads if threads is None else count("threads", threads))
    try:
        trainer = _Trainer(said)
        with _refused_as(file):
            said.space.check(trainer.check)
        if dry_run:
            _show_commands(said, folder)
        else:
            _work(said, folder, storage or said.storage, trainer)
    finally:
        torch.set_num_threads(before)


@contextmanager
def _refused_as(file: Path) -> Iterator[None]:
    """Say in which file the option stands that is refused."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {one_line(error)}") from error


def _work(file: "StudyFile", folder: Path, storage: str | None, trainer: "_Trainer") -> None:
    """Be a worker of the study, and say in the end what came out."""
    import optuna

    from pyro_vae.sweeps.databases import opened
    from pyro_vae.sweeps.queue import Queue
    from pyro_vae.sweeps.worker import work

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write the folder {folder} ({error.strerror}): choose another with --out"
        ) from error
    with opened(storage, folder) as database:
        queue = Queue(database, file, folder, trainer.measured)
        try:
            with progress_bar(total=queue.total, desc=file.name, unit="trials") as bar:
                work(queue, trainer.train, bar)
        except KeyboardInterrupt as end:
            raise KeyboardInterrupt("the same command goes on with the study") from end
        _report(file, queue)


def _show_commands(file: "StudyFile", folder: Path) -> None:
    """The first trials as commands."""
    import optuna

    from pyro_vae.sweeps.space import words_of

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    number = min(file.trials, max(_SHOWN // len(file.seeds), 1))
    for trial in range(number):
        study.sampler = file.make_sampler(trial)
        words = words_of(file.space.ask(study.ask()))
        for seed in file.seeds:
            run = folder / f"trial-{trial:03}" / f"seed-{seed}"
            print(shlex.join(["pyro-vae", "train", *words, f"--seed={seed}", f"--out={run}"]))
    print(f"{number} of {file.trials} trials of {file.name}: {len(file.seeds)} trainings each")
    if file.sampler.name == "tpe":
        print("pyro-vae: note: later trials depend on the results of earlier ones", file=sys.stderr)


class _Trainer:
    """Checks and trains the configurations of a study.

    Args:
        file: The study.
    """

    def __init__(self, file: "StudyFile") -> None:
        self.file = file
        #: What all trials must be measured on, so that their values compare; known once one was checked.
        self.measured: dict[str, str] = {}
        self._data: tuple[str, Dataset] | None = None
        self._said: set[str] = set()

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse a configuration that cannot be trained, or is measured on something else than the others.

        Raises:
            InputError: of its cause.
        """
        self._training(*self._read(options, self.file.seeds[0]))

    def _read(self, options: Mapping[str, Any], seed: int) -> tuple[Namespace, Dataset]:
        """The settings of a training, and its data."""
        from pyro_vae.sweeps.space import words_of

        settings = settings_from(words_of({**options, "seed": seed}))
        return settings, self._data_of(settings)

    def _training(self, settings: Namespace, data: Dataset) -> Training:
        """A training, refused where it cannot be, or is measured on something else than the others."""
        training = Training.of(settings, data)
        self._check_measured(training)
        return training

    def _data_of(self, settings: Namespace) -> Dataset:
        """The data of the settings, kept for the next trial."""
        names = ["data", "likelihood", "program", "num_labelled"]
        if settings.num_labelled is not None:  # by which labels are chosen
            names.append("seed")
        key = repr([settings[name] for name in names])
        if self._data is None or self._data[0] != key:
            self._data = key, data_of(settings)
        return self._data[1]

    def _check_measured(self, training: Training) -> None:
        """Refuse values that do not compare with those of the other trials."""
        found = _measured(training)
        self.measured = self.measured or found
        if found != self.measured:
            raise InputError(
                f"expected trials that are measured alike, got one with {_unlike(found, self.measured)}: "
                "make a study of each"
            )

    def train(
        self, options: Mapping[str, Any], seeds: Sequence[int], folder: Path, after_epoch: "AfterEpoch"
    ) -> list[float]:
        """The value of each seed: see `pyro_vae.sweeps.worker.Train`."""
        from pyro_vae.sweeps.worker import UnusableError

        members = self._members(options, seeds, folder)
        start = Start(members)
        with held(members):
            callbacks = [_with_number(after_epoch, number) for number in range(len(members))]
            for number, member in enumerate(members):
                if member.before.epochs:
                    after_epoch(number, member.before)
            try:
                fitted = fit_members(members, start, callbacks, progress=False, on_apart=self._say_apart)
            except InputError as error:
                if start.happened:
                    raise
                raise UnusableError(str(error)) from error
            return [self._value(*each) for each in zip(members, fitted, strict=True)]

    def _say_apart(self, reason: str) -> None:
        """Say once why seeds are not batched."""
        if reason not in self._said:
            self._said.add(reason)
            line = f"pyro-vae: note: the seeds of a trial take their steps in turn, not batched: {reason}"
            tqdm.write(line, file=sys.stderr)

    def _members(self, options: Mapping[str, Any], seeds: Sequence[int], folder: Path) -> list[Member]:
        """The run of each seed."""
        from pyro_vae.sweeps.worker import UnusableError

        read = [self._read(options, seed) for seed in seeds]  # where data are gone, no options are to blame
        try:
            trainings = [self._training(*each) for each in read]
        except InputError as error:
            raise UnusableError(str(error)) from error
        places = [folder / f"seed-{seed}" for seed in seeds]
        for place in places:
            if place.is_dir() and not (place / "config.yaml").exists():
                shutil.rmtree(place)  # of a worker that was killed before it had begun
        return [Member.of(*each) for each in zip(trainings, places, strict=True)]

    def _value(self, member: Member, fitted: Fitted) -> float:
        """What a trial is chosen by, of one seed: of the parameters that are kept, on validation data."""
        if fitted.error is not None:
            raise fitted.error
        if self.file.select_by == "elbo":
            history, best = fitted.history, member.training.settings.keep == "best"
            return history.best_valid_elbo if best else history.epochs[-1].valid_elbo
        return float(member.training.evaluated("valid").content["log_evidence"]["estimate"])


def _with_number(after_epoch: "AfterEpoch", number: int) -> Callable[[object, History], None]:
    """A callback of the seed of a number."""
    return lambda _, history: after_epoch(number, history)


def _measured(training: Training) -> dict[str, str]:
    """What the value of a trial is of."""
    data, vae = training.data, training.vae
    if not len(data.valid):
        raise InputError("trials are chosen by validation data, got none: take data with a validation split")
    mass = True if vae.no_evidence else reports.is_mass(vae, vae.place(data.valid.take()[:1]))
    return {
        "validation data": data.valid.hash(),
        "protocol": data.protocol,
        "units": reports.units(data, mass, vae),
    }


def _unlike(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """In what two trials are measured otherwise; hashes only where nothing else tells them apart."""
    names = [name for name in ("units", "protocol", "validation data") if found[name] != expected[name]]
    told = [name for name in names if name != "validation data"] or names
    words = " and ".join(f"{name} {found[name]!r} beside {expected[name]!r}" for name in told)
    if (found["units"] == _MASS) != (expected["units"] == _MASS):
        words += ", of which one is a density and the other a probability, of data in another form"
    return words


def _report(file: "StudyFile", queue: "Queue") -> None:
    """The trials, the comparison of the best on test data, and Optuna's pictures."""
    from pyro_vae.sweeps.results import as_csv, best_first, pictures, table

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(queue.folder))
        except InputError:
            print(f"pyro-vae: note: another worker writes the results into {queue.folder}", file=sys.stderr)
            return
        trials = queue.trials()
        write(queue.folder / "trials.csv", as_csv(file, trials).encode())
        print(f"{table(file, trials)}\n")
        _compare_best(file, queue, best_first(trials)[: file.top])
        print(queue.folder / "trials.csv")
        for name, figure in pictures(file, queue.study):
            plots.save(figure, queue.folder / f"{name}.png")
            print(queue.folder / f"{name}.png")


def _compare_best(file: "StudyFile", queue: "Queue", best: "Sequence[FrozenTrial]") -> None:
    """Evaluate the best on test data, and compare them."""
    runs = [queue.place_of(each.number) / f"seed-{seed}" for each in best for seed in file.seeds]
    if not all((run / "config.yaml").exists() for run in runs):
        places = ", ".join(sorted({str(each.user_attrs.get("folder")) for each in best}))
        print(
            "pyro-vae: note: the best are compared where the folders of their trials are, and some are not "
            f"in {queue.folder}: copy them (from {places}), and start the command again",
            file=sys.stderr,
        )
        return
    for run in runs:
        if not (run / "summary.json").exists():
            _evaluate(run)
    if len(runs) > 1:
        print(f"the best {len(best)} by validation data, on test data, by which nothing was chosen:\n")
        try:
            compare(runs, reference="first", format="text", out=queue.folder)
        except InputError as error:  # of programs that have no log p(x)
            print(f"pyro-vae: note: no comparison: {one_line(error)}", file=sys.stderr)
    elif runs:
        print(reports.table(read_json(read_text(runs[0] / "summary.json")), runs[0]))


def _evaluate(folder: Path) -> None:
    """Write the results of a run whose training has ended, as `pyro-vae train --resume` does."""
    settings = settings_of(Run(folder))
    training = Training.of(settings, data_of(settings))
    with Run.written(folder), training.tracked(folder) as tracking:
        history = training.run(folder, going_on=True, tracking=tracking, progress=False)
        training.finish(Run(folder), history, tracking)
