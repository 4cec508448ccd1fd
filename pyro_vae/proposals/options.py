"""How a proposal is fitted."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pyro_vae.errors import InputError, count

#: Which distributions are fitted.
FamilyName = Literal["auto", "normal", "guide"]


@dataclass(frozen=True)
class LocalProposal:
    """A proposal for each datum: r(z) = (1 − a) · local(z) + a · q(z|x).

    local starts at q(z|x), has parameters of its own for each datum, is moved to a higher ELBO by a fixed
    number of steps of Adam, and then widened. The share a of q is a defence (Hesterberg 1995): the weights
    are at most 1/a times those under q, so that no region that q visits is lost. The fit has draws of its
    own; given it those that count are independent, so that the estimate of p(x) is unbiased. The optimum is
    that of Cremer, Li & Duvenaud (2018), "Inference suboptimality in variational autoencoders".

    Args:
        family: `normal` is N(m, L Lᵀ) over the unconstrained latents of all sites together, with all their
            correlations; `guide` the guide's own distributions, with parameters of their own for each datum
            (of a flow or a mixture only the draws are shifted and scaled); `auto` the normal where all
            latents are real numbers, 64 of a datum at the most, else the guide's.
        steps: Of Adam.
        draws: Of z per datum and step.
        learning_rate: Of the first step; a location moves in standard deviations of the guide. That of a
            normal over n > 8 numbers is √(8/n) of it.
        widening: Factor on the standard deviations of the fitted proposal.
        defence: a, from 0 to 1: the share of draws from q itself.
        above: Fit only data whose k̂ in a pilot of 250 draws from q is above this, so that q is no good
            proposal; for the others local is q, widened, or the normal with its moments. −inf fits all.

    Raises:
        InputError: where a number is out of its range.

    >>> LocalProposal(steps=400).family
    'auto'
    """

    family: FamilyName = "auto"
    steps: int = 100
    draws: int = 3
    learning_rate: float = 0.1
    widening: float = 1.15
    defence: float = 0.1
    above: float = 0.5

    def __post_init__(self) -> None:
        count("steps", self.steps)
        count("draws", self.draws)
        if self.family not in get_args(FamilyName):
            raise InputError(f"family expects 'auto', 'normal' or 'guide', got {self.family!r}")
        for name in ("learning_rate", "widening"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} expects a positive number, got {value}")
        if math.isnan(self.above):
            raise InputError("above expects a number to hold k-hat against, got nan: 0.5 is usual")
        if not 0 <= self.defence < 1:
            raise InputError(f"defence expects a share from 0 to below 1, got {self.defence}")
