"""The law of those entries that were observed."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Independent, constraints

from pyro_vae.errors import InputError


class OrMissing(constraints.Constraint):
    """The values of `base`, and NaN."""

    def __init__(self, base: Any) -> None:
        self.base = base
        self.is_discrete = base.is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is NaN or one of `base`."""
        inside: Tensor = self.base.check(value)
        return inside | value.isnan()


class Observed(TorchDistribution):
    """The law of numbers of which some are NaN, that is, not observed: log p(NaN) = 0.

    Summing a number out of a product over numbers leaves its factor out, so that the sum over the entries of
    a datum is log p(x_obs) (Little & Rubin, "Statistical Analysis with Missing Data", with entries missing at
    random). Gradients are those of the observed entries: at the others the density is taken at a value
    inside its support, and not used. Draws, mean and variance are those of all numbers.

    Args:
        base: Distribution of numbers, of event shape ().

    Raises:
        InputError: where one draw of `base` is several numbers, whose joint law has no factor for each.

    >>> import pyro.distributions as dist
    >>> law = Observed(dist.Bernoulli(torch.tensor([0.5, 0.25]))).to_event(1)
    >>> law.log_prob(torch.tensor([torch.nan, 1.0])).exp()
    tensor(0.2500)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, validate_args: bool | None = None) -> None:
        if base.event_shape:
            raise InputError(
                "expected a distribution of single numbers to leave missing ones out of, got a "
                f"{type(base).__name__} of {tuple(base.event_shape)} numbers at once: make p(x|z) a product "
                "over entries, as by to_event"
            )
        self.base = base
        super().__init__(base.batch_shape, validate_args=validate_args)

    @classmethod
    def entries(cls, px: TorchDistribution) -> TorchDistribution:
        """p(x_obs) for px = p(x), of the same shapes: a product over the entries of a datum.

        Raises:
            InputError: where px is no such product.
        """
        base: Any = px
        while isinstance(base, Independent):
            base = base.base_dist
        return cls(base).to_event(len(px.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Observed":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(Observed, _instance)
        Observed.__init__(new, self.base.expand(Size(batch_shape)), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        """The support of `base`, and NaN."""
        return OrMissing(self.base.support)

    @property
    def has_rsample(self) -> bool:
        """Whether draws have gradients."""
        return bool(self.base.has_rsample)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(x); 0 where x is NaN."""
        if self._validate_args:
            self._validate_sample(value)
        missing = value.isnan()
        log_prob: Tensor = self.base.log_prob(torch.where(missing, inside(self.base.support), value))
        return torch.where(missing, 0.0, log_prob)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of all numbers."""
        drawn: Tensor = self.base.sample(Size(sample_shape))
        return drawn

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of all numbers, with gradients."""
        drawn: Tensor = self.base.rsample(Size(sample_shape))
        return drawn

    @property
    def mean(self) -> Tensor:
        """Of all numbers."""
        mean: Tensor = self.base.mean
        return mean

    @property
    def variance(self) -> Tensor:
        """Of all numbers."""
        variance: Tensor = self.base.variance
        return variance


def inside(support: Any) -> Any:
    """A value inside a support of numbers, where a density is finite: a number, or a tensor of bounds.

    By the kind of support alone, so that no value of a tensor decides.
    """
    support = getattr(support, "base_constraint", support)  # of a mixture, that of its components
    if support.is_discrete:
        return getattr(support, "lower_bound", 0.0)
    low, high = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
    if low is not None and high is not None:
        return (low + high) / 2
    return low + 1.0 if low is not None else high - 1.0 if high is not None else 0.0
