"""The trials of a study in a database, each handed out to one worker at a time.

All trials are put into the database when the study begins, numbered 0, 1, …, each WAITING. A worker takes one
by turning it to RUNNING, which only one worker can. One whose worker has died is turned back to WAITING, with
its number, its options and its folder, from whose checkpoints it goes on; one that has ended stays so. That a
worker of this folder has died is told by its lock on the trial's folder, which ends with the process; that
one elsewhere has, by its pulse in the database, which stands still.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pyro_vae.errors import InputError, shortened
from pyro_vae.storage.locks import has_locks, locked
from pyro_vae.sweeps.databases import PASSING, patiently
from pyro_vae.sweeps.reading import StudyFile


class LostTrialError(Exception):
    """The trial was given to another worker, since this one was taken to be dead."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A trial that this worker has, and no other."""

    trial: optuna.Trial
    folder: Path
    #: Epochs that an earlier worker has told the pruner of.
    reported: frozenset[int]
    #: Raises `LostTrialError` where it is another worker's by now.
    check: Callable[[], None]


class Queue:
    """The trials of one study, as one worker sees them.

    Args:
        storage: The database.
        file: What study.yaml says.
        folder: Of the study.
        measured: On what a trial's value is measured: the same in all trials, on all machines.

    Raises:
        InputError: where the study was begun with another file or other data, or is none of this package.
    """

    #: Seconds between two beats of a worker's pulse, and after how many without one it is taken to be dead.
    beat, grace = 20.0, 120.0
    #: How often a trial's worker may die without an epoch between before the trial counts as failed.
    most_deaths = 3

    def __init__(
        self, storage: RDBStorage, file: StudyFile, folder: Path, measured: Mapping[str, str] | None = None
    ) -> None:
        self.storage, self.file, self.folder = storage, file, folder
        self._definition = json.loads(json.dumps({**file.definition, **(measured or {})}, default=str))
        #: Of this process, for a person, and the same of no other.
        self.worker = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self.total = 0
        self._pulses: dict[int, tuple[Any, float]] = {}
        self._id = self._begun()
        self.local = has_locks(folder)
        self._one_machine = storage.engine.dialect.name == "sqlite"
        self._place = _place(folder)

    def _begun(self) -> int:
        """The study in the database, made where there is none; refused where it is another."""
        left, made = next(self.folder.glob("trial-*"), None), True
        try:
            study = self.storage.create_new_study([StudyDirection.MAXIMIZE], self.file.name)
        except DuplicatedStudyError:
            study, made = self.storage.get_study_id_from_name(self.file.name), False
        number = self.storage.get_n_trials(study)  # before its definition, which is written before them
        attributes = self.storage.get_study_user_attrs(study)
        if number and "definition" not in attributes:
            raise InputError(f"the database has another study {self.file.name}: give this one another name")
        if not number and left is not None:
            raise InputError(
                f"{left} is of a study that the database does not know: give another folder by --out, or "
                "remove it"
            )
        if "definition" not in attributes:
            self.storage.set_study_user_attr(study, "definition", self._definition)
        self._check_same(self.storage.get_study_user_attrs(study)["definition"])
        self._fill(study, attributes.get("trials", 0), made)
        return study

    def _check_same(self, there: dict[str, Any]) -> None:
        """Refuse a file that says something else than that by which the study was begun."""
        here = self._definition
        for name in dict.fromkeys((*there, *here)):
            old, new = there.get(name), here.get(name)
            if old == new:
                continue
            if isinstance(old, dict) and isinstance(new, dict):
                inner = next(key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key))
                name, old, new = f"{name}.{inner}", old.get(inner), new.get(inner)
            raise InputError(
                f"the study {self.file.name} was begun with {name}: {shortened(old)}, got {shortened(new)}: "
                "put it back, or give the study another name"
            )

    def _fill(self, study: int, before: int, made: bool) -> None:
        """Put in as many trials as there are to be, where no other worker is just doing so."""
        self.total = self.file.trials
        if self.total < before:
            raise InputError(
                f"the study {self.file.name} has {before} trials, got trials: {self.total}: give at least "
                f"{before}"
            )
        self.storage.set_study_user_attr(study, "trials", self.total)
        end = time.monotonic() + (10 if not made and before in (0, self.total) else 0)
        while time.monotonic() < end and self.storage.get_n_trials(study) < self.total:
            time.sleep(0.1)
        waiting = optuna.create_trial(state=TrialState.WAITING)
        # where two do so at once there are more than that, of which none beyond the total is ever taken
        while self.storage.get_n_trials(study) < self.total:
            self.storage.create_new_trial(study, waiting)

    @property
    def study(self) -> optuna.Study:
        """Optuna's study, read anew."""
        return self._study(0)

    def _study(self, number: int) -> optuna.Study:
        return optuna.load_study(
            study_name=self.file.name,
            storage=self.storage,
            sampler=self.file.make_sampler(number),
            pruner=self.file.make_pruner(),
        )

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Those of the study, of some states or of all."""
        found = self.storage.get_all_trials(self._id, deepcopy=False, states=states or None)
        return sorted((each for each in found if each.number < self.total), key=lambda each: each.number)

    def refresh(self) -> None:
        """See whether another worker was given a file with more trials."""
        self.total = max(self.total, self.storage.get_study_user_attrs(self._id).get("trials", 0))

    def _id_of(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def place_of(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / f"trial-{number:03}"

    @contextmanager
    def claimed(self) -> Iterator[Claim | None]:
        """Hold the first trial that waits; None where none does."""
        with ExitStack() as stack:
            number = self._take(stack)
            if number is None:
                yield None
                return
            stack.enter_context(self._pulse(number))
            study = self._study(number)
            study.get_trials(deepcopy=False)  # Optuna's new cache knows a trial once it has been read
            trial = optuna.Trial(study, self._id_of(number))
            reported = frozenset(self.storage.get_trial(self._id_of(number)).intermediate_values)
            yield Claim(trial, self.place_of(number), reported, lambda: self._check_mine(number))

    def _take(self, stack: ExitStack) -> int | None:
        """The number of a trial that waited, running from now on, its folder locked."""
        for each in patiently(lambda: self.trials(TrialState.WAITING)):
            place = self.place_of(each.number)
            place.mkdir(parents=True, exist_ok=True)
            with ExitStack() as lock:
                try:
                    lock.enter_context(locked(place))
                except InputError:  # another worker of this folder is just taking it, or giving it back
                    continue
                if patiently(partial(self._turn_to_running, each.number)):
                    stack.enter_context(lock.pop_all())
                    return each.number
        return None

    def _turn_to_running(self, number: int) -> bool:
        """Take a trial; False where another worker has."""
        try:
            taken = self.storage.set_trial_state_values(self._id_of(number), TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
        if taken:
            # by whom, and where: until this is known, its pulse stands still and it is nobody's
            for name, value in (
                ("worker", self.worker),
                ("place", self._place),
                ("folder", str(self.folder)),
            ):
                self.storage.set_trial_user_attr(self._id_of(number), name, value)
        return taken

    @contextmanager
    def _pulse(self, number: int) -> Iterator[None]:
        """Let other machines see that this worker lives."""
        ended, trial_id = threading.Event(), self._id_of(number)

        def beat() -> None:
            beats = 0
            while not ended.wait(self.beat):
                beats += 1
                with suppress(SQLAlchemyError, StorageInternalError, UpdateFinishedTrialError):
                    self.storage.set_trial_user_attr(trial_id, "pulse", [self.worker, beats])
                self.storage.remove_session()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _check_mine(self, number: int) -> None:
        """Refuse to go on with a trial that another worker has by now."""
        try:
            trial = self.storage.get_trial(self._id_of(number))
        except PASSING:  # the database is away: train on
            return
        if trial.state is not TrialState.RUNNING or trial.user_attrs.get("worker") != self.worker:
            raise LostTrialError

    def give_back(self, number: int) -> None:
        """Let the trial be gone on with by whoever comes first."""
        with suppress(LostTrialError, UpdateFinishedTrialError, SQLAlchemyError, StorageInternalError):
            self._check_mine(number)
            self.storage.set_trial_state_values(self._id_of(number), TrialState.WAITING)

    def take_back(self) -> None:
        """Let trials whose worker is dead be gone on with."""
        for each in patiently(lambda: self.trials(TrialState.RUNNING)):
            if self._is_watched_by_lock(each):
                with suppress(InputError), locked(self.place_of(each.number)):
                    self._requeue(each.number)
            elif self._stands_still(each):
                self._requeue(each.number)

    def _is_watched_by_lock(self, trial: FrozenTrial) -> bool:
        """Whether its worker, if it lives, holds a lock that this process sees."""
        here = self._one_machine or trial.user_attrs.get("place") == self._place
        return self.local and here and self.place_of(trial.number).is_dir()

    def _stands_still(self, trial: FrozenTrial) -> bool:
        """Whether its pulse has not changed for long, by the clock of this machine alone."""
        pulse, now = (trial.user_attrs.get("worker"), trial.user_attrs.get("pulse")), time.monotonic()
        before, since = self._pulses.get(trial.number, (None, now))
        if before != pulse:
            self._pulses[trial.number] = pulse, now
            return False
        return now - since > self.grace

    def _requeue(self, number: int) -> None:
        """Turn a trial back to WAITING, or to FAIL where it kills each worker that tries it."""
        trial_id = self._id_of(number)
        trial = self.storage.get_trial(trial_id)
        if trial.state is not TrialState.RUNNING:
            return
        epoch, deaths = trial.user_attrs.get("deaths", (None, 0))
        deaths = deaths + 1 if epoch == trial.last_step else 1
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial_id, "deaths", [trial.last_step, deaths])
            if deaths >= self.most_deaths:
                reason = f"its worker died {deaths} times in the same epoch, as where there is no more memory"
                self.storage.set_trial_user_attr(trial_id, "reason", reason)
                self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
            else:
                self.storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _place(folder: Path) -> str:
    """What is the same for all processes that see the same locks in a folder: one folder on one machine."""
    status = folder.stat()
    return f"{socket.gethostname()} {uuid.getnode()} {status.st_dev} {status.st_ino} {os.name}"
