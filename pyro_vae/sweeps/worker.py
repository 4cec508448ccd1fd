"""What a worker does: trial after trial, until all of the study have ended."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from optuna import TrialPruned
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from pyro_vae.errors import InputError, NonFiniteLossError, one_line
from pyro_vae.sweeps.databases import patiently
from pyro_vae.sweeps.queue import Claim, LostTrialError, Queue
from pyro_vae.sweeps.reading import StudyFile
from pyro_vae.training import History

#: Called after each epoch with the number of the seed among the trial's, and its history; first with that of
#: each seed that an earlier worker has trained.
AfterEpoch = Callable[[int, History], None]


class Train(Protocol):
    """Trains a configuration from all seeds, in a folder; it goes on where it finds checkpoints there."""

    def __call__(
        self, options: Mapping[str, Any], seeds: Sequence[int], folder: Path, after_epoch: AfterEpoch
    ) -> list[float]:
        """The value of each seed, on validation data.

        Raises:
            UnusableError: where this configuration cannot be trained; any other may be.
        """


class UnusableError(InputError):
    """A configuration that cannot be trained."""


#: What ends a worker, and leaves its trial to be gone on with: not the fault of the options.
_LEFT = (InputError, OSError, SQLAlchemyError, StorageInternalError)


def work(queue: Queue, train: Train, bar: "tqdm[Any]", *, poll: float = 1.0) -> None:
    """Train trials until all of the study have ended, those of other workers included.

    So long as others still train, this worker waits, for one of them may die.

    Args:
        queue: Of trials.
        train: How one is trained.
        bar: Over the trials.
        poll: Seconds between two looks for a trial while none waits.
    """
    while True:
        patiently(queue.refresh)
        queue.take_back()
        with queue.claimed() as claim:
            if claim is not None:
                _run(queue, claim, train, bar)
        ended = [each for each in patiently(queue.trials) if each.state.is_finished()]
        _show(bar, len(ended), queue.total)
        if len(ended) == queue.total:
            return
        if claim is None:
            time.sleep(poll)


def _show(bar: "tqdm[Any]", ended: int, total: int, doing: str | None = None) -> None:
    bar.n, bar.total = ended, total
    bar.set_postfix_str("waits for other workers" if doing is None else doing)


def _run(queue: Queue, claim: Claim, train: Train, bar: "tqdm[Any]") -> None:
    """One trial, to its end; where this worker ends before, the trial is left to be gone on with."""
    trial, file = claim.trial, queue.file
    try:
        values, state, reason = _outcome(claim, file, train, bar)
        claim.check()
        if reason:
            trial.set_user_attr("reason", reason)
        if state is TrialState.COMPLETE:
            trial.set_user_attr("values", values)
        value = sum(values) / len(values) if state is TrialState.COMPLETE else None
        ended = patiently(lambda: trial.study.tell(trial, value, state=state, skip_if_finished=True))
    except LostTrialError:
        bar.write(f"trial {trial.number}  went on elsewhere, since this worker gave no sign of life")
    except BaseException:
        queue.give_back(trial.number)
        raise
    else:
        result = f"{value:.3f}" if value is not None else state.name.lower()
        tried = tried_in_words(file, ended)
        bar.write(f"trial {trial.number:<4} {result:>10}  {tried}{f'  ({reason})' if reason else ''}")


def _outcome(
    claim: Claim, file: StudyFile, train: Train, bar: "tqdm[Any]"
) -> tuple[list[float], TrialState, str]:
    """The values of a trial's seeds, how it ended, and why it failed."""
    options = file.space.ask(claim.trial)
    try:
        values = train(options, file.seeds, claim.folder, _Watch(claim, bar, len(file.seeds)))
    except TrialPruned:
        return [], TrialState.PRUNED, ""
    except (UnusableError, NonFiniteLossError) as error:
        return [], TrialState.FAIL, one_line(error)
    except (LostTrialError, *_LEFT):
        raise
    except Exception as error:  # of these options, as too little memory, or of a class of the user's own
        return [], TrialState.FAIL, f"{type(error).__name__}: {one_line(error)}"
    if not all(map(math.isfinite, values)):
        return [], TrialState.FAIL, f"expected a finite value on the validation data, got {values}"
    return values, TrialState.COMPLETE, ""


class _Watch:
    """What is done after each epoch of a seed: the pruner is told of the mean over all seeds.

    A seed that has ended before the others counts as at its last epoch.

    Args:
        claim: The trial.
        bar: Shows how far it is.
        seeds: How many there are.
    """

    def __init__(self, claim: Claim, bar: "tqdm[Any]", seeds: int) -> None:
        self.claim, self.bar, self.seeds = claim, bar, seeds
        self.histories: dict[int, History] = {}
        #: Epochs that all seeds have trained.
        self.epochs = 0

    def __call__(self, number: int, history: History) -> None:
        self.claim.check()
        self.histories[number] = history
        epochs = self._trained_by_all()
        if epochs > self.epochs:
            self._show(epochs)
            with suppress(SQLAlchemyError, StorageInternalError):  # the database is away: train on
                self._tell(epochs)

    def _trained_by_all(self) -> int:
        if len(self.histories) < self.seeds:
            return 0
        lengths = [len(each.epochs) for each in self.histories.values()]
        going = [len(each.epochs) for each in self.histories.values() if not each.ended_by]
        return min(going, default=max(lengths))

    def _mean(self, epoch: int) -> float:
        """Validation ELBO at an epoch, over the seeds."""
        epochs = [each.epochs[: epoch + 1] for each in self.histories.values()]
        return sum(each[min(epoch, len(each)) - 1].valid_elbo for each in epochs) / self.seeds

    def _show(self, epoch: int) -> None:
        several = f", mean of {self.seeds} seeds" if self.seeds > 1 else ""
        elbo = f"ELBO {self._mean(epoch):.2f}{several}"
        self.bar.set_postfix_str(f"trial {self.claim.trial.number}, epoch {epoch}, {elbo}")

    def _tell(self, epochs: int) -> None:
        trial = self.claim.trial
        for epoch in range(self.epochs + 1, epochs + 1):
            if epoch not in self.claim.reported:
                trial.report(self._mean(epoch), epoch)
            self.epochs = epoch
        if trial.should_prune():
            raise TrialPruned


def options_tried(file: StudyFile, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trial that are not the same in all, from the parameters of Optuna's trial."""
    return {
        each.option: each.values.decoded(parameters[each.name])
        for each in file.space.dimensions
        if each.name in parameters
    }


def tried_in_words(file: StudyFile, trial: FrozenTrial) -> str:
    """The options of a trial that are not the same in all, in one line."""
    tried = options_tried(file, trial.params)
    return ", ".join(f"{name} {_short(value)}" for name, value in tried.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
