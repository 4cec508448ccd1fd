"""What every variant gives to the worker that measures it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.cases import Case


class Task(NamedTuple):
    """What a variant is built from."""

    case: Case
    #: (N, *data_shape), 0/1, float32.
    data: np.ndarray
    device: str


class LeftOut(Exception):
    """A variant cannot be measured here; the text says why."""


class Contender(NamedTuple):
    """One variant, built.

    Attributes:
        run: Does so many steps, or estimates of all data, and returns when they are done.
        value: The loss per datum, averaged over some more steps; or the mean log p(x), over all estimates.
        parameters: Copies of all trained tensors; none where nothing is trained.
        device_memory: Peak bytes on the GPU; None on a CPU, where the worker looks itself.
    """

    run: Callable[[int], None]
    value: Callable[[], float | None] = lambda: None
    parameters: Callable[[], list[np.ndarray]] = list
    device_memory: Callable[[], int] | None = None


def loss_steps(batch: int) -> int:
    """Steps over which the loss is averaged: at least 2000 data, and no fewer than 10 steps."""
    return max(10, 2000 // batch)


def mean(values: Iterable[Any]) -> float:
    """The mean of numbers or scalar tensors."""
    return float(np.mean([float(value) for value in values]))
