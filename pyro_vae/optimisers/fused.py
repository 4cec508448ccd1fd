"""Adam as one fused optimiser."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.optimisers.single import OptimiserOptions, SingleOptimiser


class FusedAdam(SingleOptimiser):
    """Adam as one fused torch optimiser over all parameters, for `pyro.infer.SVI`.

    With the gradient g of step t, each element of a parameter θ moves by

        m ← β₁ m + (1 − β₁) g,    v ← β₂ v + (1 − β₂) g²,
        θ ← θ − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε),

    where t counts the steps that used the parameter, from the first that gave it a gradient (Kingma & Ba
    2015, Adam: a method for stochastic optimization). It takes the place of
    `pyro.optim.Adam({"fused": True, ...})`, equals it to the last bit (see `SingleOptimiser` for what
    differs: the norm that is clipped, and schedules of parameters that come late), goes on from its states
    and is faster, the more so the smaller the networks.

    Args:
        optim_args: Options of `torch.optim.Adam`, or a function from a parameter's name to them; fused
            unless they say `"fused": False`, as complex parameters need.
        clip_args: `clip_norm` and `clip_value`, as in `SingleOptimiser`.
        schedule: A function from the torch optimiser to a scheduler, which `step` moves on.

    Raises:
        InputError: as `SingleOptimiser` does.

    >>> import pyro, torch
    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> optimiser = FusedAdam({"lr": 1e-3}, {"clip_norm": 10.0}, schedule=lambda adam:
    ...     torch.optim.lr_scheduler.ExponentialLR(adam, 0.5))
    >>> svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, pyro.infer.Trace_ELBO())
    >>> for epoch in range(3):
    ...     loss = svi.step(data.train.batch(slice(0, 100)))
    ...     optimiser.step()
    >>> optimiser.optimiser.param_groups[0]["lr"]
    0.000125
    """

    def __init__(
        self,
        optim_args: OptimiserOptions | None = None,
        clip_args: Mapping[str, float | None] | None = None,
        *,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
    ) -> None:
        super().__init__(torch.optim.Adam, optim_args, clip_args, schedule=schedule)

    def _options_of(self, name: str) -> dict[str, Any]:
        return {"fused": True, **super()._options_of(name)}
