"""The learning-rate schedule: what it counts, and how it follows the validation ELBO."""

import inspect
import math
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from pyro_vae.errors import InputError, make, warn
from pyro_vae.training.options import MakeSchedule, Per


class Schedule:
    """A torch schedule, stepped by epoch or by step.

    It is stepped after each step where it counts steps: `OneCycleLR`, `CyclicLR`, those that hold one of
    them, and what is made by a function of `total_steps`; else after each epoch. `ReduceLROnPlateau` gets the
    validation ELBO after each epoch that is no warm-up of the KL weight: the ELBO itself in its mode max,
    minus the ELBO in its mode min, so that either reduces the rate where the ELBO rises no more. Its relative
    threshold is that share of the size of the best ELBO, whatever its sign.

    Args:
        maker: Makes it from the optimiser; where it has an argument `total_steps` that is not given, this
            gets the number of times that the schedule will be stepped.
        optimiser: Whose rates it sets.
        per: What it is stepped by; by default as above.
        steps: Steps of the whole training.
        epochs: Its epochs, a last part of one included.
        validates: Whether there is a validation ELBO.

    Raises:
        InputError: where it cannot be made, ends before training does, or needs a validation ELBO.

    Warns:
        UserWarning: where training ends before it does.
    """

    def __init__(
        self,
        maker: MakeSchedule,
        optimiser: Optimizer,
        per: Per | None,
        *,
        steps: int,
        epochs: int,
        validates: bool,
    ) -> None:
        takes_total = _takes_total(maker)
        total = epochs if per == "epoch" else steps
        whole = partial(maker, total_steps=total) if takes_total else maker
        self.optimiser = optimiser
        self.made: LRScheduler = make("schedule", whole, optimiser)
        if not isinstance(self.made, LRScheduler):
            raise InputError(
                f"schedule expects a class as StepLR, or a partial of one, got one that makes "
                f"{type(self.made).__name__}: give one of torch.optim.lr_scheduler"
            )
        self.last_rate = self._rate()
        self.per: Per = per or ("step" if takes_total or _counts_steps(self.made) else "epoch")
        if isinstance(self.made, ReduceLROnPlateau):
            self._check_plateau(validates)
        self._check_length(steps if self.per == "step" else epochs)

    def _check_plateau(self, validates: bool) -> None:
        if not validates:
            raise InputError(
                "ReduceLROnPlateau follows the validation ELBO, got no validation data: give a valid "
                "split, or use another schedule"
            )
        if self.per == "step":
            raise InputError(
                "ReduceLROnPlateau follows the validation ELBO of each epoch, got schedule_per 'step': leave "
                "it out"
            )

    def _check_length(self, times: int) -> None:
        """Hold the length of a `OneCycleLR` against that of the training."""
        length = self.made.total_steps if isinstance(self.made, OneCycleLR) else times
        remedy = f"give total_steps={times}, or leave it out, and it is filled in"
        if length < times:
            raise InputError(
                f"OneCycleLR ends after {length} of the {times} {self.per}s of this training: {remedy}"
            )
        if length > times:
            warn(
                f"OneCycleLR is made for {length} {self.per}s, but this training has {times}, so that the "
                f"learning rate does not come down: {remedy}"
            )

    def after_step(self) -> None:
        """Set the rates of the next step."""
        if self.per == "step":
            self.last_rate = self._rate()
            self.made.step()

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return self.last_rate if self.per == "step" else self._rate()

    def _rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    def after_epoch(self, valid_elbo: float, warming_up: bool) -> None:
        """Set the rates of the next epoch."""
        if self.per == "step":
            return
        if not isinstance(self.made, ReduceLROnPlateau):
            self.made.step()
        elif not warming_up:
            _follow(self.made, valid_elbo)

    def in_words(self) -> str:
        """Class and state."""
        by_step = " by step" if self.per == "step" else ""
        return f"{type(self.made).__name__} {self.made.state_dict()}{by_step}"


def _follow(schedule: ReduceLROnPlateau, elbo: float) -> None:
    """Step on the ELBO; torch's relative threshold points the wrong way where the best value is negative."""
    kind, threshold = schedule.threshold_mode, schedule.threshold
    try:
        if kind == "rel":
            best = abs(schedule.best)
            schedule.threshold_mode, schedule.threshold = "abs", threshold * best if best < math.inf else 0.0
        schedule.step(elbo if schedule.mode == "max" else -elbo)
    finally:
        schedule.threshold_mode, schedule.threshold = kind, threshold


def _takes_total(maker: Any) -> bool:
    """Whether the maker has an argument `total_steps` that it has not been given."""
    given = maker.keywords if isinstance(maker, partial) else {}
    if "total_steps" in given:
        missing = given["total_steps"] is None
    else:
        try:
            parameter = inspect.signature(maker).parameters.get("total_steps")
        except (TypeError, ValueError):  # of what is written in C
            parameter = None
        missing = parameter is not None and parameter.default in (None, inspect.Parameter.empty)
    return missing and given.get("epochs") is None


def _parts(schedule: LRScheduler) -> list[LRScheduler]:
    """A schedule, and those that it consists of."""
    parts = [schedule]
    for part in getattr(schedule, "_schedulers", []):
        parts += _parts(part)
    return parts


def _counts_steps(schedule: LRScheduler) -> bool:
    return any(isinstance(part, OneCycleLR | CyclicLR) for part in _parts(schedule))
