"""Likelihoods of grey levels k/(levels − 1), k = 0 … levels − 1: probabilities, not densities."""

from collections.abc import Iterable

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.forms import Form, Levels
from pyro_vae.data.raw import RawValues
from pyro_vae.distributions import DiscretizedLogistic, Lattice
from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods.base import Likelihood, PixelHead
from pyro_vae.networks import Shape, bounded, check_bounds, head

#: Where log s starts: a logistic of standard deviation 1/4 spans the levels from 0 to 1. One that spans far
#: more says so little of x that z is given up before it is used.
_LOG_SCALE = -2.0


class LevelsLikelihood(Likelihood):
    """A likelihood of grey levels x_d = k/(levels − 1), k = 0 … levels − 1.

    Args:
        decoder: Network from z to features.
        levels: Number of levels, 2 or more; `Dataset.levels` of the data.

    Raises:
        InputError: where there are fewer than 2 levels.
    """

    remedy = (
        "put data of that many levels into the form Levels (--data.form Levels), or for other numbers use a "
        "continuous likelihood as ContinuousBernoulliLikelihood or NormalLikelihood"
    )

    def __init__(self, decoder: nn.Module, levels: int) -> None:
        super().__init__()
        if count("levels", levels) < 2:
            raise InputError(f"levels expects at least 2 of them, got {levels}: give the data's own number")
        self.decoder = decoder
        self.levels = levels
        self.support_in_words = f"the {levels} levels k/{levels - 1} from 0 to 1"

    @classmethod
    def form_for(cls, raw: RawValues) -> Form:
        """`Levels`."""
        return Levels()


class CategoricalLikelihood(LevelsLikelihood):
    """p(x|z) = Π_d softmax(l_d(z))_k at the level x_d = k/(levels − 1), one logit for each level.

    The levels have no order, so 256 levels need much data; `DiscretizedLogisticLikelihood` knows it.

    Args:
        decoder: Network from z to features, to which the head for the logits l is added.
        data_shape: Shape of one datum.
        levels: Number of levels, 2 or more; `Dataset.levels` of the data.

    Raises:
        InputError: where there are fewer than 2 levels.

    >>> from pyro_vae import MLP
    >>> likelihood = CategoricalLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8), 17)
    >>> likelihood.logits(likelihood.decoder(torch.zeros(3, 5))).shape
    torch.Size([3, 1, 8, 8, 17])
    """

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int], levels: int) -> None:
        super().__init__(decoder, levels)
        self.logits = PixelHead(decoder, data_shape, levels)
        self.data_shape = self.logits.data_shape

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        level = dist.Categorical(logits=self.logits(self.decoder(z)))
        return Lattice(level, 1 / (self.levels - 1)).to_event(len(self.data_shape))


class DiscretizedLogisticLikelihood(LevelsLikelihood):
    """p(x|z) = Π_d P(the bin of x_d), under a logistic of location m_d(z) and scale s_d(z).

    Bins are 1/(levels − 1) wide, and the outermost ones take the tails: Kingma et al. (2016), Salimans
    et al. (2017). The location starts about 1/2, and log s about −2: a standard deviation of 1/4.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        levels: Number of levels, 2 or more; `Dataset.levels` of the data.
        log_scale_bounds: Range of log s, approached smoothly; the logistic's standard deviation is π s / √3.

    Raises:
        InputError: where there are fewer than 2 levels.

    >>> from pyro_vae import MLP
    >>> likelihood = DiscretizedLogisticLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8), 17)
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        data_shape: Iterable[int],
        levels: int,
        *,
        log_scale_bounds: tuple[float, float] = (-7.0, 2.0),
    ) -> None:
        super().__init__(decoder, levels)
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.loc = head(decoder, data_shape)
        self.data_shape = self.loc.output_shape
        self.log_scale = head(decoder, self.data_shape)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        features = self.decoder(z)
        scale = bounded(self.log_scale(features) + _LOG_SCALE, self.log_scale_bounds).exp()
        pixels = DiscretizedLogistic(self.loc(features) + 0.5, scale, self.levels)
        return pixels.to_event(len(self.data_shape))


class DiscretizedLogisticMixtureLikelihood(LevelsLikelihood):
    """p(x|z) = Π_d Σ_c w_dc P_c(the bin of x_d), a mixture of discretised logistics for each pixel.

    Weights, locations and scales are given by the network; pixels, and the channels of one pixel, are
    independent given z, other than in PixelCNN++ (Salimans et al. 2017). The locations start evenly
    spread over [0, 1], and log s about −2.

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: Shape of one datum.
        levels: Number of levels, 2 or more; `Dataset.levels` of the data.
        components: Number of logistics in each pixel's mixture.
        log_scale_bounds: Range of log s, approached smoothly; a logistic's standard deviation is π s / √3.

    Raises:
        InputError: where there are fewer than 2 levels.

    >>> from pyro_vae import MLP
    >>> decoder = MLP().decoder(5, (1, 8, 8))
    >>> likelihood = DiscretizedLogisticMixtureLikelihood(decoder, (1, 8, 8), 17, components=3)
    >>> likelihood(torch.zeros(3, 5)).event_shape
    torch.Size([1, 8, 8])
    """

    start: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        data_shape: Iterable[int],
        levels: int,
        *,
        components: int = 5,
        log_scale_bounds: tuple[float, float] = (-7.0, 2.0),
    ) -> None:
        super().__init__(decoder, levels)
        self.log_scale_bounds = check_bounds(log_scale_bounds)
        self.data_shape: Shape = tuple(data_shape)
        count("components", components)
        self.logits, self.loc, self.log_scale = (
            PixelHead(decoder, self.data_shape, components) for _ in range(3)
        )
        self.register_buffer("start", (torch.arange(components) + 0.5) / components, persistent=False)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        features = self.decoder(z)
        scale = bounded(self.log_scale(features) + _LOG_SCALE, self.log_scale_bounds).exp()
        logistics = DiscretizedLogistic(self.loc(features) + self.start, scale, self.levels)
        weights = dist.Categorical(logits=self.logits(features))
        return dist.MixtureSameFamily(weights, logistics).to_event(len(self.data_shape))
