"""Likelihoods of real data: densities, whose logarithm can be positive."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.forms import AsGiven, Dequantised, Form, Standardised
from pyro_vae.data.raw import RawValues
from pyro_vae.distributions import ContinuousBernoulli
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.networks import Amplified, FreeNumbers, bounded, check_bounds, head

#: The largest value, and the smallest range of values, at which a network that starts about 0 learns at once.
_HIGHEST, _NARROWEST = 30.0, 0.03


def within_reach(low: float, high: float) -> bool:
    """Whether numbers in this range are learned by a likelihood that starts as a standard normal.

    >>> within_reach(0.0, 1.0), within_reach(0.0, 52_000.0), within_reach(0.0, 0.001)
    (True, False, False)
    """
    return low >= -_HIGHEST and high <= _HIGHEST and (high - low >= _NARROWEST or low == high)


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x|z) = Π_d C(l_d) σ(l_d)^x_d σ(−l_d)^(1 − x_d), for grey levels x_d ∈ [0, 1], with l = l(z).

    C(l) = l / tanh(l/2) makes the Bernoulli's cross-entropy a density: Loaiza-Ganem & Cunningham, "The
    continuous Bernoulli" (2019). It is one of continuous data; the form `Dequantised` makes grey levels
    that.

    Args:
        decoder: Network from z to features, to which the head for the logits l is added.
        data_shape: Shape of one datum.

    >>> from pyro_vae import MLP
    >>> likelihood = ContinuousBernoulliLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8))
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    support_in_words = "grey levels in [0, 1]"
    remedy = "scale the data to [0, 1] by their maximum, or use NormalLikelihood"

    @classmethod
    def form_for(cls, raw: RawValues) -> Form:
        """`Dequantised` of whole numbers, `AsGiven` of others."""
        return Dequantised() if raw.levels else AsGiven()

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.logits = Amplified(head(decoder, data_shape))
        self.data_shape = self.logits.output_shape

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        return ContinuousBernoulli(self.logits(self.decoder(z))).to_event(len(self.data_shape))

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """Refuse data outside [0, 1], and ten data or more of nothing but 0 and 1.

        Raises:
            InputError: with the range of x and the remedy.
        """
        super().check(px, x)
        # a few pictures may be blank
        if len(x) >= 10 and bool(((x == 0) | (x == 1)).all()):
            raise InputError(
                f"{type(self).__name__} expects grey levels between 0 and 1, got only 0 and 1: use "
                "the form Dequantised where the data have grey levels, or use BernoulliLikelihood"
            )


class LocationScaleLikelihood(Likelihood):
    """p(x|z) = Π_d f((x_d − m_d(z)) / s_d) / s_d, with f of variance 1: `density` gives its kind.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        scale: Standard deviation s: a fixed number, `shared` (one learned number for all pixels), or
            `per_pixel` (given by the network for each pixel of each datum).
        log_scale_bounds: Range of a learned log s, approached smoothly.

    Raises:
        InputError: where a fixed scale is below 1e-6 or infinite.
    """

    support_in_words = "finite numbers"
    remedy = "replace what is infinite in the data, or leave it out; no other likelihood takes it"
    fixed_scale: Tensor

    @classmethod
    def form_for(cls, raw: RawValues) -> Form:
        """`Dequantised` of whole numbers; of others `AsGiven`, or where far from 1 `Standardised`."""
        if raw.levels:
            return Dequantised()
        return AsGiven() if within_reach(*raw.ends) else Standardised()

    def __init__(
        self,
        decoder: nn.Module,
        data_shape: Iterable[int],
        *,
        scale: float | Literal["shared", "per_pixel"] = "shared",
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__()
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.decoder = decoder
        self.loc = head(decoder, data_shape)
        self.data_shape = self.loc.output_shape
        self.log_scale: nn.Module | None = None
        if scale == "per_pixel":
            self.log_scale = head(decoder, self.data_shape)
        elif scale == "shared":
            self.log_scale = FreeNumbers(torch.zeros(()))
        elif isinstance(scale, str) or not 1e-6 <= scale < math.inf:
            raise InputError(
                f"scale expects a number from 1e-6, 'shared' or 'per_pixel', got {scale!r}: it is a standard "
                "deviation in units of the data"
            )
        else:
            self.register_buffer("fixed_scale", torch.tensor(float(scale)))

    def scale_advice(self, low: float, high: float) -> str | None:
        """What to do with data from `low` to `high`, where this likelihood hardly learns that range."""
        if within_reach(low, high):
            return None
        return (
            f"{type(self).__name__} starts about 0 with a scale of 1, got values from {low:.6g} to "
            f"{high:.6g}, which it learns slowly or not at all: standardise them, with "
            "data.in_form(pv.Standardised()) or --data.form Standardised; nats stay in the data's units"
        )

    @abstractmethod
    def density(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """The density of one pixel, of mean `loc` and standard deviation `scale`."""

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        features = self.decoder(z)
        return self.density(self.loc(features), self._scale(features)).to_event(len(self.data_shape))

    def _scale(self, features: Tensor) -> Tensor:
        if self.log_scale is None:
            return self.fixed_scale
        return bounded(self.log_scale(features), self.log_scale_bounds).exp()


class NormalLikelihood(LocationScaleLikelihood):
    """p(x|z) = Π_d N(x_d; m_d(z), s_d²), for real data; s is a standard deviation, in units of x.

    The log density is one of continuous data, in nats, and can be positive.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        scale: Standard deviation: a fixed number, `shared` (one learned number for all pixels), or
            `per_pixel` (given by the network for each pixel of each datum).
        log_scale_bounds: Range of a learned log s, approached smoothly.

    Raises:
        InputError: where a fixed scale is below 1e-6 or infinite.

    >>> from pyro_vae import MLP
    >>> likelihood = NormalLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8), scale=0.1)
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    def density(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """N(loc, scale²)."""
        return dist.Normal(loc, scale)


class LaplaceLikelihood(LocationScaleLikelihood):
    """p(x|z) = Π_d exp(−|x_d − m_d(z)| / b_d) / (2 b_d), for real data with outliers.

    `scale` is the standard deviation s = √2 b, as in `NormalLikelihood`, in units of x, and not the b
    that torch calls so. The log density is one of continuous data, in nats, and can be positive.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        scale: Standard deviation: a fixed number, `shared` (one learned number for all pixels), or
            `per_pixel` (given by the network for each pixel of each datum).
        log_scale_bounds: Range of a learned log s, approached smoothly.

    Raises:
        InputError: where a fixed scale is below 1e-6 or infinite.

    >>> from pyro_vae import MLP
    >>> likelihood = LaplaceLikelihood(MLP().decoder(5, (4,)), (4,), scale=0.1)
    >>> likelihood(torch.zeros(5)).stddev
    tensor([0.1000, 0.1000, 0.1000, 0.1000])
    """

    def density(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """Laplace(loc, b = scale / √2)."""
        return dist.Laplace(loc, scale / math.sqrt(2))
