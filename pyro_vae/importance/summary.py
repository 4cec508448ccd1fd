"""From running sums of weights to what is reported."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.importance.pareto import pareto_k
from pyro_vae.importance.results import BoundCurve, LogEvidence
from pyro_vae.precision import wide


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


def summary_of_weights(log_w: Tensor, rounding: float) -> Mapping[str, Tensor]:
    """Log p(x), the effective sample size and k̂ of each datum, by all its log weights (K, B): (B,) each.

    Args:
        log_w: Log weights.
        rounding: Relative rounding of the type in which they were computed.

    Raises:
        InputError: where one is NaN or infinite, or all of a datum are zero.
    """
    exact = wide(log_w)
    total = exact.logsumexp(0)
    bad = int((~total.isfinite()).sum())
    if bad:
        raise InputError(
            f"expected log weights that are numbers, got NaN, +inf or only −inf for {bad} of {len(total)} "
            "data drawn together: see where log_weights(model, guide, x, 100) comes from"
        )
    ordered = exact.sort(0, descending=True).values.T.cpu()
    return {
        "log_evidence": total - math.log(len(log_w)),
        "effective_sample_size": (2 * total - (2 * exact).logsumexp(0)).exp(),
        "pareto_k": total.new_tensor([pareto_k(each, len(log_w), rounding=rounding) for each in ordered]),
    }
