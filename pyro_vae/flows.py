"""Normalising flows of zuko as Pyro distributions."""

from typing import Any

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Distribution,
    Independent,
    Normal,
    Transform,
    constraints,
)

from pyro_vae.errors import InputError, count, counts

_validation = Distribution._validate_args
from zuko.distributions import NormalizingFlow  # noqa: E402
from zuko.flows import MAF, NSF  # noqa: E402
from zuko.transforms import ComposedTransform  # noqa: E402

# importing zuko switches validation off for every distribution in the process
Distribution.set_default_validate_args(_validation)

__all__ = ["MAF", "FlowDistribution", "make_flow", "moved_noise"]


class FlowDistribution(ZukoToPyro):
    """A zuko flow over ℝᴸ as a Pyro distribution.

    A draw remembers its log density, so that the inverse of the flow, slow where the draw was fast, is
    needed only for the density at other points.
    """

    support = constraints.real_vector
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own name and kind)

    @property
    def event_shape(self) -> torch.Size:
        """(L,)."""
        return self.dist.base.event_shape  # zuko's own would broadcast with the transform's parameters

    @property
    def mean(self) -> Tensor:
        """The average of 100 draws, since a flow has no closed form of its mean: (*batch_shape, L)."""
        return self.sample((100,)).mean(0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws without gradient: (*sample_shape, *batch_shape, L)."""
        return self.dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Reparameterised draws: (*sample_shape, *batch_shape, L)."""
        return self(sample_shape)

    def expand(self, *args: Any, **kwargs: Any) -> "FlowDistribution":
        """The same flow with another batch shape."""
        return FlowDistribution(self.dist.expand(*args, **kwargs))


def make_flow(
    flow: type[MAF], features: int, context: int, transforms: int, hidden_dims: tuple[int, ...]
) -> MAF:
    """An autoregressive flow of zuko over vectors of length `features`, given `context` numbers."""
    if flow not in (MAF, NSF):  # others that derive from MAF need not be over ℝᴸ, as the circular NCSF
        raise InputError(f"flow expects zuko.flows.MAF or zuko.flows.NSF, got {flow}")
    return flow(
        features,
        context,
        transforms=count("transforms", transforms),
        hidden_features=counts("hidden_dims", hidden_dims),
    )


def moved_noise(transform: Transform, loc: Tensor, scale: Tensor) -> FlowDistribution:
    """The distribution of z = loc + scale ⊙ T(u), u ~ N(0, I): a draw is one pass of T.

    Args:
        transform: T over vectors, fast from u to T(u).
        loc: (..., L).
        scale: (..., L), positive.
    """
    noise = Normal(torch.zeros_like(loc), torch.ones_like(loc))
    to_z = ComposedTransform(transform, AffineTransform(loc, scale, event_dim=1))
    return FlowDistribution(NormalizingFlow(to_z.inv, Independent(noise, 1)))
