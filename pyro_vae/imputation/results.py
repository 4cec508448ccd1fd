"""What is known of entries that were not observed."""

import math
from dataclasses import dataclass

from torch import Tensor

from pyro_vae.importance.results import RELIABLE_K


def unreliable(pareto_k: Tensor) -> str:
    """In words, for how many data k̂ says that the weights cannot be believed."""
    above = int((pareto_k > RELIABLE_K).sum())
    return f"k-hat above {RELIABLE_K} for {above} of {len(pareto_k)} data"


@dataclass(frozen=True, eq=False)
class Imputation:
    """p(x_mis|x_obs) of each datum, in units of x; whatever was observed is unchanged in all of it.

    >>> import torch
    >>> from pyro_vae import Dataset, NormalLikelihood, assemble, impute
    >>> x = torch.randn(40, 3)
    >>> x[0, 1] = torch.nan
    >>> vae = assemble(Dataset(x, missing=True), likelihood=NormalLikelihood)
    >>> found = impute(vae.model, vae.guide, x[:5], num_particles=100)
    >>> found.missing.nonzero().tolist(), found.quantiles.shape
    ([[0, 1]], torch.Size([3, 5, 3]))
    >>> bool((found.standard_deviation > 0).eq(found.missing).all())  # what was observed is certain
    True
    """

    #: x with E[x_mis|x_obs] where it was missing, (B, *data_shape).
    mean: Tensor
    #: Standard deviation of x_mis given x_obs; 0 where x was observed, (B, *data_shape).
    standard_deviation: Tensor
    #: Monte Carlo standard error of `mean` by the delta method; 0 where x was observed, (B, *data_shape).
    standard_error: Tensor
    #: Probabilities of `quantiles`, (Q,).
    levels: tuple[float, ...]
    #: Quantiles of each missing entry by itself, from 1000 draws at the most, (Q, B, *data_shape).
    quantiles: Tensor
    #: Draws of all missing entries of a datum together, (M, B, *data_shape).
    draws: Tensor
    #: Whether an entry was missing, (B, *data_shape).
    missing: Tensor
    #: log p̂(x_obs), in nats, (B,).
    log_evidence: Tensor
    #: (Σ w)² / Σ w² of the weights w, (B,): how many independent draws from p(z|x_obs) they are worth.
    effective_sample_size: Tensor
    #: k̂ of the weights, (B,); above 0.7 all of this cannot be believed.
    pareto_k: Tensor

    def __repr__(self) -> str:
        share = float(self.missing.float().mean())
        return (
            f"Imputation of {int(self.missing.sum())} entries ({share:.1%}) of {len(self.mean)} data: "
            f"effective sample size from {float(self.effective_sample_size.min()):.1f}, "
            f"{unreliable(self.pareto_k)}"
        )


@dataclass(frozen=True, eq=False)
class LogConditional:
    """log p(x_a|x_b) of each datum, in nats.

    >>> import torch
    >>> found = LogConditional(
    ...     estimate=torch.tensor([-2.0, -3.0]),
    ...     standard_error=torch.tensor([0.03, 0.04]),
    ...     pareto_k=torch.tensor([0.2, 0.3]),
    ...     num_entries=torch.tensor([2, 2]),
    ... )
    >>> found.mean, round(found.mean_monte_carlo_error, 3)
    (-2.5, 0.025)
    """

    #: log p̂(x_a, x_b) − log p̂(x_b), (B,).
    estimate: Tensor
    #: Its Monte Carlo standard error, √(the sum of both squared), (B,).
    standard_error: Tensor
    #: The larger k̂ of the two, (B,).
    pareto_k: Tensor
    #: Numbers in x_a, (B,).
    num_entries: Tensor

    @property
    def mean(self) -> float:
        """The mean of the estimates over the data."""
        return float(self.estimate.mean())

    @property
    def mean_monte_carlo_error(self) -> float:
        """Its Monte Carlo standard error, for these very data."""
        return float(self.standard_error.square().sum().sqrt() / len(self.standard_error))

    def __repr__(self) -> str:
        error = f" ± {self.mean_monte_carlo_error:.3f}" if math.isfinite(self.mean_monte_carlo_error) else ""
        return (
            f"log p(x_a|x_b) {self.mean:.3f}{error} nats per datum, mean of {len(self.estimate)} data, "
            f"{float(self.num_entries.float().mean()):.1f} entries each; {unreliable(self.pareto_k)}"
        )
