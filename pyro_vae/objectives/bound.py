"""What all bounds share, and how `fit` makes an objective."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, ReweightedWakeSleep, Trace_ELBO, Trace_MMD, TraceTailAdaptive_ELBO
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.batch import Program
from pyro_vae.compiled import CompiledELBO
from pyro_vae.errors import InputError, count, make
from pyro_vae.programs import sites

#: Arguments of Pyro's ELBOs that `fit` gives, or that are no choice of a user.
PLUMBING = frozenset(
    {
        "num_particles",
        "max_plate_nesting",
        "max_iarange_nesting",
        "vectorize_particles",
        "strict_enumeration_warning",
        "ignore_jit_warnings",
        "jit_options",
        "retain_graph",
        "tail_adaptive_beta",
    }
)

#: ELBOs that give two losses, no bound, or need what `fit` has not; it compiles by itself.
UNUSABLE = (ReweightedWakeSleep, TraceTailAdaptive_ELBO, Trace_MMD, CompiledELBO)


class Bound(Trace_ELBO):
    """An objective that is one differentiable tensor.

    Contract for the author of the next one: `negative_bound` gives minus the bound, summed over the data,
    from a trace of the model and one of the guide. Each site has its `log_prob`, scaled and masked, with
    the particles at axis −`max_plate_nesting`.

    Args:
        num_particles: K, draws of z per datum, always made at once.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: As in Pyro's ELBOs, and without effect.
    """

    #: Whether the bound of a batch is the sum of those of its data.
    adds_up = True

    def __init__(
        self, num_particles: int = 1, max_plate_nesting: float = math.inf, vectorize_particles: bool = True
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=True)
        self.max_plate_nesting += num_particles == 1  # Pyro counts the axis of several particles only

    @abstractmethod
    def negative_bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """Minus the bound, summed over the data, in nats."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return self.negative_bound(*traces)

    @torch.no_grad()
    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `differentiable_loss`, without a gradient."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `loss`, with the gradient left in the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _guess_max_plate_nesting(self, *args: Any) -> None:
        super()._guess_max_plate_nesting(*args)
        self.max_plate_nesting += self.num_particles == 1

    def _vectorized_num_particles(self, fn: Program) -> Program:
        return pyro.plate("particles", self.num_particles, dim=-self.max_plate_nesting)(fn)


def check_reparameterised(guide_trace: Trace, objective: ELBO) -> None:
    """Refuse a guide whose draws carry no gradient."""
    for name in sites(guide_trace, observed=False):
        fn = guide_trace.nodes[name]["fn"]
        if not fn.has_rsample:
            raise InputError(
                f"{type(objective).__name__} expects reparameterised sites in the guide, got {name!r} with "
                f"{type(fn).__name__}: use Trace_ELBO"
            )


def make_objective(objective: Callable[..., ELBO], num_particles: int) -> ELBO:
    """The ELBO that `objective` makes for programs whose one plate is "data"."""
    if isinstance(objective, ELBO):
        raise InputError(
            f"objective expects a class as Trace_ELBO, or a partial of one, got an instance of "
            f"{type(objective).__name__}: give the class, and num_particles beside it"
        )
    several = count("num_particles", num_particles) > 1

    def with_particles(number: int) -> object:
        return objective(num_particles=number, max_plate_nesting=1, vectorize_particles=several)

    made = make("objective", with_particles, num_particles)
    if not isinstance(made, ELBO) or isinstance(made, UNUSABLE) or type(made).__name__.startswith("Jit"):
        raise InputError(
            "objective expects a class of ELBO whose gradient is that of one loss, got one that makes "
            f"{type(made).__name__}: use Trace_ELBO, TraceMeanField_ELBO, ImportanceWeightedELBO or the like"
        )
    return made


def objective_in_words(objective: ELBO) -> str:
    """Class and choices of an objective."""
    choices = {name: value for name, value in sorted(vars(objective).items()) if not callable(value)}
    return f"{type(objective).__name__} {choices}"
