"""How a proposal is fitted."""

import math
from dataclasses import dataclass

from pyro_vae.errors import InputError, count


@dataclass(frozen=True)
class LocalProposal:
    """A proposal for each datum: r(z) = (1 − a) · local(z) + a · q(z|x).

    local is the guide's q(z|x) with parameters of its own for each datum, moved from those of the guide to a
    higher ELBO by a fixed number of steps of Adam, and then widened. The share a of q is a defence
    (Hesterberg 1995): wherever q has mass, the weights are at most 1/a times those under q, so that no
    region that q visits is lost. The fit has random numbers of its own; given it the draws are independent,
    so that the estimate of p(x) is unbiased.

    Args:
        steps: Of Adam.
        draws: Of z per datum and step.
        learning_rate: Of the first step; a location moves in standard deviations of the guide.
        widening: Factor on the standard deviations of the fitted proposal.
        defence: a, from 0 to 1: the share of draws from q itself.
        full_covariance: Fit a normal with all correlations in the unconstrained latents of all sites
            together, whatever the guide's family.

    Raises:
        InputError: where a number is out of its range.

    >>> LocalProposal(steps=400, full_covariance=True)
    LocalProposal(steps=400, draws=5, learning_rate=0.1, widening=1.15, defence=0.1, full_covariance=True)
    """

    steps: int = 200
    draws: int = 5
    learning_rate: float = 0.1
    widening: float = 1.15
    defence: float = 0.1
    full_covariance: bool = False

    def __post_init__(self) -> None:
        count("steps", self.steps)
        count("draws", self.draws)
        for name in ("learning_rate", "widening"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} expects a positive number, got {value}")
        if not 0 <= self.defence < 1:
            raise InputError(f"defence expects a share from 0 to below 1, got {self.defence}")
