"""What the estimators give, per datum."""

import math
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.errors import InputError, count
from pyro_vae.markup import table
from pyro_vae.programs import say

#: Pareto k̂ above which an estimate cannot be believed (Vehtari et al. 2024). The variance of the weights, on
#: which the standard error stands, is finite below 0.5; in between the error is too small.
RELIABLE_K = 0.7


@dataclass(frozen=True, eq=False)
class OverData:
    """Estimates of log p(x), per datum, and their mean over the data with the two parts of its error."""

    #: log p̂(x), in nats, (B,); −∞ where every weight is 0.
    estimate: Tensor
    #: Its Monte Carlo standard error by the delta method, in nats, (B,); NaN for one draw. It means little
    #: where the effective sample size is near 1.
    standard_error: Tensor
    #: (Σ w)² / Σ w² of the weights w, between 1 and their number, (B,).
    effective_sample_size: Tensor
    #: max w / Σ w, (B,).
    largest_share: Tensor

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

    @property
    def attempts(self) -> int:
        """k, the rounds of chains any of which might have been the one reported; 0 for what was planned."""
        return 0

    def certificate(self, delta: float = 0.05, *, shared_by: int = 1) -> float:
        """A lower bound on the mean log p(x) of these very data, in nats: mean − log(m/δ) / N.

        It is wrong with a probability of δ at most, over the random numbers of the estimate, however heavy
        the tails of the weights: E p̂(x_n) = p(x_n) and independence over the N data give
        E Π p̂(x_n)/p(x_n) = 1, so that by Markov's inequality P(Σ log p̂(x_n) ≥ Σ log p(x_n) + log(1/δ)) ≤ δ.
        It holds for all results of this package: numbers of draws, proposals and transitions are chosen by a
        pilot, and are frozen before the draws that count. Annealing with `until_gap` has log(2^k m/δ):
        whether the k-th round that counts is the last one is decided by its own chains, and each that might
        have been reported has its share of δ, δ/2 + δ/4 + … = δ. −∞ where an estimate is. Its proof and its
        limits are in docs/certificate.md.

        Args:
            delta: δ, from 0 to 1.
            shared_by: m, the number of estimates of which this is one, by several methods or seeds, where
                the best bound of all is to hold with a probability of 1 − δ.

        Raises:
            InputError: where δ or m is out of its range.
        """
        if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
            raise InputError(f"delta expects a probability between 0 and 1, got {delta}: 0.05 is usual")
        loss = math.log(2**self.attempts * count("shared_by", shared_by) / delta)
        return self.mean - loss / len(self.estimate)

    def _repr_html_(self) -> str:
        """Mean, errors and certificate as a table."""
        number = len(self.estimate)
        rows = {
            "log p(x)": f"{self.mean:.3f} ± {self.mean_standard_error:.3f}",
            "Monte Carlo error": f"{self.mean_monte_carlo_error:.3f}",
            "at least, with probability 0.95": f"{self.certificate():.3f}",
            **self._quality(),
            "data": f"{number}",
        }
        return table([["nats per datum", type(self).__name__], *map(list, rows.items())], "")

    def _quality(self) -> dict[str, str]:
        """What speaks for or against the estimate, by its name in a table."""
        return {}


def warn_of_zeros(estimate: Tensor, what: str) -> None:
    """Warn where every weight of a datum is 0."""
    zeros = estimate.isneginf().nonzero()[:, 0].tolist()
    if zeros:
        say(
            f"log p(x) is −inf for {len(zeros)} of {len(estimate)} data, first x[{zeros[0]}]: all their "
            f"{what} have weight 0"
        )


@dataclass(frozen=True, eq=False)
class BoundCurve:
    """The importance-weighted bound at numbers of draws K′ = 1, 2, 5, 10, … up to K, per datum, in float64.

    Its expectation is at most log p(x), is the ELBO at K′ = 1, and rises with K′ (Burda, Grosse &
    Salakhutdinov 2016, theorem 1): what it still gains at the end is missing in the estimate, at the least.

    >>> import torch
    >>> curve = BoundCurve((1, 10), torch.tensor([[-21.0, -23.0], [-20.0, -21.0]]))
    >>> curve.mean
    tensor([-22.0000, -20.5000])
    """

    #: K′, from the smallest to K.
    num_particles: tuple[int, ...]
    #: The mean over disjoint blocks of K′ draws of log 1/K′ Σ_k w_k, in nats, (levels, B); draws after the
    #: last full block are left out. NaN where a datum had fewer draws than K′.
    bound: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean over the data, (levels,); NaN where a datum had fewer draws."""
        return self.bound.mean(1)

    def __repr__(self) -> str:
        points = ", ".join(
            f"{value:.3f} at {level}" for level, value in zip(self.num_particles, self.mean, strict=True)
        )
        return (
            "lower bound on log p(x), which rises with the number of draws in expectation: "
            f"{points} (nats, mean of {self.bound.shape[1]} data)"
        )


@dataclass(frozen=True, eq=False)
class LogEvidence(OverData):
    """Importance-sampled log p(x), log 1/K Σ_k w_k, per datum, in float64.

    A lower bound in expectation (Jensen's inequality), tightening with the number of particles.

    >>> import torch
    >>> found = LogEvidence(
    ...     estimate=torch.tensor([-20.0, -22.0]),
    ...     standard_error=torch.tensor([0.03, 0.04]),
    ...     effective_sample_size=torch.tensor([150.0, 80.0]),
    ...     largest_share=torch.tensor([0.02, 0.05]),
    ...     pareto_k=torch.tensor([0.2, 0.9]),
    ...     num_particles=torch.tensor([1000, 1000]),
    ...     curve=BoundCurve((1000,), torch.tensor([[-20.0, -22.0]])),
    ... )
    >>> found.mean, round(found.mean_standard_error, 3), round(found.mean_monte_carlo_error, 3)
    (-21.0, 1.0, 0.025)
    >>> found.share_unreliable, round(found.certificate(delta=0.05), 3)  # −21 − log(1/0.05)/2
    (0.5, -22.498)
    """

    #: Shape k̂ of the weights' tail, (B,): above 0.7 the standard error says nothing, and the estimate is too
    #: low by an unknown amount (Vehtari, Simpson, Gelman, Yao & Gabry 2024). NaN below 25 draws, and where
    #: fewer than five weights lie above the rest, as for a discrete latent.
    pareto_k: Tensor
    #: K, (B,) int64: how many weights the estimate is made of.
    num_particles: Tensor
    #: The same estimate by fewer draws.
    curve: BoundCurve
    #: What was drawn from: "guide", or "local proposal" where one was fitted to each datum.
    proposal: str = "guide"

    @property
    def share_unreliable(self) -> float:
        """Share of the data with k̂ above 0.7; a k̂ that is NaN counts, since nothing vouches for it."""
        return float((~(self.pareto_k <= RELIABLE_K)).double().mean())

    def _quality(self) -> dict[str, str]:
        few, many = int(self.num_particles.min()), int(self.num_particles.max())
        unreliable = round(self.share_unreliable * len(self.estimate))
        return {
            f"k̂ above {RELIABLE_K} or unknown": f"{unreliable} data",
            f"draws each, from the {self.proposal}": f"{many}" if few == many else f"{few} to {many}",
        }

    def __repr__(self) -> str:
        few, many = int(self.num_particles.min()), int(self.num_particles.max())
        draws = f"{many} importance samples each" if few == many else f"{few} to {many} importance samples"
        fitted = "" if self.proposal == "guide" else f" from a {self.proposal}"
        unreliable = round(self.share_unreliable * len(self.estimate))
        return (
            f"log p(x) = {self.mean:.3f} ± {self.mean_standard_error:.3f} nats, mean of {len(self.estimate)} "
            f"data by {draws}{fitted} (Monte Carlo error {self.mean_monte_carlo_error:.3f}); a lower bound "
            f"in expectation, with Pareto k̂ above {RELIABLE_K} or unknown for {unreliable} of the data"
        )


@dataclass(frozen=True, eq=False)
class ELBOEstimate:
    """The evidence lower bound and its two parts, per datum, in float64: elbo = reconstruction − kl.

    >>> import torch
    >>> ELBOEstimate(torch.tensor([-21.0, -23.0]), torch.tensor([-17.0, -18.0]), torch.tensor([4.0, 5.0]))
    ELBO -22.000 = reconstruction -17.500 − KL 4.500 nats, mean of 2 data
    """

    #: E_q[log p(x, z) − log q(z|x)], in nats, (B,).
    elbo: Tensor
    #: E_q[log p(x|z)], in nats, (B,).
    reconstruction: Tensor
    #: KL(q(z|x) ‖ p(z)), estimated by the same draws, in nats, (B,).
    kl: Tensor

    def _repr_html_(self) -> str:
        """The means as a table."""
        means = [f"{float(part.mean()):.3f}" for part in (self.elbo, self.reconstruction, self.kl)]
        heading = ["nats per datum", "ELBO", "reconstruction", "KL", "data"]
        return table([heading, ["mean", *means, str(len(self.elbo))]], "ELBO = reconstruction − KL")

    def __repr__(self) -> str:
        elbo, reconstruction, kl = (float(part.mean()) for part in (self.elbo, self.reconstruction, self.kl))
        parts = f"reconstruction {reconstruction:.3f} − KL {kl:.3f}"
        return f"ELBO {elbo:.3f} = {parts} nats, mean of {len(self.elbo)} data"
