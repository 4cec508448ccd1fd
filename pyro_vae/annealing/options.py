"""The options of annealing."""

from typing import Literal, NamedTuple, get_args

from pyro_vae.compiled.policy import Compile
from pyro_vae.errors import InputError, count

Start = Literal["prior", "guide"]
Schedule = Literal["sigmoid", "linear", "adaptive"]


#: Temperatures by default, and at the most where a gap is asked for.
_USUAL, _MOST = 1000, 10_000


def usual_temperatures(until_gap: float | None) -> int:
    """How many temperatures there are where no number of them is given, or may be until a gap is reached."""
    return _USUAL if until_gap is None else _MOST


class AnnealingOptions(NamedTuple):
    """How to anneal; what each means stands with `annealed_log_evidence`."""

    num_chains: int
    num_temperatures: int
    start: Start
    schedule: Schedule
    leapfrog_steps: int
    target_acceptance: float
    rows: int | None
    compile: Compile

    def checked(self) -> "AnnealingOptions":
        """These as plain numbers and words, refused where one means nothing."""
        words = {"start": Start, "schedule": Schedule, "compile": Compile}
        for name, kind in words.items():
            *others, last = map(repr, get_args(kind))
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} expects {', '.join(others)} or {last}, got {getattr(self, name)!r}")
        if not 0 < self.target_acceptance < 1:
            raise InputError(
                f"target_acceptance expects a number between 0 and 1, got {self.target_acceptance}"
            )
        if self.schedule == "adaptive" and self.num_chains == 1:
            raise InputError("an adaptive schedule expects 2 chains at least, got 1: choose another schedule")
        return self._replace(
            num_chains=count("num_chains", self.num_chains),
            num_temperatures=count("num_temperatures", self.num_temperatures),
            leapfrog_steps=count("leapfrog_steps", self.leapfrog_steps),
            target_acceptance=float(self.target_acceptance),
            rows=None if self.rows is None else count("rows", self.rows),
        )
