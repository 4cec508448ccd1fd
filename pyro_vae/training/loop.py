"""The loop of a training: epoch after epoch, step after step."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.precision import home, wide
from pyro_vae.randomness import own_randomness
from pyro_vae.training.history import Epoch, History
from pyro_vae.training.trainer import Trainer
from pyro_vae.training.validation import Means

Callback = Callable[[Any, History], bool | None]


class TakeSteps(NamedTuple):
    """Asks for the steps of an epoch; the answer is the mean ELBO of their data."""

    #: Of the data, (N,).
    order: Tensor


class Measure(NamedTuple):
    """Asks for the validation; the answer is as by `Validation.measure`."""


Request = TakeSteps | Measure


class Loop:
    """Runs a training from where its state is.

    What takes long is asked for, so that it can be done for several trainings at once (`epochs`).

    Args:
        trainer: The state.
        callbacks: Called after each epoch.
        bar: Moved at each step.
    """

    def __init__(self, trainer: Trainer, callbacks: Sequence[Callback], bar: "tqdm[Any]") -> None:
        self.trainer, self.callbacks, self.bar = trainer, callbacks, bar

    def run(self) -> None:
        """Epochs until the budget, the patience or a callback ends it."""
        epochs, answer = self.epochs(), None
        while True:
            try:
                request = epochs.send(answer)
            except StopIteration:
                return
            answer = self.answer(request)

    def answer(self, request: Request) -> Any:
        """Do what is asked for, for this training alone."""
        if isinstance(request, TakeSteps):
            return self.take_steps(request.order)
        return self.trainer.ranks.from_first(self.trainer.validation.measure)

    def epochs(self) -> Generator[Request, Any, None]:
        """All that a training does between its steps and its validations, for which it asks."""
        trainer, history = self.trainer, self.trainer.history
        while not history.ended_by:
            if trainer.step >= trainer.total_steps:
                history.ended_by = "budget"
                break
            yield from self.run_epoch()
            since = max(history.best_epoch, trainer.kl.warm_up)  # the ELBO may fall while the weight rises
            if len(history.epochs) - since >= trainer.patience:
                history.ended_by = "patience"
            self.call()
            trainer.save()

    def call(self) -> None:
        """Call every callback, on the first rank; what they draw changes nothing in training."""
        programs, history = self.trainer.programs, self.trainer.history
        with own_randomness(self.trainer.seed, self.trainer.device):
            ends = self.trainer.ranks.from_first(
                lambda: any([callback(programs.given, history) for callback in self.callbacks])
            )
            if ends:
                history.ended_by = history.ended_by or "callback"
        programs.drop_gradients()

    def run_epoch(self) -> Generator[Request, Any, None]:
        """One pass over the training data, and the validation after it."""
        trainer = self.trainer
        start, epoch = time.perf_counter(), len(trainer.history.epochs) + 1
        trainer.programs.train()
        train_elbo = yield TakeSteps(trainer.order(epoch))
        trainer.check_parameters()
        learning_rate = trainer.learning_rate
        valid: Means = yield Measure()
        if trainer.schedule is not None:
            trainer.schedule.after_epoch(valid[0], warming_up=epoch <= trainer.kl.warm_up)
        beta, seconds = trainer.kl(trainer.step), time.perf_counter() - start
        trainer.history.epochs.append(
            Epoch(epoch, trainer.step, train_elbo, *valid, learning_rate, beta, seconds)
        )
        trainer.remember_best()

    def take_steps(self, order: Tensor) -> float:
        """The steps of an epoch; returns the mean ELBO of their data."""
        trainer, epoch = self.trainer, len(self.trainer.history.epochs) + 1
        elbo, seen = torch.zeros((), dtype=torch.float64, device=home(trainer.device)), 0
        with trainer.steps.epoch():
            for index in trainer.steps.feed.batches(order):
                if trainer.step >= trainer.total_steps:
                    break
                batch_elbo = trainer.take_step(index)
                elbo, seen = elbo + wide(batch_elbo), seen + len(index)
                self.show(epoch, batch_elbo, len(index))
        return float(elbo) / seen

    def show(self, epoch: int, batch_elbo: Tensor, size: int) -> None:
        """Move the progress bar; the ELBO, for which a GPU must wait, is read where it is drawn anew."""
        if self.bar.update() and not self.bar.disable:
            epochs = self.trainer.total_epochs
            elbo = float(batch_elbo) / size
            self.bar.set_postfix_str(f"epoch {epoch}/{epochs}, ELBO {elbo:.2f}", refresh=False)
