"""Posteriors q(z|x): the amortised approximation, a network that ends in a distribution."""

import math
from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import count
from pyro_vae.flows import MAF, make_flow, moved_noise
from pyro_vae.networks import bounded, check_bounds, declared_shape, head


class Posterior(nn.Module, ABC):
    """The approximate posterior q(z|x).

    Contract for the author of the next one: `posterior(x)` with x of shape (..., *data_shape) returns
    a distribution with batch shape (...) and event shape (L,), reparameterised (`rsample`) wherever
    possible. The constructor takes `encoder` and `latent_dim` first and its own choices as keyword
    arguments with defaults; the attributes `encoder` and `latent_dim` are set.

    One that depends on something given beside x names it, `conditions = ("label",)`, and is called with it:
    `posterior(x, label=y)`; `check_conditions` refuses what does not fit.

    On the command line a constructor's parameters named `encoder`, `latent_dim` and `data_shape` are
    filled in; all others become options.

    >>> from pyro_vae import MLP
    >>> class UnitPosterior(Posterior):
    ...     def __init__(self, encoder: nn.Module, latent_dim: int, *, scale: float = 1.0) -> None:
    ...         super().__init__()
    ...         self.encoder, self.latent_dim, self.scale = encoder, latent_dim, scale
    ...         self.loc = head(encoder, (latent_dim,))
    ...     def forward(self, x):
    ...         return dist.Normal(self.loc(self.encoder(x)), self.scale).to_event(1)
    >>> qz = UnitPosterior(MLP().encoder((1, 8, 8)), 3)(torch.zeros(5, 1, 8, 8))
    >>> qz.batch_shape, qz.event_shape, qz.has_rsample
    (torch.Size([5]), torch.Size([3]), True)
    """

    encoder: nn.Module
    latent_dim: int

    #: Names of what it depends on besides, given by name.
    conditions: tuple[str, ...] = ()

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse, by InputError, what is given and does not fit; accepts all unless overridden."""

    @abstractmethod
    def forward(self, x: Tensor) -> TorchDistribution:
        """q(z|x)."""


class _LocatedPosterior(Posterior):
    """A posterior with a mean m(x) and scales s(x) as two linear heads of one encoder.

    Args:
        encoder: Network from data to features.
        latent_dim: L, the length of z.
        log_scale_bounds: Range of log s, approached smoothly.
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
        return self._density(self.loc(features), scale, features)

    @abstractmethod
    def _density(self, loc: Tensor, scale: Tensor, features: Tensor) -> TorchDistribution:
        """q(z|x) from m(x) and s(x), (..., L), and the encoder's features of x."""


class DiagonalNormalPosterior(_LocatedPosterior):
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

    def _density(self, loc: Tensor, scale: Tensor, features: Tensor) -> TorchDistribution:
        return dist.Normal(loc, scale).to_event(1)


class FullNormalPosterior(_LocatedPosterior):
    """q(z|x) = N(z; m(x), C(x) C(x)ᵀ), C being the Cholesky factor diag s(x) (I + strictly lower B(x)).

    It can follow correlations of the true posterior, which a diagonal one cannot; L(L − 1)/2 more outputs.

    Args:
        encoder: Network from data to features.
        latent_dim: L, the length of z.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> posterior = FullNormalPosterior(MLP().encoder((1, 8, 8)), 5)
    >>> posterior(torch.zeros(3, 1, 8, 8)).covariance_matrix.shape
    torch.Size([3, 5, 5])
    """

    lower: Tensor

    def __init__(
        self, encoder: nn.Module, latent_dim: int, *, log_scale_bounds: tuple[float, float] = (-6.0, 6.0)
    ) -> None:
        super().__init__(encoder, latent_dim, log_scale_bounds=log_scale_bounds)
        lower = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("lower", lower, persistent=False)
        # one coordinate has nothing to correlate with
        self.correlation = head(encoder, (lower.shape[1],)) if latent_dim > 1 else None

    def _density(self, loc: Tensor, scale: Tensor, features: Tensor) -> TorchDistribution:
        factor = torch.diag_embed(torch.ones_like(scale))
        if self.correlation is not None:
            row, column = self.lower
            factor[..., row, column] = self.correlation(features)
        return dist.MultivariateNormal(loc, scale_tril=scale[..., None] * factor)


class LowRankNormalPosterior(_LocatedPosterior):
    """q(z|x) = N(z; m(x), S (I + V Vᵀ) S), S = diag s(x), with R columns in V(x), entries in (−10, 10).

    Between a diagonal and a full covariance: L·R more outputs. A factor covariance as in Ong, Nott & Smith,
    "Gaussian variational approximation with a factor covariance structure" (2018), whose W is S V.

    Args:
        encoder: Network from data to features.
        latent_dim: L, the length of z.
        rank: R.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> posterior = LowRankNormalPosterior(MLP().encoder((1, 8, 8)), 5, rank=2)
    >>> posterior(torch.zeros(3, 1, 8, 8)).cov_factor.shape
    torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        *,
        rank: int = 2,
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__(encoder, latent_dim, log_scale_bounds=log_scale_bounds)
        self.factor = head(encoder, (latent_dim, count("rank", rank)))

    def _density(self, loc: Tensor, scale: Tensor, features: Tensor) -> TorchDistribution:
        factor = bounded(self.factor(features), (-10, 10))  # keeps I + VᵀV well-conditioned
        return dist.LowRankMultivariateNormal(loc, scale[..., None] * factor, scale.square())


class FlowPosterior(_LocatedPosterior):
    """q(z|x): z = m(x) + s(x) ⊙ T(u; x), u ~ N(0, I), T an autoregressive flow given the encoder's features.

    T acts on all coordinates at once, so a draw is one pass and its log density comes with it; the
    density at another point takes L passes. With affine steps (`MAF`, used from noise to z) it is the
    inverse autoregressive flow of Kingma et al. (2016), with `zuko.flows.NSF` a neural spline flow (Durkan
    et al. 2019); where T is the identity, it is `DiagonalNormalPosterior`.

    Args:
        encoder: Network from data to features.
        latent_dim: L, the length of z.
        flow: `zuko.flows.MAF` or `zuko.flows.NSF`.
        transforms: Number of autoregressive transformations, their orders alternating.
        hidden_dims: Widths of the hidden layers of each.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> posterior = FlowPosterior(MLP().encoder((1, 8, 8)), 5)
    >>> qz = posterior(torch.zeros(3, 1, 8, 8))
    >>> qz.batch_shape, qz.event_shape
    (torch.Size([3]), torch.Size([5]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        latent_dim: int,
        *,
        flow: type[MAF] = MAF,
        transforms: int = 2,
        hidden_dims: tuple[int, ...] = (64, 64),
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__(encoder, latent_dim, log_scale_bounds=log_scale_bounds)
        self.features = declared_shape(encoder, "output_shape")
        width = math.prod(self.features)
        self.transform = make_flow(flow, latent_dim, width, transforms, hidden_dims).transform

    def _density(self, loc: Tensor, scale: Tensor, features: Tensor) -> TorchDistribution:
        context = features.flatten(-len(self.features))
        return moved_noise(self.transform(context), loc, scale)
