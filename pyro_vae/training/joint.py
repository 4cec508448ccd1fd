"""A `JointProgram` in training: its parameters are those of the module."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Size, Tensor, nn

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError, warn
from pyro_vae.importance import elbo
from pyro_vae.likelihoods.continuous import LocationScaleLikelihood
from pyro_vae.objectives import penalised
from pyro_vae.priors import asks_for_warm_up
from pyro_vae.randomness import own_randomness
from pyro_vae.training.data import Splits
from pyro_vae.training.trained import Trained
from pyro_vae.vae import JointProgram, StandardisedLikelihood

_FAR = 1000.0  # nats per number: some 45 standard deviations


class TrainedModule(Trained):
    """A `JointProgram`: its parameters are those of the module, and the store is left as it was.

    Args:
        vae: The module.
        device: Where `check` moves it; by default where it is.

    Raises:
        InputError: where it has no parameters.
    """

    def __init__(self, vae: JointProgram, device: torch.device | None = None) -> None:
        super().__init__(vae, vae.model, vae.guide)
        if next(vae.parameters(), None) is None:
            raise InputError(
                "expected a model with parameters to train, got none: give "
                f"{type(vae).__name__} its networks as attributes"
            )
        self.vae = vae
        self.device = vae.device if device is None else device
        self.dtype = vae.dtype
        self.modules = [vae]
        self.known = [parameter for parameter in vae.parameters() if parameter.requires_grad]
        prior = asks_for_warm_up(vae)
        self.warm_up_share = prior.warm_up_share if prior else 0.0

    def check(self, splits: Splits) -> None:
        """Hold all data, as they will be used, against the model, run both programs once, and move them.

        Raises:
            InputError: where the data's shape or values do not fit, or the programs' shapes do not.

        Warns:
            UserWarning: where the data are on a scale that the likelihood hardly learns, or the ELBO begins
                below −1000 nats for each number of a datum.
        """
        vae = self.vae
        was_training = vae.training
        vae.eval()
        try:
            with self.store(), own_randomness(0, vae.device):
                self.check_signatures(splits)
                vae.check_evaluated(splits.valid.given if len(splits.valid) else ())
                ends = _Ends()
                for split in splits:
                    for start in range(0, len(split), 1000):
                        batch = vae.place(split.take(slice(start, start + 1000)))
                        batch.offer(vae.check)
                        ends.meet(batch.x)
                first = vae.place(splits.train.take(slice(0, 2)))
                _warn_of_scale(vae, ends, first)
        finally:
            vae.train(was_training)
        vae.to(self.device)
        self.has_run = True

    def objective(self, objective: Callable[..., ELBO]) -> Callable[..., ELBO]:
        """For one plate, several particles at once, and with what the program has beside the ELBO."""
        penalty = self.vae.penalty()
        return objective if penalty is None else penalised(objective, *penalty)

    def store(self) -> AbstractContextManager[object]:
        """An empty store."""
        scope: AbstractContextManager[object] = pyro.get_param_store().scope()
        return scope

    def place(self, batch: Batch) -> Batch:
        """Data on the device and in the type of the parameters."""
        return batch.to(self.device, self.dtype)

    def meet(self, params: Iterable[Tensor]) -> list[Tensor]:
        """All parameters that are not frozen."""
        assert self.known is not None
        return self.known

    def used(self, params: set[Tensor], held: set[Tensor]) -> set[Tensor]:
        """All; the optimiser refuses others than its own."""
        return params

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """All parameters of the module."""
        return self.vae.named_parameters()

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """The module and all parts of it."""
        return self.vae.named_modules()

    def leaves(self) -> Iterable[Tensor]:
        """All parameters of the module."""
        return self.vae.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """That of the module."""
        return self.vae.state_dict()

    def load_state_dict(self, state: Any) -> object:
        """That of the module."""
        return self.vae.load_state_dict(state)


class _Ends:
    """The lowest and the highest number that was met, NaN apart."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def meet(self, x: Tensor) -> None:
        """Take all of x in."""
        missing = x.isnan()
        self.low = min(self.low, float(torch.where(missing, math.inf, x).min()))
        self.high = max(self.high, float(torch.where(missing, -math.inf, x).max()))


def _warn_of_scale(vae: JointProgram, ends: _Ends, first: Batch) -> None:
    """Say once where training begins so far away that it will hardly come back."""
    start = float(elbo(vae.model, vae.guide, first).elbo.mean())
    likelihood = _of_real_data(vae, first.x.shape[1:])
    if likelihood is not None and ends.low <= ends.high:
        advice = likelihood.scale_advice(ends.low, ends.high)
        if advice is not None:
            warn(advice)
            return
    if start < -_FAR * first.x[0].numel():
        warn(
            f"training begins at an ELBO of {start:.3g} nats per datum, on values from {ends.low:.6g} to "
            f"{ends.high:.6g}: bring the data to about unit scale, as by (x - x.mean(0)) / x.std(0), or "
            "choose a likelihood for their range"
        )


def _of_real_data(vae: JointProgram, data_shape: Size) -> LocationScaleLikelihood | None:
    """The likelihood that sees the data as they are."""
    for module in vae.modules():  # the outer before the inner
        if isinstance(module, StandardisedLikelihood):
            return None
        if isinstance(module, LocationScaleLikelihood) and Size(module.data_shape) == data_shape:
            return module
    return None
