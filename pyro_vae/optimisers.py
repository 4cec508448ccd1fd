"""Optimisers for SVI."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import LBFGS, Optimizer, SparseAdam

from pyro_vae.errors import InputError, make


class SingleOptimiser(PyroOptim):
    """One torch optimiser over all parameters, as an optimiser for `pyro.infer.SVI`.

    Pyro's own optimisers hold one torch optimiser per tensor, which costs more than the step itself
    where networks are small. The update of each parameter is the same.

    Args:
        optimiser: A torch optimiser that already holds the parameters.
        clip_norm: Bound on the norm of the whole gradient; None for no bound.

    Raises:
        InputError: in a step, where the parameters of model and guide are not the very tensors that
            `optimiser` holds, since SVI would then train nothing and not say so.

    >>> import pyro, torch
    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> optimiser = SingleOptimiser(torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True))
    >>> svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, pyro.infer.Trace_ELBO())
    >>> loss = svi.step(data.train.batch(slice(0, 100)))
    """

    def __init__(self, optimiser: Optimizer, *, clip_norm: float | None = None) -> None:
        super().__init__(type(optimiser), {})
        if clip_norm is not None and not clip_norm > 0:
            raise InputError(f"clip_norm expects a positive number, got {clip_norm}")
        self.optimiser = optimiser
        self.clip_norm = clip_norm
        held = [tensor for group in optimiser.param_groups for tensor in group["params"]]
        self.parameters = [tensor for tensor in held if tensor.requires_grad]
        self._identities = {id(tensor) for tensor in self.parameters}

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step on the gradients that SVI has left in `params`."""
        if {id(tensor) for tensor in params} != self._identities:
            self._refuse(list(params))
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimiser.step(*args, **kwargs)
        self.optimiser.zero_grad(set_to_none=True)

    def get_state(self) -> dict[str, Any]:
        """The torch optimiser's state."""
        return self.optimiser.state_dict()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load what `get_state` gave."""
        self.optimiser.load_state_dict(state_dict)

    def _refuse(self, params: list[Tensor]) -> None:
        seen = {id(tensor) for tensor in params}
        missed = sum(tensor not in seen for tensor in self._identities)
        strange = sum(tensor not in self._identities for tensor in seen)
        raise InputError(
            "expected model and guide to use the very parameters that the optimiser holds, got "
            f"{missed} of {len(self._identities)} not used by the programs and {strange} that it does not "
            "hold: register every module in model or guide, freeze what is not to be trained "
            "(requires_grad_(False)), and clear Pyro's parameter store of other models"
        )


def make_optimiser(optimiser: Callable[[Iterable[nn.Parameter]], Optimizer], module: nn.Module) -> Optimizer:
    """The optimiser that `optimiser` makes of the module's parameters that are not frozen.

    Raises:
        InputError: where there are none, or what is made cannot take plain steps.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("expected a model with parameters to train, got none: all are frozen")
    made: object = make("optimiser", optimiser, trained)
    if not isinstance(made, Optimizer) or isinstance(made, LBFGS | SparseAdam):
        raise InputError(
            "optimiser expects a function from parameters to a torch optimiser for dense gradients, "
            f"got {type(made).__name__}: use Adam, AdamW, SGD or the like"
        )
    for group in made.param_groups:  # numpy's numbers could not be loaded without executing code
        group.update({key: value.item() for key, value in group.items() if isinstance(value, np.generic)})
    return made
