"""The weight β of the KL term, step by step."""

import math
from collections.abc import Callable

from pyro_vae.errors import InputError, count

#: Of a function, what a checkpoint holds its values against at.
_STEPS = (1, 10, 100)


class KLSchedule:
    """β in step t = 1, 2, …: the weight, times the share of the warm-up that is done.

    β(t) = weight(t) · min(1, s/W), with W the steps of the warm-up and s = t, or s = (t − 1) mod C + 1 where
    the warm-up begins anew every C steps: cyclical annealing, Fu et al., "Cyclical Annealing Schedule: A
    Simple Approach to Mitigating KL Vanishing" (2019), eq. 6, whose R is W/C, from the share of one step
    instead of from 0.

    Args:
        weight: A number, or a function of the step.
        warm_up: Epochs of the warm-up, 0 for none.
        cycle: Epochs after which it begins anew, 0 for never.
        steps_per_epoch: Steps in an epoch.

    Raises:
        InputError: where a number is negative or not finite, or a cycle is shorter than its warm-up.

    >>> beta = KLSchedule(2.0, warm_up=1, cycle=2, steps_per_epoch=2)
    >>> [beta(step) for step in range(1, 7)]
    [1.0, 2.0, 2.0, 2.0, 1.0, 2.0]
    """

    def __init__(
        self, weight: float | Callable[[int], float], warm_up: int, cycle: int, steps_per_epoch: int
    ) -> None:
        if warm_up:
            count("kl_warm_up", warm_up)
        if cycle:
            _check_cycle(count("kl_cycle", cycle), warm_up)
        self.weight, self.warm_up, self.cycle = weight, warm_up, cycle
        self.steps_of_warm_up, self.steps_of_cycle = warm_up * steps_per_epoch, cycle * steps_per_epoch
        self._full(1)

    @property
    def is_one(self) -> bool:
        """Whether it is 1 throughout, so that nothing has to be weighted."""
        return self.weight == 1 and not self.warm_up

    def __call__(self, step: int) -> float:
        """β in a step, counted from 1."""
        done = (step - 1) % self.steps_of_cycle + 1 if self.cycle else step
        return self._full(step) * min(1.0, done / max(self.steps_of_warm_up, 1))

    def _full(self, step: int) -> float:
        if not callable(self.weight):
            weight, what = self.weight, "a number that is not negative"
        else:
            weight, what = self.weight(step), f"a function whose value in step {step} is not negative"
        try:
            value = float(weight)
        except (TypeError, ValueError):
            value = math.nan
        if not 0 <= value < math.inf:
            raise InputError(f"kl_weight expects {what}, got {weight}")
        return value

    def settings(self) -> dict[str, int | float | str | None]:
        """What must be the same for a continuation to be exact."""
        weight: float | str = ""
        if callable(self.weight):
            some = {step: self.weight(step) for step in _STEPS}
            weight = f"a function of the step with the values {some}"
        else:
            weight = self.weight
        warm_up = f"{self.warm_up} of every {self.cycle}" if self.cycle else self.warm_up
        return {"kl_weight": weight, "kl_warm_up": warm_up}


def _check_cycle(cycle: int, warm_up: int) -> None:
    if not warm_up:
        raise InputError(
            f"kl_cycle begins the warm-up anew every {cycle} epochs, got no kl_warm_up: give it, as "
            "half of the cycle"
        )
    if cycle < warm_up:
        raise InputError(
            f"kl_cycle expects at least the {warm_up} epochs of kl_warm_up, got {cycle}: give more, or a "
            "shorter warm-up"
        )
