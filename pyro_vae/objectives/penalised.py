"""The ELBO by enumeration, with a loss of another kind beside it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor

from pyro_vae.batch import Program
from pyro_vae.errors import InputError
from pyro_vae.objectives.bound import Bound
from pyro_vae.objectives.elbo import ELBORecorder


class PenalisedELBO(TraceEnum_ELBO):
    """Maximises ELBO − weight · penalty(x, **given), the ELBO being Pyro's, with marked sites summed out.

    As in the extended objective of Kingma, Mohamed, Rezende & Welling (2014), eq. 9, whose penalty is the
    loss of a classifier: that of a `SemiSupervisedVAE` is its `penalty`.

    Args:
        num_particles: K, draws of z per datum.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: Whether the draws are made at once.
        penalty: Called as the programs are, gives a scalar tensor: summed over the data, in nats.
        weight: Of the penalty.

    Raises:
        InputError: where `weight` is negative or not finite.

    >>> from pyro_vae import Digits, SemiSupervisedVAE, assemble
    >>> data = Digits().with_labels(100)
    >>> vae, batch = assemble(data, program=SemiSupervisedVAE), data.train.take(slice(0, 50))
    >>> elbo = PenalisedELBO(max_plate_nesting=1, penalty=vae.classification_loss)
    >>> elbo.loss(vae.model, vae.guide, batch.x, **batch.given) > 0
    True
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
        *,
        penalty: Callable[..., Tensor],
        weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=vectorize_particles, **options)
        if not 0 <= weight < math.inf:
            raise InputError(f"the weight of a penalty is a number that is not negative, got {weight}")
        self.penalty, self.weight = penalty, weight

    def negative_elbo(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the ELBO, summed over the data, in nats."""
        loss: Tensor = super().differentiable_loss(model, guide, *args, **kwargs)
        return loss

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the ELBO, and the penalty, summed over the data, in nats."""
        loss = self.negative_elbo(model, guide, *args, **kwargs)
        return loss + self.weight * self.penalty(*args, **kwargs)

    @torch.no_grad()
    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `differentiable_loss`, without a gradient."""
        penalty = self.weight * self.penalty(*args, **kwargs).item()
        return float(super().loss(model, guide, *args, **kwargs)) + penalty

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `loss`, with the gradient left in the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()


class PenalisedRecorder(ELBORecorder):
    """The ELBO of the draws on which a `PenalisedELBO` is computed, without the penalty."""

    objective: PenalisedELBO

    def __enter__(self) -> Self:
        self._negative_elbo = self.objective.negative_elbo
        self.objective.negative_elbo = self._listen_to_loss  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        del self.objective.negative_elbo  # uncovers the method of the class

    def _listen_to_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = self._negative_elbo(*args, **kwargs)
        self.elbos.append(-loss.detach())
        return loss


def recorder_of(objective: ELBO, *, weighted: bool) -> ELBORecorder | None:
    """What tells the ELBO of a step; None where it is minus the loss.

    Args:
        objective: What is maximised.
        weighted: Whether its KL term has another weight than 1.
    """
    if isinstance(objective, PenalisedELBO) and not weighted:
        return PenalisedRecorder(objective)
    elbos = (Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO)
    is_elbo = isinstance(objective, elbos) and not isinstance(objective, Bound | PenalisedELBO)
    return None if is_elbo and not weighted else ELBORecorder(objective)


def penalised(
    objective: Callable[..., ELBO], penalty: Callable[..., Tensor], weight: float
) -> Callable[..., ELBO]:
    """What makes the ELBO with marked sites summed out, and a penalty beside it, where there is one.

    Args:
        objective: What the user chose: `Trace_ELBO`, the default of `fit`, or `TraceEnum_ELBO`.
        penalty: As of `PenalisedELBO`.
        weight: Of the penalty; 0 for none.

    Raises:
        InputError: where the user chose another objective.

    >>> penalised(Trace_ELBO, lambda x: x.sum(), 0.0)().__class__.__name__
    'TraceEnum_ELBO'
    """
    made, choices = objective, {}
    if isinstance(objective, partial):
        made, choices = objective.func, objective.keywords
    if made not in (Trace_ELBO, TraceEnum_ELBO):
        raise InputError(
            "a program with labels for some is trained by the ELBO with labels summed out, got the objective "
            f"{getattr(made, '__name__', made)}: leave it out, or choose TraceEnum_ELBO"
        )
    if not weight:
        return partial(TraceEnum_ELBO, **choices)
    return partial(PenalisedELBO, **choices, penalty=penalty, weight=weight)
