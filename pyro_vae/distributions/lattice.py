"""Distributions on equally spaced values."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import (
    Categorical,
    constraints,
)
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.logistic_mean import logistic_mean


class OnLattice(constraints.Constraint):
    """The values k·step, with whole numbers k in `whole`, to the rounding of the values' type."""

    is_discrete = True

    def __init__(self, whole: Any, step: float) -> None:
        self.whole = whole
        self.step = step
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies on the lattice."""
        k = value / self.step
        rounding = 1e-3 + 4 * torch.finfo(k.dtype).eps * k.abs()
        return ((k - k.round()).abs() <= rounding) & self.whole.check(k.round())


class Lattice(TorchDistribution):
    """The law of x = k·step, with k ~ `base` a whole number: P(x) = P_base(x / step).

    A mass function, so the change of variable has no Jacobian.

    Args:
        base: Distribution of whole numbers, of event shape ().
        step: Distance of neighbouring values.

    >>> grey = Lattice(Categorical(probs=torch.tensor([0.5, 0.0, 0.5])), step=0.5)
    >>> grey.log_prob(torch.tensor([0.0, 1.0])).exp(), grey.mean
    (tensor([0.5000, 0.5000]), tensor(0.5000))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, step: float, validate_args: bool | None = None) -> None:
        self.base = base
        self.step = step
        super().__init__(base.batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Lattice":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(Lattice, _instance)
        Lattice.__init__(new, self.base.expand(Size(batch_shape)), self.step, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The values k·step with k in the support of `base`."""
        return OnLattice(self.base.support, self.step)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x)."""
        if self._validate_args:
            self._validate_sample(value)
        return self.base.log_prob((value / self.step).round())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of x, in the type of the parameters."""
        k = self.base.sample(Size(sample_shape))
        if isinstance(self.base, Categorical):
            k = k.to(self.base.logits.dtype)
        return k * self.step

    @property
    def mean(self) -> Tensor:
        """E[x]."""
        return self._moments()[0] * self.step

    @property
    def variance(self) -> Tensor:
        """Var[x]."""
        return self._moments()[1] * self.step**2

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of k; those that torch gives for Categorical are NaN."""
        if not isinstance(self.base, Categorical):
            return self.base.mean, self.base.variance
        probs = self.base.probs
        k = torch.arange(probs.shape[-1], dtype=probs.dtype, device=probs.device)
        mean = (probs * k).sum(-1)
        return mean, (probs * (k - mean[..., None]).square()).sum(-1)


class DiscretizedLogistic(TorchDistribution):
    """P(x) = σ((x + h − loc) / scale) − σ((x − h − loc) / scale) for x = k/n, k = 0 … n = levels − 1.

    h = 1/(2n) is half a bin; the first and the last bin take the tails, so the sum over all levels is 1.
    Kingma et al., "Improving variational inference with inverse autoregressive flow" (2016), with the
    edges of Salimans et al., "PixelCNN++" (2017).

    Args:
        loc: Centre of the logistic, of any shape.
        scale: Its scale s, of standard deviation π s / √3, in units of x.
        levels: Number of levels, 2 or more.

    >>> px = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1), levels=5)
    >>> px.log_prob(torch.linspace(0, 1, 5)).exp()
    tensor([0.1480, 0.5311, 0.2835, 0.0342, 0.0032])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "DiscretizedLogistic":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        loc, scale = (parameter.expand(Size(batch_shape)) for parameter in (self.loc, self.scale))
        DiscretizedLogistic.__init__(new, loc, scale, self.levels, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The values k / (levels − 1)."""
        return OnLattice(constraints.integer_interval(0, self.levels - 1), 1 / (self.levels - 1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x), by log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − e^(b − a))."""
        if self._validate_args:
            self._validate_sample(value)
        last = self.levels - 1
        k = (value * last).round()
        above, below = self._edge(k + 0.5), self._edge(k - 0.5)
        log_width = torch.log(-torch.expm1(-1 / (last * self.scale)))
        return (
            logsigmoid(above).where(k < last, 0)
            + logsigmoid(-below).where(k > 0, 0)
            + log_width.where((k > 0) & (k < last), 0)
        )

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A logistic draw, put to its nearest level."""
        u = torch.rand(self._extended_shape(Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
        x = (self.loc + self.scale * torch.logit(u)).detach()
        return (x * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """E[x] = 1/n Σ_k P(x ≥ k/n), k = 1 … n."""
        return logistic_mean(self.loc, self.scale, self.levels)

    @property
    def variance(self) -> Tensor:
        """Σ_k (k/n − E[x])² P(k/n)."""
        mean, total = self.mean, torch.zeros_like(self.loc)
        for k in range(self.levels):
            value = torch.full_like(self.loc, k / (self.levels - 1))
            total = total + (value - mean).square() * self.log_prob(value).exp()
        return total

    def _edge(self, k: Tensor | float) -> Tensor:
        """The standardised place of k/n; the edge between two bins is the same number from both sides."""
        return (k / (self.levels - 1) - self.loc) / self.scale
