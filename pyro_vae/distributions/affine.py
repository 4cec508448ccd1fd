"""The law of a linear function of numbers."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Independent, constraints

from pyro_vae.errors import InputError


class Affine(TorchDistribution):
    """The law of x = loc + scale · u, with u ~ `base` real: log p(x) = log p_base(u) − Σ log scale.

    The sum, over the numbers of one draw, is that of the Jacobian, so that a density stays one of x. Mean and
    variance are there, which torch's `TransformedDistribution` lacks.

    Args:
        base: Distribution of real numbers, of any event shape.
        loc: A number for each of a draw, and with the same numbers for all draws.
        scale: The same, positive.

    Raises:
        InputError: where `base` is none of all real numbers.

    >>> import pyro.distributions as dist
    >>> import torch
    >>> px = Affine(dist.Normal(0.0, 1.0), torch.tensor(5.0), torch.tensor(2.0))
    >>> px.log_prob(torch.tensor(9.0)), dist.Normal(5.0, 2.0).log_prob(torch.tensor(9.0)), px.mean
    (tensor(-3.6121), tensor(-3.6121), tensor(5.))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        support = base.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support is not constraints.real:
            raise InputError(
                f"expected a density of all real numbers to standardise, got a {type(base).__name__}: use "
                "the form AsGiven, or a likelihood such as NormalLikelihood"
            )
        self.base, self.loc, self.scale = base, loc, scale
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @classmethod
    def entries(cls, px: TorchDistribution, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """The law of loc + scale · u, with u ~ px: a product over entries where px is one."""
        base: Any = px
        while isinstance(base, Independent):
            base = base.base_dist
        if base.event_shape:
            return cls(px, loc, scale)
        return cls(base, loc, scale).to_event(len(px.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Affine":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(Affine, _instance)
        Affine.__init__(new, self.base.expand(Size(batch_shape)), self.loc, self.scale, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        """Real numbers."""
        return self.base.support

    @property
    def has_rsample(self) -> bool:
        """Whether draws have gradients."""
        return bool(self.base.has_rsample)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(x)."""
        if self._validate_args:
            self._validate_sample(value)
        log_base: Tensor = self.base.log_prob((value - self.loc) / self.scale)
        log_scale = self.scale.log()
        return log_base - (log_scale.expand(self.event_shape).sum() if self.event_shape else log_scale)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of x."""
        return self.loc + self.scale * self.base.sample(Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of x, with gradients."""
        return self.loc + self.scale * self.base.rsample(Size(sample_shape))

    @property
    def mean(self) -> Tensor:
        """E[x]."""
        return self.loc + self.scale * self.base.mean

    @property
    def variance(self) -> Tensor:
        """Var[x]."""
        variance: Tensor = self.scale.square() * self.base.variance
        return variance
