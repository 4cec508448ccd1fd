"""What log weights of chains say of log p(x)."""

import math
from typing import NamedTuple

from torch import Tensor


class WeightsSummary(NamedTuple):
    """The first fields of a result, (B,) each."""

    estimate: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    largest_share: Tensor


def estimate_of(log_weights: Tensor) -> WeightsSummary:
    """The estimate of log E[w] from log weights (C, B), with its error and diagnosis."""
    num = len(log_weights)
    shares = log_weights.softmax(0)
    inverse = shares.square().sum(0)
    factor = num / (num - 1) if num > 1 else math.nan
    error = (factor * (inverse - 1 / num).clamp(min=0)).sqrt()
    return WeightsSummary(log_weights.logsumexp(0) - math.log(num), error, 1 / inverse, shares.amax(0))
