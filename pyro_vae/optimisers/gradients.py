"""Gradients as SVI leaves them between two steps."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_had: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def note_gradients(params: Iterable[Tensor]) -> None:
    """Remember that there was a gradient, which `pyro.infer.util.zero_grads` puts to zero for good."""
    for parameter in params:
        _had[parameter] = True


def had_gradient(parameter: Tensor) -> bool:
    """Whether an optimiser of this package took a step on a gradient of it."""
    return parameter in _had


def has_begun(state: Mapping[str, Any] | None) -> bool:
    """Whether a torch optimiser's state of a parameter is that after a step, not that before the first."""
    if not state:
        return False
    return bool(torch.as_tensor(state.get("step", 1)).max() > 0)
