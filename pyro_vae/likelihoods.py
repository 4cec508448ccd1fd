"""Likelihoods p(x|z): a network that ends in a distribution over data."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.errors import InputError
from pyro_vae.networks import Shape, bounded, check_bounds, head


class Likelihood(nn.Module, ABC):
    """The likelihood p(x|z).

    Contract for the author of the next one: `likelihood(z)` with z of shape (..., L) returns a
    distribution with batch shape (...) and event shape `data_shape`, for any number of leading axes.
    Its `support` is true to the data it is a density for, since `check` holds data against it;
    `support_in_words` and `remedy` complete that message. The constructor takes `decoder` and
    `data_shape` first and its own choices as keyword arguments with defaults; the attributes of these
    names are set.

    On the command line a constructor's parameters named `decoder`, `latent_dim` and `data_shape` are
    filled in; all others become options.
    """

    decoder: nn.Module
    data_shape: Shape
    support_in_words: str = "values in its support"
    remedy: str = "rescale the data or choose another likelihood"

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z)."""

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """Refuse data x outside the support of px = p(x|z).

        Raises:
            InputError: with the range of x and the remedy.
        """
        support: Any = px.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        outside = x[~support.check(x)]
        if len(outside):
            first = float(outside.flatten()[0])
            raise InputError(
                f"{type(self).__name__} expects {self.support_in_words}, got {first:.4g} among "
                f"values from {float(x.min()):.4g} to {float(x.max()):.4g}: {self.remedy}"
            )


class BernoulliLikelihood(Likelihood):
    """p(x|z) = Π_d Bernoulli(x_d; σ(l_d(z))), for binary data x_d ∈ {0, 1}.

    Grey pixels are refused: their cross-entropy is no log-likelihood.

    Args:
        decoder: Network from z to features, to which the head for the logits l is added.
        data_shape: Shape of one datum.

    >>> from pyro_vae import MLP
    >>> likelihood = BernoulliLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8))
    >>> px = likelihood(torch.zeros(3, 5))
    >>> px.batch_shape, px.event_shape
    (torch.Size([3]), torch.Size([1, 8, 8]))
    """

    support_in_words = "the values 0 and 1"
    remedy = "binarise the data (binarization dynamic, static or threshold), or use NormalLikelihood"

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.logits = head(decoder, data_shape)
        self.data_shape = self.logits.output_shape

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        logits = self.logits(self.decoder(z))
        return dist.Bernoulli(logits=logits).to_event(len(self.data_shape))


class NormalLikelihood(Likelihood):
    """p(x|z) = Π_d N(x_d; m_d(z), s_d²), for real data; s is a standard deviation, in units of x.

    The log density is one of continuous data, in nats, and can be positive.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        scale: A fixed number, `shared` (one learned number for all pixels), or `per_pixel` (given by
            the network for each pixel of each datum).
        log_scale_bounds: Range of a learned log s, approached smoothly.

    Raises:
        InputError: where a fixed scale is not positive and finite.

    >>> from pyro_vae import MLP
    >>> likelihood = NormalLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8), scale=0.1)
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    support_in_words = "finite numbers"
    fixed_scale: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        data_shape: Iterable[int],
        *,
        scale: float | Literal["shared", "per_pixel"] = "shared",
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__()
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.decoder = decoder
        self.loc = head(decoder, data_shape)
        self.data_shape = self.loc.output_shape
        self.log_scale: nn.Module | nn.Parameter | None = None
        if scale == "per_pixel":
            self.log_scale = head(decoder, self.data_shape)
        elif scale == "shared":
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif isinstance(scale, str) or not 0 < scale < math.inf:
            raise InputError(f"scale expects a positive number, 'shared' or 'per_pixel', got {scale!r}")
        else:
            self.register_buffer("fixed_scale", torch.tensor(float(scale)))

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        features = self.decoder(z)
        return dist.Normal(self.loc(features), self._scale(features)).to_event(len(self.data_shape))

    def _scale(self, features: Tensor) -> Tensor:
        if self.log_scale is None:
            return self.fixed_scale
        raw = self.log_scale(features) if isinstance(self.log_scale, nn.Module) else self.log_scale
        return bounded(raw, self.log_scale_bounds).exp()
