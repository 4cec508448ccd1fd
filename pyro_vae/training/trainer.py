"""The state of a training: one epoch after the other, saved and continued."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from pyro_vae.batch import Batch
from pyro_vae.compiled import Compile, make_capturable
from pyro_vae.data import batches, shuffle
from pyro_vae.errors import InputError, NonFiniteLossError, count, make, seed_number
from pyro_vae.importance.bound import elbo_of
from pyro_vae.objectives import KLWeight, check_mean_field, make_objective, objective_in_words
from pyro_vae.programs import Pair
from pyro_vae.programs.running import buffers_kept
from pyro_vae.randomness import own_randomness, random_state, set_random_state
from pyro_vae.storage.checkpoints import check_settings, load_checkpoint, load_parameters, save_checkpoint
from pyro_vae.training.data import Splits
from pyro_vae.training.history import Epoch, History
from pyro_vae.training.optimising import MakeOptimiser, Optimising
from pyro_vae.training.steps import Precision, Steps, way_of
from pyro_vae.training.trained import Trained

Callback = Callable[[Any, History], bool | None]


class Trainer:
    """The state of a training, as it is saved and continued."""

    def __init__(
        self,
        programs: Trained,
        data: Splits,
        *,
        epochs: int,
        steps: int | None,
        batch_size: int,
        optimiser: MakeOptimiser,
        schedule: Callable[[Optimizer], LRScheduler] | None,
        objective: Callable[..., ELBO],
        num_particles: int,
        kl_weight: float,
        kl_warm_up: int,
        clip_norm: float | None,
        patience: int | None,
        compile: Compile,
        precision: Precision,
        seed: int,
        folder: Path | None,
    ) -> None:
        self.programs = programs
        self.device = programs.device
        self.train = data.train.to(self.device)
        self.valid = data.valid.to(self.device)
        self.batch_size = count("batch_size", batch_size)
        self.seed = seed_number(seed)
        self.total_steps, self.patience = self._budget(epochs, steps, patience)
        self.kl_weight = self._make_kl_weight(kl_weight, kl_warm_up)
        self.objective = make_objective(programs.objective(objective), num_particles)
        self._objective_in_words = objective_in_words(self.objective)
        if precision not in ("full", "bfloat16"):
            raise InputError(f"precision expects 'full' or 'bfloat16', got {precision!r}")
        programs.check_precision(precision)
        programs.check_last_batch(self.batch_size, len(self.train), self.total_steps)
        self._schedule_maker = schedule
        self.schedule: LRScheduler | None = None
        self.optimising = Optimising(programs, optimiser, clip_norm, self._ready)
        self.steps = Steps(
            programs,
            self.objective,
            self.kl_weight,
            self.optimising,
            self.train,
            batch_size,
            way_of(compile, self.device),
            precision,
            self.not_finite,
        )
        self.settings: dict[str, int | float | str | None] = {}
        self.folder = folder
        self.saved_epoch = 0
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.step = 0
        #: The programs as they are measured, looked into at the first validation.
        self.pair: Pair | None = None
        if programs.known is not None:
            self.optimising.begin(programs.known)
            self._ready()

    @property
    def optimiser(self) -> Optimizer:
        """The torch optimiser, once the parameters are known."""
        return self.optimising.optimiser

    def _ready(self) -> None:
        """Make what depends on the optimiser, and refuse what the parameters had to be known for."""
        self.schedule = self._make_schedule(self._schedule_maker)
        way = self.steps.way
        self.steps.way = way._replace(captured=way.captured and make_capturable(self.optimiser))
        self.settings = self._settings()
        programs = self.programs
        if isinstance(self.objective, TraceMeanField_ELBO):
            with programs.store(), own_randomness(0, self.device), buffers_kept():
                x = programs.place(self.train.batch(slice(0, self.batch_size)))
                check_mean_field(programs.model, programs.guide, x)
        programs.check_places(self.batch_size, len(self.train))
        if not programs.has_run:
            self._try_validation()
            programs.train()

    def _try_validation(self) -> None:
        """Refuse programs whose validation ELBO cannot be told, before a parameter is changed."""
        try:
            self.validate()
        except InputError as error:
            raise InputError(
                f"there is no validation ELBO of these programs: {error}; to train without it, give no valid "
                "split"
            ) from error

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.train) / self.batch_size)

    def _budget(self, epochs: int, steps: int | None, patience: int | None) -> tuple[int, float]:
        """Steps in all, and epochs without a better validation ELBO."""
        batches(self.train, self.batch_size, seed=self.seed, epoch=1)  # refuses what it cannot serve
        if patience is not None and not len(self.valid):
            raise InputError("patience needs validation data, got none: leave it out, or give a valid split")
        total = count("epochs", epochs) * self.steps_per_epoch
        return (
            total if steps is None else count("steps", steps),
            math.inf if patience is None else count("patience", patience),
        )

    def _make_schedule(self, schedule: Callable[[Optimizer], LRScheduler] | None) -> LRScheduler | None:
        made = make("schedule", schedule, self.optimiser) if schedule is not None else None
        if isinstance(made, ReduceLROnPlateau):
            raise InputError(
                "expected a schedule stepped by epoch, got ReduceLROnPlateau: use patience instead"
            )
        return made

    def _make_kl_weight(self, kl_weight: float, kl_warm_up: int) -> KLWeight | None:
        """The weight of the KL term, where it is not 1 throughout."""
        if not 0 <= kl_weight < math.inf:
            raise InputError(f"kl_weight expects a number that is not negative, got {kl_weight}")
        if kl_warm_up:
            count("kl_warm_up", kl_warm_up)
        self.full_kl_weight, self.kl_warm_up = kl_weight, kl_warm_up
        if kl_weight == 1 and not kl_warm_up:
            return None
        return KLWeight(torch.tensor(float(kl_weight), device=self.device, dtype=self.programs.dtype))

    def _settings(self) -> dict[str, int | float | str | None]:
        """What must be the same for a continuation to be exact."""
        schedule = self.schedule
        return {
            "batch_size": self.batch_size,
            "objective": self._objective_in_words,
            "kl_weight": self.full_kl_weight,
            "kl_warm_up": self.kl_warm_up,
            "seed": self.seed,
            **self.optimising.clip_args,
            "optimiser": f"{type(self.optimiser).__name__} {self.optimiser.defaults}",
            "rounding": self.steps.way.rounding,
            "precision": self.steps.precision,
            "schedule": f"{type(schedule).__name__} {schedule.state_dict()}" if schedule else "none",
            "training data": self.train.hash(),
            "validation data": self.valid.hash(),
        }

    def run(self, callbacks: Sequence[Callback], bar: "tqdm[Any]") -> None:
        """Epochs until the budget, the patience or a callback ends it."""
        while not self.history.ended_by:
            if self.step >= self.total_steps:
                self.history.ended_by = "budget"
                break
            self.run_epoch(bar)
            since = max(self.history.best_epoch, self.kl_warm_up)  # the ELBO may fall while the weight rises
            if len(self.history.epochs) - since >= self.patience:
                self.history.ended_by = "patience"
            self.call(callbacks)
            self.save()

    def call(self, callbacks: Sequence[Callback]) -> None:
        """Call every callback; what they draw changes nothing in training."""
        with own_randomness(self.seed, self.device):
            if any([callback(self.programs.given, self.history) for callback in callbacks]):
                self.history.ended_by = self.history.ended_by or "callback"
        self.programs.drop_gradients()

    def run_epoch(self, bar: "tqdm[Any]") -> None:
        """One pass over the training data, and the validation after it."""
        start, epoch = time.perf_counter(), len(self.history.epochs) + 1
        elbo, seen = torch.zeros((), dtype=torch.float64, device=self.device), 0
        self.programs.train()
        order = self.order(epoch)
        with self.steps.epoch():
            for index in order.split(self.batch_size):
                if self.step >= self.total_steps:
                    break
                batch_elbo = self.take_step(index)
                elbo, seen = elbo + batch_elbo, seen + len(index)
                self.show(bar, epoch, batch_elbo, len(index))
        self.check_parameters()
        learning_rate = float(self.optimiser.param_groups[0]["lr"])
        if self.schedule is not None:
            self.schedule.step()
        valid = self.validate()
        seconds = time.perf_counter() - start
        beta = self.kl_weight_at(self.step)
        self.history.epochs.append(
            Epoch(epoch, self.step, float(elbo) / seen, *valid, learning_rate, beta, seconds)
        )
        self.remember_best()

    def order(self, epoch: int) -> Tensor:
        """The order of the data in an epoch: a random one, or their own where all are one batch."""
        order = shuffle(self.train, self.steps.generator, seed=self.seed, epoch=epoch)
        return order.sort().values if self.batch_size == len(self.train) else order

    def take_step(self, index: Tensor) -> Tensor:
        """One step; returns the unweighted ELBO of the batch, summed over its data."""
        if self.kl_weight is not None:
            self.kl_weight.weight.fill_(self.kl_weight_at(self.step + 1))
        elbo = self.steps.take(index, self.step + 1)
        self.step += 1
        return elbo

    def show(self, bar: "tqdm[Any]", epoch: int, batch_elbo: Tensor, size: int) -> None:
        """Move the progress bar; the ELBO, for which a GPU must wait, is read where it is drawn anew."""
        if bar.update() and not bar.disable:
            bar.set_postfix_str(f"epoch {epoch}, ELBO {float(batch_elbo) / size:.2f}", refresh=False)

    def kl_weight_at(self, step: int) -> float:
        """β in a step, counted from 1."""
        return self.full_kl_weight * min(1.0, step / max(self.kl_warm_up * self.steps_per_epoch, 1))

    def validate(self) -> tuple[float, float, float]:
        """Validation ELBO, reconstruction and KL by the same draws in every epoch."""
        if not len(self.valid):
            return math.nan, math.nan, math.nan
        self.programs.eval()
        with own_randomness(self.seed, self.device):
            data = Batch(self.programs.place(self.valid.batch()))
            if self.pair is None:
                self.pair = Pair(self.programs.model, self.programs.guide, data)
            terms = elbo_of(self.pair, data)
        return float(terms.elbo.mean()), float(terms.reconstruction.mean()), float(terms.kl.mean())

    def remember_best(self) -> None:
        """Keep a copy of the parameters where the last epoch is the best so far."""
        latest = self.history.epochs[-1]
        if latest.valid_elbo > self.history.best_valid_elbo:
            self.history.best_epoch = latest.epoch
            self.best = {name: tensor.clone() for name, tensor in self.programs.state_dict().items()}
            self.save_best()

    def save_best(self) -> None:
        """best.pt: the parameters of the best epoch, for use; last.pt holds them too, for going on."""
        if self.folder is not None and self.best is not None:
            content = {
                "model": self.best,
                "epoch": self.history.best_epoch,
                "valid_elbo": self.history.best_valid_elbo,
                "settings": self.settings,
            }
            save_checkpoint(self.folder / "best.pt", content)

    def restore_best(self) -> None:
        """Give the model the parameters of the best epoch, where there is one."""
        if self.best is not None:
            self.programs.load_state_dict(self.best)

    def check_parameters(self) -> None:
        """Stop before a checkpoint of parameters that the last steps have made non-finite."""
        self.programs.check_store(self.optimising.held)
        for name, parameter in self.programs.named_parameters():
            if not torch.isfinite(parameter).all():
                raise self.not_finite(f"the parameter {name} is not finite after step {self.step}")

    def not_finite(self, what: str) -> NonFiniteLossError:
        """The error, with the remedy and the way back."""
        way_back = "no checkpoint was written before"
        if self.saved_epoch:
            way_back = f"the last good checkpoint is {self.folder}/last.pt of epoch {self.saved_epoch}"
        return NonFiniteLossError(f"{what}: lower the learning rate or give clip_norm; {way_back}")

    def save(self) -> None:
        """last.pt: all that an exact continuation needs."""
        if self.folder is None:
            return
        state = {
            "model": self.programs.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else {},
            "random_state": random_state(self.device),
            "step": self.step,
            "epochs": [list(epoch) for epoch in self.history.epochs],
            "best_epoch": self.history.best_epoch,
            "ended_by": self.history.ended_by,
            "settings": self.settings,
        }
        save_checkpoint(self.folder / "last.pt", state)
        self.saved_epoch = len(self.history.epochs)

    def load(self) -> None:
        """Go on from last.pt."""
        if self.folder is None:
            raise InputError("resume needs the folder of checkpoints, got none: give checkpoints=FOLDER")
        path = self.folder / "last.pt"
        if not path.exists():
            check_nothing_is_lost(self.folder / "best.pt")
            return  # stopped before the end of its first epoch
        state = load_checkpoint(
            path, ("model", "optimiser", "schedule", "random_state", "epochs", "settings")
        )
        if self.programs.known is None:
            self.programs.train()
            self.steps.look(self.order(1)[: self.batch_size])
        load_parameters(cast(nn.Module, self.programs), state, path)
        check_settings(state["settings"], self.settings, path)
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        set_random_state(state["random_state"], self.device)
        self.step = state["step"]
        epochs = [Epoch(*row) for row in state["epochs"]]
        self.history = History(epochs, state["best_epoch"], state["ended_by"])
        self.saved_epoch = len(epochs)
        self.best = state["best"]
        self.save_best()


def check_nothing_is_lost(best: Path) -> None:
    """Refuse to start anew where epochs were trained and last.pt is gone."""
    if best.exists() and load_checkpoint(best, ("epoch",))["epoch"] > 1:
        raise InputError(
            f"expected last.pt beside {best}, found none, so this training cannot go on: "
            "use best.pt as it is, or train anew in another folder"
        )
