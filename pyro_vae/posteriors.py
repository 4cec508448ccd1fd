"""Posteriors q(z|x): the amortised approximation, a network that ends in a distribution."""

from abc import ABC, abstractmethod

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import count
from pyro_vae.networks import bounded, check_bounds, head


class Posterior(nn.Module, ABC):
    """The approximate posterior q(z|x).

    Contract for the author of the next one: `posterior(x)` with x of shape (..., *data_shape) returns
    a distribution with batch shape (...) and event shape (L,), reparameterised (`rsample`) wherever
    possible. The constructor takes `encoder` and `latent_dim` first and its own choices as keyword
    arguments with defaults; the attributes `encoder` and `latent_dim` are set.

    On the command line a constructor's parameters named `encoder`, `latent_dim` and `data_shape` are
    filled in; all others become options.
    """

    encoder: nn.Module
    latent_dim: int

    @abstractmethod
    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z|x)."""


class DiagonalNormalPosterior(Posterior):
    """q(z|x) = N(z; m(x), diag s(x)²), mean and log scale being two linear heads of one encoder.

    Kingma & Welling, "Auto-Encoding Variational Bayes" (2014).

    Args:
        encoder: Network from data to features.
        latent_dim: L, the length of z.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> posterior = DiagonalNormalPosterior(MLP().encoder((1, 8, 8)), 5)
    >>> qz = posterior(torch.zeros(3, 1, 8, 8))
    >>> qz.batch_shape, qz.event_shape
    (torch.Size([3]), torch.Size([5]))
    """

    def __init__(
        self, encoder: nn.Module, latent_dim: int, *, log_scale_bounds: tuple[float, float] = (-6.0, 6.0)
    ) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.encoder = encoder
        self.loc = head(encoder, (latent_dim,))
        self.log_scale = head(encoder, (latent_dim,))

    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z|x): batch shape (...), event shape (L,)."""
        features = self.encoder(x)
        scale = bounded(self.log_scale(features), self.log_scale_bounds).exp()
        return dist.Normal(self.loc(features), scale).to_event(1)
