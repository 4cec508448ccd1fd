"""Any likelihood and any posterior, made to depend on what is given beside x."""

import math
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor, nn

from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import Conditions, Shape
from pyro_vae.posteriors import Posterior


def shape_with(conditions: Conditions, data_shape: Shape) -> Shape:
    """Shape of x with its conditions: of a picture one channel more, else that many numbers more."""
    if len(data_shape) == 3:
        return (data_shape[0] + 1, *data_shape[1:])
    return (math.prod(data_shape) + conditions.size,)


class Conditional(nn.Module):
    """A component behind a change of its argument by the conditions: made by `assemble`, and no option."""

    conditions: tuple[str, ...]

    def _set_up(self, component: Any, conditions: Conditions) -> None:
        self.component, self.vector = component, conditions
        names = conditions.names
        self.conditions = (*names, *(name for name in component.conditions if name not in names))

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse what is given and does not fit, here and in the component."""
        self.vector.check(given)
        self.component.check_conditions(**self._for_component(given))

    def _for_component(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: given[name] for name in self.component.conditions}

    def _vector(self, given: dict[str, Tensor], leading: Size) -> tuple[Tensor, Size]:
        """The vector c, and the leading axes of both: given may have axes more, as of labels enumerated."""
        c: Tensor = self.vector(given)
        return c, torch.broadcast_shapes(leading, c.shape[:-1])


class GivenLikelihood(Conditional, Likelihood):
    """p(x|z, c): a likelihood of the vector (z, c), c being what is given beside x.

    Sohn, Lee & Yan, "Learning Structured Output Representation using Deep Conditional Generative Models"
    (2015).

    Args:
        likelihood: That of latent vectors of length L + conditions.size.
        latent_dim: L, the length of z.
        conditions: What is given.

    >>> from pyro_vae import MLP, BernoulliLikelihood
    >>> conditions = Conditions({"label": 10})
    >>> inner = BernoulliLikelihood(MLP().decoder(5 + 10, (1, 8, 8)), (1, 8, 8))
    >>> likelihood = GivenLikelihood(inner, 5, conditions)
    >>> likelihood(torch.zeros(4, 3, 5), label=torch.tensor([0, 9, 3])).batch_shape
    torch.Size([4, 3])
    """

    def __init__(self, likelihood: Likelihood, latent_dim: int, conditions: Conditions) -> None:
        super().__init__()
        self._set_up(likelihood, conditions)
        self.latent_dim = latent_dim

    @property
    def decoder(self) -> nn.Module:  # type: ignore[override]
        """The decoder of the vector (z, c)."""
        return self.component.decoder

    @property
    def data_shape(self) -> Shape:  # type: ignore[override]
        """Shape of one datum."""
        return self.component.data_shape

    def forward(self, z: Tensor, **given: Tensor) -> TorchDistribution:
        """p(x|z, c): batch shape (...), event shape `data_shape`."""
        c, leading = self._vector(given, z.shape[:-1])
        joined = torch.cat([z.expand(*leading, z.shape[-1]), c.expand(*leading, c.shape[-1])], -1)
        return self.component(joined, **self._for_component(given))

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """As the likelihood inside."""
        self.component.check(px, x)


class GivenPosterior(Conditional, Posterior):
    """q(z|x, c): a posterior of x with c, c being what is given beside x.

    A picture gets a channel more, a linear map of c to its height and width; other data are flattened, with c
    after them.

    Args:
        posterior: That of data of the shape `shape_with(conditions, data_shape)`.
        data_shape: Shape of one datum.
        conditions: What is given.

    >>> from pyro_vae import MLP, DiagonalNormalPosterior
    >>> conditions = Conditions({"label": 10})
    >>> encoder = MLP().encoder(shape_with(conditions, (1, 8, 8)))
    >>> posterior = GivenPosterior(DiagonalNormalPosterior(encoder, 5), (1, 8, 8), conditions)
    >>> posterior(torch.zeros(3, 1, 8, 8), label=torch.tensor([0, 9, 3])).batch_shape
    torch.Size([3])
    """

    def __init__(self, posterior: Posterior, data_shape: Shape, conditions: Conditions) -> None:
        super().__init__()
        self._set_up(posterior, conditions)
        self.latent_dim = posterior.latent_dim
        self.data_shape = tuple(data_shape)
        is_picture = len(self.data_shape) == 3
        self.channel = nn.Linear(conditions.size, math.prod(self.data_shape[1:])) if is_picture else None

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The encoder of x with c."""
        return self.component.encoder

    def forward(self, x: Tensor, **given: Tensor) -> TorchDistribution:
        """q(z|x, c): batch shape (...), event shape (L,)."""
        c, leading = self._vector(given, x.shape[: x.ndim - len(self.data_shape)])
        x = x.expand(*leading, *self.data_shape)
        if self.channel is None:
            joined = torch.cat([x.reshape(*leading, -1), c.expand(*leading, c.shape[-1])], -1)
        else:
            shape = (1, *self.data_shape[1:])
            joined = torch.cat([x, self.channel(c).unflatten(-1, shape).expand(*leading, *shape)], -3)
        return self.component(joined, **self._for_component(given))
