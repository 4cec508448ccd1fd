"""The continuous Bernoulli, right at every logit."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import (
    constraints,
)
from torch.nn.functional import logsigmoid


class ContinuousBernoulli(TorchDistribution):
    """log p(x) = log C(l) + x·l − log(1 + eˡ) on [0, 1], with C(l) = l / tanh(l/2) and C(0) = 2.

    Loaiza-Ganem & Cunningham, "The continuous Bernoulli" (2019). Right at every logit; torch's own clamps
    the probability, by which its normaliser is off by a nat at l = 100 and by three at l = 1000.

    Args:
        logits: l, of any shape, which is the batch shape.

    >>> ContinuousBernoulli(torch.tensor([0.0, 1000.0])).mean
    tensor([0.5000, 0.9990])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "ContinuousBernoulli":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(ContinuousBernoulli, _instance)
        ContinuousBernoulli.__init__(new, self.logits.expand(Size(batch_shape)), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p(x)."""
        if self._validate_args:
            self._validate_sample(value)
        # signed, so that large terms do not cancel
        above = self.logits > 0
        from_edge, size = torch.where(above, value - 1, value), torch.where(above, self.logits, -self.logits)
        return self._log_normaliser() + from_edge * self.logits + logsigmoid(size)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The inverse CDF log(1 + u·(eˡ − 1)) / l at l ≤ 0, reflected at l > 0."""
        shape = self._extended_shape(Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        below = torch.where(self.logits > 0, -self.logits, self.logits)
        x = _around_zero(
            below.expand(shape),
            1e-4,
            lambda logits: u + u * (1 - u) * (logits / 2 + (1 - 2 * u) * logits.square() / 6),
            lambda logits: torch.log1p(u * torch.expm1(logits)) / logits,
        ).clamp(0, 1)
        return torch.where(self.logits > 0, 1 - x, x)

    @property
    def mean(self) -> Tensor:
        """1 / (1 − e⁻ˡ) − 1/l, and 1/2 at 0."""
        return _around_zero(
            self.logits,
            0.5,
            lambda logits: (
                0.5
                + logits
                * _polynomial(logits.square(), 1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160)
            ),
            lambda logits: 0.5 + 0.5 / torch.tanh(logits / 2) - 1 / logits,
        )

    @property
    def variance(self) -> Tensor:
        """1/l² − 1 / (4 sinh²(l/2)), and 1/12 at 0."""
        return _around_zero(
            self.logits,
            0.5,
            lambda logits: _polynomial(logits.square(), 1 / 12, -1 / 240, 1 / 6048, -1 / 172800, 1 / 5322240),
            lambda logits: 1 / logits.square() - 0.25 / torch.sinh(logits / 2).square(),
        )

    def _log_normaliser(self) -> Tensor:
        """Log C(l)."""
        return _around_zero(
            self.logits,
            0.1,
            lambda logits: (
                math.log(2) + logits.square() * _polynomial(logits.square(), 1 / 12, -7 / 1440, 31 / 90720)
            ),
            lambda logits: torch.log(logits / torch.tanh(logits / 2)),
        )


def _around_zero(
    values: Tensor, radius: float, series: Callable[[Tensor], Tensor], formula: Callable[[Tensor], Tensor]
) -> Tensor:
    """`series` within `radius` of zero and `formula` beyond; neither sees the other's values."""
    near = values.abs() < radius
    inner, outer = series(values.where(near, 0)), formula(values.where(~near, 1))
    return torch.where(near, inner, outer)


def _polynomial(x: Tensor, *coefficients: float) -> Tensor:
    """c₀ + c₁x + c₂x² + …."""
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total
