"""A mean over the data, with its errors."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mean:
    """A mean over the data, in nats per datum."""

    mean: float
    #: Standard error of `mean` as an estimate for new data of the same kind: √(var_b / B), which contains
    #: the Monte Carlo error. NaN for one datum.
    standard_error: float
    #: The Monte Carlo part of it, for these very data.
    monte_carlo_error: float

    def __repr__(self) -> str:
        return f"{self.mean:.3f} ± {self.standard_error:.3f}"


def mean_of(values: Tensor, errors: Tensor) -> Mean:
    """The mean of `values` (B,), whose Monte Carlo standard errors are `errors` (B,)."""
    number = len(values)
    spread = float(values.std()) / math.sqrt(number) if number > 1 else math.nan
    return Mean(float(values.mean()), spread, float(errors.square().sum().sqrt()) / number)
