"""Pyro's sum over discrete latents, without a look at its numbers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pyro.infer.util
import torch
from pyro.infer.util import Dice, _fulldot
from torch import Tensor

_SUM = Dice.compute_expectation.__code__


@contextmanager
def sums_without_looking() -> Iterator[None]:
    """Let `Dice` keep the terms of probability zero, which it drops where there are any, as zeros."""
    with mock.patch.object(pyro.infer.util, "_fulldot", _masked_dot):
        yield


def asks_for_zeros(func: Any) -> bool:
    """Whether it is `Dice` that calls, to see whether a probability is zero; two frames above this one."""
    return func is Tensor.all and sys._getframe(2).f_code is _SUM


def _masked_dot(prob: Tensor, cost: Tensor) -> Tensor:
    """Σ p c over p > 0: the same to the last bit where all are."""
    return _fulldot(prob, torch.where(prob > 0, cost, torch.zeros_like(cost)))
