"""Torch optimisers: made, checked, and loaded in part."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from pyro_vae.errors import InputError, make


def make_optimiser(optimiser: Callable[[Iterable[nn.Parameter]], Optimizer], module: nn.Module) -> Optimizer:
    """The optimiser that `optimiser` makes of the module's parameters that are not frozen.

    Raises:
        InputError: where there are none, or what is made cannot take plain steps.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("expected a model with parameters to train, got none: all are frozen")
    return checked(make("optimiser", optimiser, trained))


def checked(made: object) -> Optimizer:
    """What was made, refused where it is no torch optimiser that takes plain steps."""
    if made is None or isinstance(made, PyroOptim):
        raise InputError(
            "optimiser expects a function from parameters to a torch optimiser, got one of pyro.optim, or "
            "one that gives none: give functools.partial(torch.optim.Adam, lr=1e-3), and clip_norm to clip"
        )
    if not isinstance(made, Optimizer) or isinstance(made, LBFGS | SparseAdam):
        raise InputError(
            "optimiser expects a function from parameters to a torch optimiser for dense gradients, "
            f"got {type(made).__name__}: use Adam, AdamW, SGD or the like"
        )
    for group in made.param_groups:  # numpy's numbers could not be loaded without executing code
        group.update({key: value.item() for key, value in group.items() if isinstance(value, np.generic)})
    return made


def groups_of(tensors: Mapping[str, Tensor], optimiser: Optimizer) -> dict[str, int]:
    """The group of each parameter in a made optimiser."""
    groups = {tensor: i for i, group in enumerate(optimiser.param_groups) for tensor in group["params"]}
    return {name: groups[tensor] for name, tensor in tensors.items()}


def load_groups(optimiser: Optimizer, saved: list[dict[str, Any]]) -> None:
    """Load the options of the groups."""
    packed = optimiser.state_dict()
    packed["param_groups"] = [
        {**group, **options} for group, options in zip(packed["param_groups"], saved, strict=True)
    ]
    optimiser.load_state_dict(packed)


def load_states(optimiser: Optimizer, states: Mapping[Tensor, Any]) -> None:
    """Load the states of some parameters, moved and cast as torch does it."""
    packed = optimiser.state_dict()
    tensors = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    packed["state"].update({i: states[tensor] for i, tensor in enumerate(tensors) if tensor in states})
    optimiser.load_state_dict(packed)
