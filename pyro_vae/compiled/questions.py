"""Questions that Pyro and torch ask of numbers, whose usual answer a trace takes for given."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.infer.util import Dice, _fulldot
from torch import Tensor
from torch.distributions import Distribution

#: Validation, which is in no graph, and the sum over discrete latents.
_ASKED_BY = {
    Distribution.__init__.__code__,
    Distribution._validate_sample.__code__,
    Dice.compute_expectation.__code__,
}
_ASKED_WITH = {Tensor.all, getattr(torch, "_is_all_true", Tensor.all)}


def is_usual(func: Any) -> bool:
    """Whether all is as usual by the code that calls it, which is two frames above this one."""
    return func in _ASKED_WITH and sys._getframe(2).f_code in _ASKED_BY


@contextmanager
def usual_answers() -> Iterator[None]:
    """No validation, no looks for NaN, and no search for terms of probability zero.

    `Dice` drops such terms from its sum over discrete latents, where there are any. Here they stay, as zeros.
    """
    with ExitStack() as stack:
        stack.enter_context(pyro.validation_enabled(False))
        for name in ("torch_isnan", "torch_isinf"):
            stack.enter_context(mock.patch(f"pyro.util.{name}", lambda _: False))
        stack.enter_context(mock.patch("pyro.infer.util._fulldot", _masked_dot))
        yield


def _masked_dot(prob: Tensor, cost: Tensor) -> Tensor:
    """Σ p c over p > 0: the same to the last bit where all are."""
    return _fulldot(prob, torch.where(prob > 0, cost, torch.zeros_like(cost)))
