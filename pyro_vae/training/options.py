"""The options of `fit`: its signature and the command line take them from here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from pyro.infer import ELBO, Trace_ELBO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError

Precision = Literal["full", "bfloat16"]
Keep = Literal["best", "last"]
Per = Literal["epoch", "step"]
MakeOptimiser = Callable[[Iterable[nn.Parameter]], Optimizer]
#: Called with the optimiser, and with total_steps=… where it has an argument of this name.
MakeSchedule = Callable[..., LRScheduler]


def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Adam at 1e-3, in one kernel."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class FitOptions:
    """How a training goes; each option means what `fit` says of it.

    Raises:
        InputError: where one that is chosen from a few is none of them.

    >>> FitOptions(epochs=5).epochs, FitOptions.epochs
    (5, 100)
    """

    epochs: int = 100
    steps: int | None = None
    batch_size: int = 100
    optimiser: MakeOptimiser = adam
    schedule: MakeSchedule | None = None
    schedule_per: Per | None = None
    objective: Callable[..., ELBO] = Trace_ELBO
    num_particles: int = 1
    kl_weight: float | Callable[[int], float] = 1.0
    kl_warm_up: int | None = None
    kl_cycle: int = 0
    weight: str | None = None
    clip_norm: float | None = None
    patience: int | None = None
    keep: Keep = "best"
    compile: Compile = "auto"
    precision: Precision = "full"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.keep not in ("best", "last"):
            raise InputError(f"keep expects 'best' or 'last', got {self.keep!r}")
        if self.schedule_per not in ("epoch", "step", None):
            raise InputError(f"schedule_per expects 'epoch' or 'step', got {self.schedule_per!r}")
        if self.precision not in ("full", "bfloat16"):
            raise InputError(f"precision expects 'full' or 'bfloat16', got {self.precision!r}")

    @property
    def prior_warms_up(self) -> bool:
        """Whether the warm-up is what the prior asks for, since nothing else is said of the weight.

        >>> FitOptions().prior_warms_up, FitOptions(kl_warm_up=0).prior_warms_up
        (True, False)
        """
        return self.kl_warm_up is None and not self.kl_cycle and not callable(self.kl_weight)

    def in_words(self) -> dict[str, float | str | None]:
        """Each by name, a function or class by its own.

        >>> FitOptions(epochs=5).in_words()["objective"]
        'Trace_ELBO'
        """
        return words_of({option.name: getattr(self, option.name) for option in fields(self)})


def words_of(values: Mapping[str, Any]) -> dict[str, float | str | None]:
    """Numbers and words as they are, a function, a class or an object by its name."""
    return {
        name: value if value is None or isinstance(value, float | int | str) else _in_words(value)
        for name, value in values.items()
    }


def _in_words(value: Callable[..., object]) -> str:
    """The name of a function, with what it is given where it is a `partial`."""
    if isinstance(value, partial):
        choices = ", ".join(f"{name}={choice}" for name, choice in value.keywords.items())
        return f"{_in_words(value.func)}({choices})"
    return getattr(value, "__name__", type(value).__name__)


#: Their names, in order.
FIT_OPTIONS = tuple(option.name for option in fields(FitOptions))
