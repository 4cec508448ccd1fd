"""Priors p(z)."""

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import InputError, count
from pyro_vae.networks import bounded, check_bounds
from pyro_vae.posteriors import Posterior


class Prior(nn.Module, ABC):
    """The prior p(z).

    Contract for the author of the next one: `prior()` returns a distribution with batch shape () and
    event shape (L,), on the device and in the dtype of the module (keep constants as buffers); the
    attribute `latent_dim` is set. A mixture mixes whole vectors: declare the event axis
    (`to_event(1)`) before mixing, or it becomes one mixture per dimension. The constructor's own
    choices are keyword arguments with defaults.

    On the command line a constructor's parameters named `latent_dim`, `data_shape`, `posterior` and
    `examples` (training data, (N, *data_shape)) are filled in; all others become options.
    """

    latent_dim: int

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """p(z)."""


class StandardNormalPrior(Prior):
    """p(z) = N(z; 0, I).

    Args:
        latent_dim: L, the length of z.

    >>> StandardNormalPrior(3)().event_shape
    torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> TorchDistribution:
        """p(z): batch shape (), event shape (L,)."""
        return dist.Normal(self.loc, self.scale).to_event(1)


class MixturePrior(Prior):
    """p(z) = Σ_k w_k N(z; m_k, diag s_k²), with weights, means and scales learned.

    The "mixture of Gaussians" prior that Tomczak & Welling (2018) compare with. Means start as draws
    from N(0, I), weights equal, scales at 1.

    Args:
        latent_dim: L, the length of z.
        components: Number of components.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> pz = MixturePrior(3, components=5)()
    >>> pz.batch_shape, pz.event_shape
    (torch.Size([]), torch.Size([3]))
    """

    def __init__(
        self, latent_dim: int, *, components: int = 10, log_scale_bounds: tuple[float, float] = (-6.0, 6.0)
    ) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        count("components", components)
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> TorchDistribution:
        """p(z): batch shape (), event shape (L,)."""
        scale = bounded(self.log_scale, self.log_scale_bounds).exp()
        components = dist.Normal(self.loc, scale).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class VampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|u_k): the posterior, averaged over K learned pseudo-inputs u_k.

    Tomczak & Welling, "VAE with a VampPrior" (2018). The prior holds the posterior itself, so training
    moves both. The pseudo-inputs start as randomly chosen data and are free tensors afterwards.

    Args:
        posterior: The q(z|x) of the same model.
        examples: Data (N, *data_shape) from which the pseudo-inputs start; N at least `components`.
        components: K, the number of pseudo-inputs.

    Raises:
        InputError: where there are fewer examples than components.

    >>> from pyro_vae import MLP, DiagonalNormalPosterior
    >>> posterior = DiagonalNormalPosterior(MLP().encoder((64,)), 3)
    >>> pz = VampPrior(posterior, torch.rand(100, 64), components=20)()
    >>> pz.batch_shape, pz.event_shape
    (torch.Size([]), torch.Size([3]))
    """

    logits: Tensor

    def __init__(self, posterior: Posterior, examples: Tensor, *, components: int = 500) -> None:
        super().__init__()
        count("components", components)
        if len(examples) < components:
            raise InputError(
                f"VampPrior starts its {components} pseudo-inputs from data and got {len(examples)} "
                "examples: lower its number of components, or give more data"
            )
        self.latent_dim = posterior.latent_dim
        self.posterior = posterior
        chosen = torch.randperm(len(examples))[:components].to(examples.device)
        self.pseudo_inputs = nn.Parameter(examples[chosen].detach().clone())
        self.register_buffer("logits", self.pseudo_inputs.new_zeros(components), persistent=False)

    def forward(self) -> TorchDistribution:
        """p(z): batch shape (), event shape (L,)."""
        return dist.MixtureSameFamily(
            dist.Categorical(logits=self.logits), self.posterior(self.pseudo_inputs)
        )
