"""Likelihoods of counts: probabilities, not densities."""

import math
from collections.abc import Iterable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.forms import Counts, Form
from pyro_vae.data.raw import RawValues
from pyro_vae.distributions import Lattice
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.networks import FreeNumbers, bounded, head
from pyro_vae.precision import wide

#: Range of the log mean count, approached smoothly: at 0 the network gives a mean of about 1.
LOG_MEAN_BOUNDS = (-10.0, 15.0)

#: Range of log θ, approached smoothly: from variances of 400 μ² to those of a Poisson within μ²/400.
LOG_DISPERSION_BOUNDS = (-6.0, 6.0)


class Poisson(dist.Poisson):
    """As torch's; x log μ − μ − log x! in float64, as its large terms cancel."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x), in the type of x."""
        return dist.Poisson(wide(self.rate)).log_prob(wide(value)).to(value)


class NegativeBinomial(dist.NegativeBinomial):
    """As torch's; the log density in float64, as its large terms cancel."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x), in the type of x."""
        exact = dist.NegativeBinomial(wide(self.total_count), logits=wide(self.logits))
        return exact.log_prob(wide(value)).to(value)


class CountLikelihood(Likelihood):
    """A likelihood of counts k_d = x_d / unit, whose mean μ_d(z) the network gives.

    Args:
        decoder: Network from z to features, to which the head for log μ is added.
        data_shape: Shape of one datum.
        unit: The value of x that means one count.
        exposure: Whether the mean is e · μ_d(z), with an exposure e given beside x: (B,) or (B, *data_shape).

    Raises:
        InputError: where the unit is not positive and finite.
    """

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int], unit: float, exposure: bool) -> None:
        super().__init__()
        if not 0 < unit < math.inf:
            raise InputError(f"unit expects a positive number, got {unit}")
        self.decoder = decoder
        self.log_mean = head(decoder, data_shape)
        self.data_shape = self.log_mean.output_shape
        self.unit = unit
        self.conditions = ("exposure",) if exposure else ()
        self.support_in_words = f"counts in units of {unit:.7g}, from 0"
        self.remedy = (
            "put counts into the form Counts (--data.form Counts), or give the unit that means one count; or "
            "for other numbers use a continuous likelihood such as NormalLikelihood"
        )

    @classmethod
    def form_for(cls, raw: RawValues) -> Form:
        """`Counts`."""
        return Counts()

    def log_means(self, z: Tensor, exposure: Tensor | None = None) -> Tensor:
        """Log μ(z), and log e more where there is an exposure: (..., *data_shape)."""
        log_means = bounded(self.log_mean(self.decoder(z)), LOG_MEAN_BOUNDS)
        return log_means if exposure is None else log_means + self._of_all(exposure).to(log_means).log()

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse an exposure that is not positive, or of another shape than (B,) or (B, *data_shape)."""
        for exposure in given.values():
            shapes = ((), self.data_shape)
            if tuple(exposure.shape[1:]) not in shapes or not bool((exposure > 0).all()):
                raise InputError(
                    f"expected a positive exposure of shape (B,) or (B, *{self.data_shape}), got "
                    f"{float(exposure.min()):.4g} and more of shape {tuple(exposure.shape)}: leave out data "
                    "without exposure"
                )

    def _of_all(self, exposure: Tensor) -> Tensor:
        """An exposure of each datum, with axes for those of the data."""
        dims = len(self.data_shape)
        each = exposure.ndim > dims and exposure.shape[-dims:] == self.data_shape
        return exposure if each else exposure.reshape(*exposure.shape, *[1] * dims)


class PoissonLikelihood(CountLikelihood):
    """p(x|z) = Π_d Poisson(x_d / unit; μ_d(z)), for counts; mean and variance of a count are μ.

    Args:
        decoder: Network from z to features, to which the head for log μ is added.
        data_shape: Shape of one datum.
        unit: The value of x that means one count: 1 in the form `Counts`, 1/16 for `Digits` in `Levels`.
        exposure: Whether the mean is e · μ_d(z), with an exposure (time, area, library size) given beside x:
            `likelihood(z, exposure=e)`, of shape (B,) or (B, *data_shape).

    Raises:
        InputError: where the unit is not positive and finite.

    >>> from pyro_vae import MLP
    >>> likelihood = PoissonLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8), unit=1 / 16)
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    def __init__(
        self, decoder: nn.Module, data_shape: Iterable[int], *, unit: float = 1.0, exposure: bool = False
    ) -> None:
        super().__init__(decoder, data_shape, unit, exposure)

    def forward(self, z: Tensor, exposure: Tensor | None = None) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        pixels = Poisson(self.log_means(z, exposure).exp())
        return Lattice(pixels, self.unit).to_event(len(self.data_shape))


class NegativeBinomialLikelihood(CountLikelihood):
    """p(x|z) = Π_d NB(x_d / unit; μ_d(z), θ_d), for overdispersed counts: of variance μ + μ²/θ.

    θ is one learned number for each pixel, as for each gene in Lopez et al., "Deep generative modeling for
    single-cell transcriptomics" (2018), and Grønbech et al., "scVAE" (2020).

    Args:
        decoder: Network from z to features, to which the head for log μ is added.
        data_shape: Shape of one datum.
        unit: The value of x that means one count: 1 in the form `Counts`, 1/16 for `Digits` in `Levels`.
        exposure: Whether the mean is e · μ_d(z), with an exposure (time, area, library size) given beside x:
            `likelihood(z, exposure=e)`, of shape (B,) or (B, *data_shape).

    Raises:
        InputError: where the unit is not positive and finite.

    >>> from pyro_vae import MLP
    >>> likelihood = NegativeBinomialLikelihood(MLP().decoder(5, (100,)), (100,))
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([100])
    """

    def __init__(
        self, decoder: nn.Module, data_shape: Iterable[int], *, unit: float = 1.0, exposure: bool = False
    ) -> None:
        super().__init__(decoder, data_shape, unit, exposure)
        self.log_dispersion = FreeNumbers(torch.zeros(self.data_shape))

    def forward(self, z: Tensor, exposure: Tensor | None = None) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        log_dispersion = bounded(self.log_dispersion(), LOG_DISPERSION_BOUNDS)
        logits = self.log_means(z, exposure) - log_dispersion  # the mean is θ · exp(logits)
        pixels = NegativeBinomial(log_dispersion.exp(), logits=logits)
        return Lattice(pixels, self.unit).to_event(len(self.data_shape))
