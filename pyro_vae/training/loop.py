"""The loop of a training: epoch after epoch, step after step."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.randomness import own_randomness
from pyro_vae.training.history import Epoch, History
from pyro_vae.training.trainer import Trainer

Callback = Callable[[Any, History], bool | None]


class Loop:
    """Runs a training from where its state is.

    Args:
        trainer: The state.
        callbacks: Called after each epoch.
        bar: Moved at each step.
    """

    def __init__(self, trainer: Trainer, callbacks: Sequence[Callback], bar: "tqdm[Any]") -> None:
        self.trainer, self.callbacks, self.bar = trainer, callbacks, bar

    def run(self) -> None:
        """Epochs until the budget, the patience or a callback ends it."""
        trainer, history = self.trainer, self.trainer.history
        while not history.ended_by:
            if trainer.step >= trainer.total_steps:
                history.ended_by = "budget"
                break
            self.run_epoch()
            since = max(history.best_epoch, trainer.kl.warm_up)  # the ELBO may fall while the weight rises
            if len(history.epochs) - since >= trainer.patience:
                history.ended_by = "patience"
            self.call()
            trainer.save()

    def call(self) -> None:
        """Call every callback; what they draw changes nothing in training."""
        programs, history = self.trainer.programs, self.trainer.history
        with own_randomness(self.trainer.seed, self.trainer.device):
            if any([callback(programs.given, history) for callback in self.callbacks]):
                history.ended_by = history.ended_by or "callback"
        programs.drop_gradients()

    def run_epoch(self) -> None:
        """One pass over the training data, and the validation after it."""
        trainer = self.trainer
        start, epoch = time.perf_counter(), len(trainer.history.epochs) + 1
        trainer.programs.train()
        train_elbo = self.take_steps(epoch)
        trainer.check_parameters()
        learning_rate = trainer.learning_rate
        valid = trainer.validation.measure()
        if trainer.schedule is not None:
            trainer.schedule.after_epoch(valid[0], warming_up=epoch <= trainer.kl.warm_up)
        beta, seconds = trainer.kl(trainer.step), time.perf_counter() - start
        trainer.history.epochs.append(
            Epoch(epoch, trainer.step, train_elbo, *valid, learning_rate, beta, seconds)
        )
        trainer.remember_best()

    def take_steps(self, epoch: int) -> float:
        """The steps of an epoch; returns the mean ELBO of their data."""
        trainer = self.trainer
        elbo, seen = torch.zeros((), dtype=torch.float64, device=trainer.device), 0
        order = trainer.order(epoch)
        with trainer.steps.epoch():
            for index in trainer.steps.feed.batches(order):
                if trainer.step >= trainer.total_steps:
                    break
                batch_elbo = trainer.take_step(index)
                elbo, seen = elbo + batch_elbo, seen + len(index)
                self.show(epoch, batch_elbo, len(index))
        return float(elbo) / seen

    def show(self, epoch: int, batch_elbo: Tensor, size: int) -> None:
        """Move the progress bar; the ELBO, for which a GPU must wait, is read where it is drawn anew."""
        if self.bar.update() and not self.bar.disable:
            self.bar.set_postfix_str(f"epoch {epoch}, ELBO {float(batch_elbo) / size:.2f}", refresh=False)
