"""Distributions that torch and Pyro lack."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
    register_kl,
)
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.logistic_mean import logistic_mean


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


class DiagonalNormalMixture(TorchDistribution):
    """Σ_k w_k N(z; m_k, diag s_k²), with the distances to all K means as one matrix product.

    −½ Σ_l (z_l − m_kl)² / s_kl² is a product of (z², z) and (s⁻², m s⁻²), made in float64, so that the
    difference of its large terms keeps the digits of a float32 density: with K = 500 and L = 40 a tenth
    of the time of `MixtureSameFamily`, and 1/L of its memory.

    Args:
        logits: (K,), of the weights w.
        loc: m, (K, L).
        scale: s, (K, L), positive.

    >>> mixture = DiagonalNormalMixture(torch.zeros(2), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
    >>> mixture.log_prob(torch.zeros(1))
    tensor(-1.4189)
    """

    arg_constraints = {  # noqa: RUF012 (torch's own name and kind)
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(Size(), loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiagonalNormalMixture":
        """The same mixture with another batch shape."""
        new = self._get_checked_instance(DiagonalNormalMixture, _instance)
        new.logits, new.loc, new.scale = self.logits, self.loc, self.scale
        super(DiagonalNormalMixture, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Σ_k w_k m_k: (*batch_shape, L)."""
        return (self.logits.softmax(0) @ self.loc).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Σ_k w_k (s_k² + m_k²) − mean²: (*batch_shape, L)."""
        second = self.logits.softmax(0) @ (self.scale.square() + self.loc.square())
        return second.expand(self.batch_shape + self.event_shape) - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws: (*sample_shape, *batch_shape, L)."""
        chosen = Categorical(logits=self.logits).sample(Size(sample_shape) + self.batch_shape)
        loc, scale = self.loc[chosen], self.scale[chosen]
        return loc + scale * torch.randn_like(loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log Σ_k w_k N(z; m_k, diag s_k²): the axes of z and of the batch without L."""
        if self._validate_args:
            self._validate_sample(value)
        z, loc, scale = value.double(), self.loc.double(), self.scale.double()
        precision = scale.square().reciprocal()
        weighted = loc * precision
        constant = -0.5 * ((loc * weighted).sum(-1) + z.shape[-1] * math.log(2 * math.pi))
        constant = constant - scale.log().sum(-1) + self.logits.double().log_softmax(0)
        factors = torch.cat([-0.5 * precision, weighted], dim=-1)
        joint = torch.cat([z.square(), z], dim=-1) @ factors.T + constant
        log_prob = joint.to(value.dtype).logsumexp(-1)
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def kl_from_correlated_normal(q: Distribution, p: "Independent[Any]") -> Tensor:
    """KL(N(m, Σ) ‖ Π_l N(m_l', s_l'²)) = −H(q) + ½ Σ_l [log 2π s_l'² + (Σ_ll + (m_l − m_l')²) / s_l'²].

    For correlated posteriors under `StandardNormalPrior`, so that `TraceMeanField_ELBO` need not sample.
    """
    base = p.base_dist
    if not isinstance(base, Normal) or p.event_shape != q.event_shape:
        raise NotImplementedError
    squares = (q.variance + (q.mean - base.loc).square()) / base.scale.square()
    cross_entropy = 0.5 * (squares + math.log(2 * math.pi)) + base.scale.log()
    return cross_entropy.sum(-1) - q.entropy()
