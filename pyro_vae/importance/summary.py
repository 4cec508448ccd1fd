"""From running sums of weights to what is reported."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_vae.importance.results import BoundCurve, LogEvidence


def standard_error(log_sum: Tensor, log_sum_squares: Tensor, drawn: Tensor) -> Tensor:
    """√(K/(K−1) · (Σw²/(Σw)² − 1/K)) of log Σ w, log Σ w² and K; NaN for one draw."""
    variance = ((log_sum_squares - 2 * log_sum).exp() - 1 / drawn).clamp(min=0)
    return torch.where(drawn > 1, (variance * drawn / (drawn - 1)).sqrt(), math.nan)


def log_evidence_of(found: Mapping[str, Tensor], levels: tuple[int, ...], proposal: str) -> LogEvidence:
    """The result, from what a sampling found."""
    log_sum, log_sum_squares, largest, pareto_k, drawn = (
        found[name][0] for name in ("log_sum", "log_sum_squares", "largest", "pareto_k", "drawn")
    )
    return LogEvidence(
        estimate=log_sum - drawn.log(),
        standard_error=standard_error(log_sum, log_sum_squares, drawn),
        effective_sample_size=(2 * log_sum - log_sum_squares).exp(),
        largest_share=(largest - log_sum).exp(),
        pareto_k=pareto_k,
        num_particles=drawn.long(),
        curve=BoundCurve(levels, found["bound"]),
        proposal=proposal,
    )
