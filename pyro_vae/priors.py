"""Priors p(z)."""

from abc import ABC, abstractmethod
from itertools import pairwise

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.distributions import DiagonalNormalMixture
from pyro_vae.errors import InputError, count, counts
from pyro_vae.flows import MAF, FlowDistribution, make_flow
from pyro_vae.networks import Conditions, bounded, check_bounds
from pyro_vae.posteriors import Posterior


class Prior(nn.Module, ABC):
    """The prior p(z).

    Contract for the author of the next one: `prior()` returns a distribution with batch shape () and
    event shape (L,), on the device and in the dtype of the module (keep constants as buffers); the
    attribute `latent_dim` is set. A mixture mixes whole vectors: declare the event axis
    (`to_event(1)`) before mixing, or it becomes one mixture per dimension. The constructor's own
    choices are keyword arguments with defaults.

    One that depends on something given beside x names it, `conditions = ("label",)`, and is called with it:
    `prior(label=y)`, of batch shape (B,); `check_conditions` refuses what does not fit.

    One with which z may stay unused unless the weight of the KL term rises to 1 says over which part of the
    training, `warm_up_share`; `fit` does so where it gets no `kl_warm_up`.

    On the command line a constructor's parameters named `latent_dim`, `data_shape`, `posterior`, `conditions`
    (what is given beside x) and `examples` (training data, (N, *data_shape)) are filled in; all others become
    options.

    >>> class Wide(Prior):
    ...     def __init__(self, latent_dim: int, *, width: float = 2.0) -> None:
    ...         super().__init__()
    ...         self.latent_dim = latent_dim
    ...         self.register_buffer("scale", torch.full((latent_dim,), width))
    ...     def forward(self):
    ...         return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1)
    >>> pz = Wide(3, width=4.0)()
    >>> pz.batch_shape, pz.event_shape, pz.stddev
    (torch.Size([]), torch.Size([3]), tensor([4., 4., 4.]))
    """

    latent_dim: int

    #: Names of what it depends on besides, given by name.
    conditions: tuple[str, ...] = ()

    #: The part of a training, from 0 to 1, over which the weight of the KL term rises by default.
    warm_up_share: float = 0.0

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse, by InputError, what is given and does not fit; accepts all unless overridden."""

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """p(z)."""


def asks_for_warm_up(program: nn.Module) -> Prior | None:
    """The prior within a program that asks for the longest warm-up; None where none does."""
    priors = [each for each in program.modules() if isinstance(each, Prior) and each.warm_up_share]
    return max(priors, key=lambda prior: prior.warm_up_share, default=None)


class _StandardPrior(Prior):
    """A fixed prior whose coordinates are independent, each at location 0 and scale 1."""

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> TorchDistribution:
        """p(z): batch shape (), event shape (L,)."""
        return self._coordinates().to_event(1)

    @abstractmethod
    def _coordinates(self) -> TorchDistribution:
        """p(z_l): batch shape (L,)."""


class StandardNormalPrior(_StandardPrior):
    """p(z) = N(z; 0, I).

    Args:
        latent_dim: L, the length of z.

    >>> StandardNormalPrior(3)().event_shape
    torch.Size([3])
    """

    def _coordinates(self) -> TorchDistribution:
        return dist.Normal(self.loc, self.scale)


class LaplacePrior(_StandardPrior):
    """p(z) = Π_l ½ exp(−|z_l|): independent standard Laplace coordinates, of standard deviation √2.

    Unlike the normal it is not invariant under rotations, so it favours codes along the axes.

    Args:
        latent_dim: L, the length of z.

    >>> LaplacePrior(3)().stddev
    tensor([1.4142, 1.4142, 1.4142])
    """

    def _coordinates(self) -> TorchDistribution:
        return dist.Laplace(self.loc, self.scale)


class ConditionalNormalPrior(Prior):
    """p(z|c) = N(z; m(c), diag s(c)²): a prior of its own for each class, learned.

    c is the vector of what is given beside x, m and log s are linear in it: with one label, a mean and a
    scale for each class. With `hidden_dims`, layers with tanh lie between, for numbers on which the mean does
    not depend linearly. It starts at N(0, I). The conditional prior of Sohn, Lee & Yan, "Learning Structured
    Output Representation using Deep Conditional Generative Models" (2015).

    Args:
        latent_dim: L, the length of z.
        conditions: What is given.
        hidden_dims: Widths of the layers between c and the parameters.
        log_scale_bounds: Range of log s, approached smoothly.

    >>> from pyro_vae.networks import Conditions
    >>> pz = ConditionalNormalPrior(3, Conditions({"label": 10}))(label=torch.tensor([0, 9]))
    >>> pz.batch_shape, pz.event_shape
    (torch.Size([2]), torch.Size([3]))
    """

    def __init__(
        self,
        latent_dim: int,
        conditions: Conditions,
        *,
        hidden_dims: tuple[int, ...] = (),
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.vector, self.conditions = conditions, conditions.names
        widths = (conditions.size, *counts("hidden_dims", hidden_dims))
        hidden = [each for pair in pairwise(widths) for each in (nn.Linear(*pair), nn.Tanh())]
        last = nn.Linear(widths[-1], 2 * latent_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, **given: Tensor) -> TorchDistribution:
        """p(z|c): batch shape (B,), event shape (L,)."""
        loc, log_scale = self.layers(self.vector(given)).chunk(2, -1)
        return dist.Normal(loc, bounded(log_scale, self.log_scale_bounds).exp()).to_event(1)

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse classes that are none of those known, and numbers of another shape."""
        self.vector.check(given)


class StudentTPrior(_StandardPrior):
    """p(z) = Π_l t_ν(z_l): independent standard Student's t coordinates, of heavy tails.

    Their standard deviation is √(ν / (ν − 2)), infinite for ν ≤ 2; the limit ν → ∞ is the normal.

    Args:
        latent_dim: L, the length of z.
        degrees_of_freedom: ν, at most 1000: beyond it the density loses its digits in float32.

    Raises:
        InputError: where `degrees_of_freedom` is not a positive number up to 1000.

    >>> StudentTPrior(3, degrees_of_freedom=4)().variance
    tensor([2., 2., 2.])
    """

    degrees_of_freedom: Tensor

    def __init__(self, latent_dim: int, *, degrees_of_freedom: float = 5.0) -> None:
        super().__init__(latent_dim)
        if not 0 < degrees_of_freedom <= 1000:
            raise InputError(
                f"degrees_of_freedom expects a positive number up to 1000, got {degrees_of_freedom}: "
                "for more use StandardNormalPrior"
            )
        self.register_buffer("degrees_of_freedom", torch.tensor(float(degrees_of_freedom)), persistent=False)

    def _coordinates(self) -> TorchDistribution:
        return dist.StudentT(self.degrees_of_freedom, self.loc, self.scale)


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
        return DiagonalNormalMixture(self.logits, self.loc, scale)


class VampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|u_k): the posterior, averaged over K learned pseudo-inputs u_k.

    Tomczak & Welling, "VAE with a VampPrior" (2018). The prior holds the posterior itself, so training
    moves both. The pseudo-inputs start as randomly chosen data and are free tensors afterwards. At the
    start all posteriors are alike, and so is the prior, and nothing keeps their scale: it grows, and z stays
    unused. So `fit` lets the weight of the KL term rise over the first half of a training, unless it gets
    a `kl_warm_up`; the paper has 100 epochs of it.

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

    warm_up_share = 0.5
    logits: Tensor

    def __init__(self, posterior: Posterior, examples: Tensor, *, components: int = 500) -> None:
        super().__init__()
        count("components", components)
        if posterior.conditions:
            raise InputError(
                "VampPrior takes a q(z|x) of x alone, got one that depends on "
                f"{', '.join(posterior.conditions)}, too: choose ConditionalNormalPrior or MixturePrior"
            )
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
        components = self.posterior(self.pseudo_inputs)
        base = getattr(components, "base_dist", None)
        if isinstance(base, torch.distributions.Normal):
            return DiagonalNormalMixture(self.logits, base.loc, base.scale)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)


class FlowPrior(Prior):
    """p(z) = N(f(z); 0, I) |det ∂f/∂z|: a normalising flow, with f an autoregressive network, learned.

    f turns z into noise, all coordinates at once, so the density is fast and a draw takes L passes:
    the right way round for a prior, whose density is what training needs. zuko's `MAF` (masked
    autoregressive flow, Papamakarios et al. 2017), or `NSF` (neural spline flow, Durkan et al. 2019: the
    splines act on [−5, 5], beyond which f is the identity). Flow priors for VAEs: Chen et al.,
    "Variational Lossy Autoencoder" (2017).

    Args:
        latent_dim: L, the length of z.
        flow: `zuko.flows.MAF` or `zuko.flows.NSF`.
        transforms: Number of autoregressive transformations, their orders alternating.
        hidden_dims: Widths of the hidden layers of each.

    >>> pz = FlowPrior(3)()
    >>> pz.batch_shape, pz.event_shape
    (torch.Size([]), torch.Size([3]))
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        flow: type[MAF] = MAF,
        transforms: int = 3,
        hidden_dims: tuple[int, ...] = (64, 64),
    ) -> None:
        super().__init__()
        self.latent_dim = count("latent_dim", latent_dim)
        self.flow = make_flow(flow, latent_dim, 0, transforms, hidden_dims)

    def forward(self) -> TorchDistribution:
        """p(z): batch shape (), event shape (L,)."""
        return FlowDistribution(self.flow())
