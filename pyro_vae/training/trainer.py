"""The state of a training, as it is saved and continued."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor
from torch.optim import Optimizer

from pyro_vae.batch import Batch
from pyro_vae.compiled import Run, machine, make_capturable
from pyro_vae.data import batches, shuffle
from pyro_vae.errors import InputError, NonFiniteLossError, count, seed_number, warn
from pyro_vae.objectives import KLWeight, check_mean_field, make_objective, objective_in_words
from pyro_vae.programs.running import buffers_kept
from pyro_vae.randomness import own_randomness, random_state, set_random_state
from pyro_vae.ranks import here
from pyro_vae.storage.checkpoints import check_settings, damaged, describe, load_parameters, save_checkpoint
from pyro_vae.storage.hashing import fingerprint
from pyro_vae.storage.pace import Pace
from pyro_vae.training.data import Splits
from pyro_vae.training.distributed import DistributedSteps
from pyro_vae.training.history import History
from pyro_vae.training.kl import KLSchedule
from pyro_vae.training.optimising import Optimising
from pyro_vae.training.options import FitOptions
from pyro_vae.training.saved import history_of, load_best, load_last
from pyro_vae.training.schedules import Schedule
from pyro_vae.training.steps import Steps
from pyro_vae.training.trained import Trained
from pyro_vae.training.validation import Validation
from pyro_vae.training.ways import way_of

#: Of the time, the largest that writing checkpoints takes.
_SHARE = 0.1


class Trainer:
    """The state of a training, as it is saved and continued.

    Args:
        programs: What is trained.
        data: On which.
        options: How.
        folder: Of checkpoints; None for none.
        about: What is kept in each of them.
        weighs: Have a handler for the weight of the KL term also where it is 1, as a training beside others
            whose weights are not.

    Raises:
        InputError: where an option cannot be used with these programs and data.
    """

    def __init__(
        self,
        programs: Trained,
        data: Splits,
        options: FitOptions,
        folder: Path | None,
        about: Mapping[str, Any],
        *,
        weighs: bool = False,
    ) -> None:
        self.programs = programs
        self.device = programs.device
        self.options = options
        self.train = data.train.to(self.device)
        self.batch_size = count("batch_size", options.batch_size)
        self.seed = seed_number(options.seed)
        self.validation = Validation(programs, data.valid.to(self.device), self.seed)
        self.total_steps, self.patience = self._budget()
        self.kl = self._kl_schedule(self._warm_up())
        self.kl_weight = None if self.kl.is_one and not weighs else KLWeight(self._number(self.kl(1)))
        self.objective = make_objective(programs.objective(options.objective), options.num_particles)
        self._objective_in_words = objective_in_words(self.objective)
        programs.check_precision(options.precision)
        programs.check_last_batch(self.batch_size, len(self.train), self.total_steps, here().size)
        self.schedule: Schedule | None = None
        self.optimising = Optimising(programs, options.optimiser, options.clip_norm, self._ready)
        #: The processes that share the training.
        self.ranks = here()
        way = way_of(options.compile, self.device, self.total_steps)
        self.steps = (DistributedSteps if self.ranks.several else Steps)(
            programs,
            self.objective,
            self.kl_weight,
            self.optimising,
            self.train,
            self.batch_size,
            way._replace(whole=False) if self.ranks.several else way,
            options.precision,
            options.weight,
            self.not_finite,
        )
        self.settings: dict[str, int | float | str | None] = {}
        self.about = dict(about)
        self.folder = folder
        self.saved_epoch = 0
        #: Of the checkpoints.
        self.pace = Pace(_SHARE)
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.step = 0
        if programs.known is not None:
            self.optimising.begin(programs.known)
            self._ready()

    def _number(self, value: float) -> Tensor:
        """A tensor that is changed in place, as graphs see it."""
        return torch.tensor(value, device=self.device, dtype=self.programs.dtype)

    @property
    def optimiser(self) -> Optimizer:
        """The torch optimiser, once the parameters are known."""
        return self.optimising.optimiser

    def _ready(self) -> None:
        """Make what depends on the optimiser, and refuse what the parameters had to be known for."""
        self.schedule = self._make_schedule()
        by_step = self.schedule is not None and self.schedule.per == "step"  # a CUDA graph holds its rate
        if self.steps.way.whole:
            self.steps.meet(self.optimiser)
        way = self.steps.way
        captured = way.captured and not by_step and make_capturable(self.optimiser)
        self.steps.way = way._replace(captured=captured)
        self.settings = self._settings()
        programs = self.programs
        if isinstance(self.objective, TraceMeanField_ELBO):
            with programs.store(), own_randomness(0, self.device), buffers_kept():
                batch = programs.place(self.train.take(slice(0, self.batch_size)))
                check_mean_field(programs.model, programs.guide, batch)
        programs.check_places(self.batch_size, len(self.train))
        if not programs.has_run:
            self.validation.check()
            programs.train()

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.train) / self.batch_size)

    @property
    def total_epochs(self) -> int:
        """Epochs in all, the last of which may be a part of one."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def learning_rate(self) -> float:
        """That of the last step, of the first parameters."""
        if self.schedule is not None:
            return self.schedule.learning_rate
        return float(self.optimiser.param_groups[0]["lr"])

    def _budget(self) -> tuple[int, float]:
        """Steps in all, and epochs without a better validation ELBO."""
        batches(self.train, self.batch_size, seed=self.seed, epoch=1)  # refuses what it cannot serve
        options, patience = self.options, self.options.patience
        if self.batch_size < here().size:
            raise InputError(
                f"batch_size expects a datum or more for each of {here().size} ranks, got {self.batch_size}"
            )
        if patience is not None and not len(self.validation.split):
            raise InputError("patience needs validation data, got none: leave it out, or give a valid split")
        total = count("epochs", options.epochs) * self.steps_per_epoch
        return (
            total if options.steps is None else count("steps", options.steps),
            math.inf if patience is None else count("patience", patience),
        )

    def _warm_up(self) -> int:
        """Epochs of it: what was given, or what the prior asks for."""
        if not self.options.prior_warms_up:
            return self.options.kl_warm_up or 0
        return math.ceil(self.programs.warm_up_share * self.total_epochs)

    def _kl_schedule(self, warm_up: int) -> KLSchedule:
        return KLSchedule(self.options.kl_weight, warm_up, self.options.kl_cycle, self.steps_per_epoch)

    def _make_schedule(self) -> Schedule | None:
        options = self.options
        if options.schedule is None:
            return None
        return Schedule(
            options.schedule,
            self.optimiser,
            options.schedule_per,
            steps=self.total_steps,
            epochs=self.total_epochs,
            validates=len(self.validation.split) > 0,
        )

    def _settings(self) -> dict[str, int | float | str | None]:
        """What must be the same for a continuation to be exact."""
        weight = self.options.weight
        return {
            "batch_size": self.batch_size,
            "objective": self._objective_in_words,
            **self.kl.settings(),
            "seed": self.seed,
            **self.optimising.clip_args,
            "optimiser": f"{type(self.optimiser).__name__} {self.optimiser.defaults}",
            "rounding": self.steps.way.rounding,
            "precision": self.steps.precision,
            "schedule": self.schedule.in_words() if self.schedule else "none",
            "training data": self.train.hash(),
            "window": self.steps.feed.window,
            "weight": weight and f"{weight} {fingerprint(self.train.fields[weight])}",
            "validation data": self.validation.split.hash(),
        }

    def order(self, epoch: int) -> Tensor:
        """The order of the data in an epoch: a random one, or their own where all are one batch."""
        order = shuffle(self.train, self.steps.generator, seed=self.seed, epoch=epoch)
        return order.sort().values if self.batch_size == len(self.train) else order

    def take_step(self, index: Tensor) -> Tensor:
        """One step; returns the unweighted ELBO of the batch, summed over its data."""
        self.before_step()
        elbo = self.steps.take(index, self.step + 1)
        self.after_step()
        return elbo

    def finish_step(self, run: Run, batch: Batch) -> Tensor:
        """One step by a run that has been done on a batch; returns the ELBO as `take_step`."""
        elbo = self.steps.finish(run, batch, self.step + 1)
        self.after_step()
        return elbo

    def before_step(self) -> None:
        """Set the weight of the KL term."""
        if self.kl_weight is not None:
            self.kl_weight.weight.fill_(self.kl(self.step + 1))

    def after_step(self) -> None:
        """Count a step that was taken, and set the rate of the next."""
        self.step += 1
        if self.schedule is not None:
            self.schedule.after_step()

    def remember_best(self) -> None:
        """Keep a copy of the parameters where the last epoch is the best so far."""
        latest = self.history.epochs[-1]
        if latest.valid_elbo > self.history.best_valid_elbo:
            self.history.best_epoch = latest.epoch
            self.best = {name: tensor.clone() for name, tensor in self.programs.state_dict().items()}

    def _identity(self) -> dict[str, Any]:
        """To what a checkpoint belongs."""
        return {"settings": self.settings, "about": self.about, "description": describe(self.programs)}

    def save_best(self) -> None:
        """best.pt: the parameters of the best epoch, for use; last.pt holds them too, for going on."""
        if self.folder is not None and self.best is not None and self.ranks.first:
            content = {
                "model": self.best,
                "epoch": self.history.best_epoch,
                "valid_elbo": self.history.best_valid_elbo,
                **self._identity(),
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
        """best.pt, and last.pt, all that an exact continuation needs: as `pace` lets them, and at the end."""
        if self.folder is None or not self.ranks.from_first(self._is_due):
            return
        with self.pace.taken():
            if self.history.best_epoch > self.saved_epoch:
                self.save_best()
            if self.ranks.first:
                save_checkpoint(self.folder / "last.pt", self._state())
        self.saved_epoch = len(self.history.epochs)

    def _is_due(self) -> bool:
        return bool(self.history.ended_by) or self.step >= self.total_steps or self.pace.due()

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.programs.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.made.state_dict() if self.schedule is not None else {},
            "random_state": random_state(self.device),
            "step": self.step,
            "epochs": [list(epoch) for epoch in self.history.epochs],
            "best_epoch": self.history.best_epoch,
            "ended_by": self.history.ended_by,
            "faster": machine.FASTER.used() if self.steps.way.fast else None,
            **self._identity(),
        }

    def load(self) -> None:
        """Go on from last.pt."""
        if self.folder is None:
            raise InputError("resume needs the folder of checkpoints, got none: give checkpoints=FOLDER")
        path = self.folder / "last.pt"
        if not path.exists():
            check_nothing_is_lost(self.folder / "best.pt")
            return  # stopped before the end of its first epoch
        if self.train.unhashed is not None:
            warn(
                "training goes on with items that have no hash and may be others at each use, so that it "
                "need not be as without a break to the last bit"
            )
        state = load_last(path)
        self._round_as(state.get("faster"))
        if self.programs.known is None:
            self.programs.train()
            self.steps.look(next(self.steps.feed.batches(self.order(1))))
        load_parameters(self.programs, state, path)
        self._warm_up_as(state["settings"].get("kl_warm_up"))
        check_settings(state["settings"], self.settings, path)
        with damaged(path):
            self.optimiser.load_state_dict(state["optimiser"])
            if self.schedule is not None:
                self.schedule.made.load_state_dict(state["schedule"])
            set_random_state(state["random_state"], self.device)
        self.step = state["step"]
        self.history = history_of(state)
        self.saved_epoch = len(self.history.epochs)
        self.best = state["best"]
        self._go_on()
        self.save_best()

    def _warm_up_as(self, saved: object) -> None:
        """Keep to the warm-up of the training that goes on, also where it is to be a longer one."""
        if self.options.prior_warms_up and self.kl.warm_up and isinstance(saved, int) and saved:
            self.kl = self._kl_schedule(saved)
            self.settings = self._settings()

    def _round_as(self, used: object) -> None:
        """Use the operations of the training that goes on, where it was on a machine like this."""
        if self.steps.way.fast and used is not None and not machine.FASTER.adopt(used):
            warn(
                "training goes on with another processor, number of threads, version of torch or "
                "PYRO_VAE_FAST than before, so that it need not be as without a break to the last bit"
            )

    def _go_on(self) -> None:
        """Take up a training that had ended, where it is given a larger budget or more patience."""
        ended, since = self.history.ended_by, max(self.history.best_epoch, self.kl.warm_up)
        more_steps = ended == "budget" and self.step < self.total_steps
        more_patience = ended == "patience" and len(self.history.epochs) - since < self.patience
        if more_steps or more_patience:
            self.history.ended_by = ""


def check_nothing_is_lost(best: Path) -> None:
    """Refuse to start anew where epochs were trained and last.pt is gone."""
    if best.exists() and load_best(best)["epoch"] > 1:
        raise InputError(
            f"expected last.pt beside {best}, found none, so this training cannot go on: "
            "use best.pt as it is, or train anew in another folder"
        )
