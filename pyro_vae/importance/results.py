"""What the estimators give, per datum."""

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor


class OverData:
    """The mean over data of estimates of log p(x), with the two parts of its error.

    For named tuples that have the two fields, per datum.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def estimate(self) -> Tensor:
            """In nats, (B,)."""

        @property
        def standard_error(self) -> Tensor:
            """Of the Monte Carlo kind, in nats, (B,)."""

    @property
    def mean(self) -> float:
        """The mean of the estimates over the data."""
        return float(self.estimate.mean())

    @property
    def mean_standard_error(self) -> float:
        """Standard error of `mean` as an estimate for new data of the same kind.

        It is √(var_b(estimate) / B): the spread over the data, in which the Monte Carlo error is
        contained. NaN for one datum.
        """
        return (
            float(self.estimate.std() / math.sqrt(len(self.estimate))) if len(self.estimate) > 1 else math.nan
        )

    @property
    def mean_monte_carlo_error(self) -> float:
        """The Monte Carlo part of it, for these very data: √(Σ_b standard_error²) / B."""
        return float(self.standard_error.square().sum().sqrt() / len(self.standard_error))

    @property
    def mean_data_error(self) -> float:
        """The part of it that only more data would remove: √(mean_standard_error² − mean_monte_carlo_error²).

        0 where the Monte Carlo error is the larger one.
        """
        rest = self.mean_standard_error**2 - self.mean_monte_carlo_error**2
        return math.nan if math.isnan(rest) else math.sqrt(max(rest, 0.0))


class _Fields(NamedTuple):
    #: log p̂(x) = log 1/K Σ_k w_k, in nats, (B,).
    estimate: Tensor
    #: Its Monte Carlo standard error by the delta method, in nats, (B,); NaN for one particle.
    standard_error: Tensor
    #: (Σ w)² / Σ w², between 1 and K, (B,).
    effective_sample_size: Tensor
    #: K.
    num_particles: int


class LogEvidence(OverData, _Fields):
    """Importance-sampled log p(x), per datum, in float64.

    A lower bound in expectation (Jensen's inequality), tightening with the number of particles.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return (
            f"log p(x) = {self.mean:.3f} ± {self.mean_standard_error:.3f} nats, mean of {len(self.estimate)} "
            f"data by {self.num_particles} importance samples each (Monte Carlo error "
            f"{self.mean_monte_carlo_error:.3f})"
        )


class ELBO(NamedTuple):
    """The evidence lower bound and its two parts, per datum, in float64: elbo = reconstruction − kl."""

    #: E_q[log p(x, z) − log q(z|x)], in nats, (B,).
    elbo: Tensor
    #: E_q[log p(x|z)], in nats, (B,).
    reconstruction: Tensor
    #: KL(q(z|x) ‖ p(z)), estimated by the same draws, in nats, (B,).
    kl: Tensor

    def __repr__(self) -> str:
        elbo, reconstruction, kl = (float(part.mean()) for part in self)
        parts = f"reconstruction {reconstruction:.3f} − KL {kl:.3f}"
        return f"ELBO {elbo:.3f} = {parts} nats, mean of {len(self.elbo)} data"
