"""Any likelihood and any posterior of standardised numbers, made one of the numbers themselves."""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.distributions import Affine
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Shape, declared_shape
from pyro_vae.posteriors import Posterior


class Scaling(nn.Module):
    """A component of u = (x − loc)/scale behind one of x: made by `assemble`, and no option."""

    component: Any
    loc: Tensor
    scale: Tensor

    def _set_up(self, component: Any, loc: Tensor, scale: Tensor) -> None:
        self.component = component
        self.conditions = component.conditions
        self.register_buffer("loc", torch.as_tensor(loc))
        self.register_buffer("scale", torch.as_tensor(scale))

    def standardise(self, x: Tensor) -> Tensor:
        """U of x."""
        return (x - self.loc) / self.scale

    def check_conditions(self, **given: Tensor) -> None:
        """As the component inside."""
        self.component.check_conditions(**given)


class StandardisedLikelihood(Scaling, Likelihood):
    """p(x|z) = p((x − loc)/scale | z) / Π scale: nats, draws and means are in the units of x.

    Args:
        likelihood: That of u = (x − loc)/scale: a density of all real numbers.
        loc: Of each entry, or of all that it broadcasts to: the training data's mean.
        scale: The same, positive: the training data's standard deviation.

    >>> from pyro_vae import MLP, NormalLikelihood
    >>> inner = NormalLikelihood(MLP().decoder(1, (2,)), (2,), scale=1.0)
    >>> likelihood = StandardisedLikelihood(inner, torch.tensor([40_000.0, 1.7]), torch.tensor([9e3, 0.1]))
    >>> likelihood(torch.zeros(1)).stddev
    tensor([9.0000e+03, 1.0000e-01])
    """

    def __init__(self, likelihood: Likelihood, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self._set_up(likelihood, loc, scale)
        self.takes_missing = likelihood.takes_missing

    @property
    def latent_dim(self) -> int | None:
        """L, where the likelihood inside says so."""
        return getattr(self.component, "latent_dim", None)

    @property
    def decoder(self) -> nn.Module:  # type: ignore[override]
        """That of the likelihood inside."""
        decoder: nn.Module = self.component.decoder
        return decoder

    @property
    def data_shape(self) -> Shape:  # type: ignore[override]
        """Shape of one datum."""
        shape: Shape = self.component.data_shape
        return shape

    def forward(self, z: Tensor, **given: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`.

        Raises:
            InputError: where the likelihood inside is no density of all real numbers.
        """
        return Affine.entries(self.component(z, **given), self.loc, self.scale)

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """As the likelihood inside, of the standardised x."""
        entries = px.base_dist if hasattr(px, "base_dist") else px
        inner = entries.base
        whole = inner.to_event(len(px.event_shape) - len(inner.event_shape))
        self.component.check(whole, self.standardise(x))


class StandardisedPosterior(Scaling, Posterior):
    """q(z|x) = q(z | (x − loc)/scale).

    Args:
        posterior: That of u = (x − loc)/scale.
        loc: As of `StandardisedLikelihood`.
        scale: As of `StandardisedLikelihood`.

    >>> from pyro_vae import MLP, DiagonalNormalPosterior
    >>> inner = DiagonalNormalPosterior(MLP().encoder((2,)), 1)
    >>> loc, scale = torch.tensor([40_000.0, 1.7]), torch.tensor([9e3, 0.1])
    >>> posterior = StandardisedPosterior(inner, loc, scale)
    >>> bool(posterior(loc[None]).mean == inner(torch.zeros(1, 2)).mean)  # the mean of the data is 0 inside
    True
    """

    def __init__(self, posterior: Posterior, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self._set_up(posterior, loc, scale)
        self.latent_dim = posterior.latent_dim

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The encoder of u."""
        encoder: nn.Module = self.component.encoder
        return encoder

    def forward(self, x: Tensor, **given: Tensor) -> TorchDistribution:
        """q(z|x): batch shape (...), event shape (L,)."""
        qz: TorchDistribution = self.component(self.standardise(x), **given)
        return qz


class StandardisedEncoder(nn.Module):
    """A network of u = (x − loc)/scale.

    Args:
        network: An encoder.
        loc: As of `StandardisedLikelihood`.
        scale: As of `StandardisedLikelihood`.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        self.input_shape = declared_shape(network, "input_shape")
        self.output_shape = declared_shape(network, "output_shape")
        self.register_buffer("loc", torch.as_tensor(loc))
        self.register_buffer("scale", torch.as_tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        """The features of x: (..., *data_shape) to (..., *output_shape)."""
        features: Tensor = self.network((x - self.loc) / self.scale)
        return features


def moments_of_observed(blocks: Iterable[Tensor], data_shape: Shape) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each entry of vectors, and of each channel of pictures, over what is observed.

    Computed in float64 about the first block's mean. The deviation is 1 where an entry does not vary.

    >>> moments_of_observed([torch.tensor([[1.0, 7.0], [3.0, torch.nan]])], (2,))
    (tensor([2., 7.]), tensor([1., 1.]))
    """
    axes = (0,) if len(data_shape) == 1 else (0, 2, 3)
    number: Tensor | float = 0.0
    total, squares, centre = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for position, block in enumerate(blocks):
        values = block.double()
        if position == 0:
            centre = values.nanmean(axes, keepdim=True).nan_to_num(0.0)
        number = number + (~values.isnan()).sum(axes, keepdim=True)
        total = total + (values - centre).nansum(axes, keepdim=True)
        squares = squares + (values - centre).square().nansum(axes, keepdim=True)
    number = torch.as_tensor(number).clamp(min=1)
    mean = total / number
    deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
    varies = deviation > 1e-7 * (centre + mean).abs()
    scale = torch.where(varies, deviation, 1.0)
    return (centre + mean)[0].float(), scale[0].float()
