"""Networks of dense layers."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from torch import nn

from pyro_vae.errors import counts
from pyro_vae.networks.base import Architecture, Network, Shape


class MLP(Architecture):
    """Fully connected layers, the decoder's widths being the encoder's in reverse.

    Args:
        hidden_dims: Widths of the encoder's hidden layers; none gives a linear VAE.
        activation: Nonlinearity after each hidden layer.

    >>> MLP((200, 100)).encoder((1, 8, 8)).output_shape
    (100,)
    >>> MLP((200, 100)).decoder(5, (1, 8, 8)).output_shape
    (200,)
    """

    def __init__(
        self, hidden_dims: tuple[int, ...] = (200, 200), activation: Callable[[], nn.Module] = nn.Tanh
    ) -> None:
        self.hidden_dims = counts("hidden_dims", hidden_dims)
        self.activation = activation

    def encoder(self, data_shape: Iterable[int]) -> Network:
        """Flattened data to features of width `hidden_dims[-1]`."""
        data_shape = tuple(data_shape)
        return self._network(data_shape, (math.prod(data_shape), *self.hidden_dims))

    def decoder(self, latent_dim: int, data_shape: Iterable[int]) -> Network:
        """Latent vector to features of width `hidden_dims[0]`."""
        return self._network((latent_dim,), (latent_dim, *reversed(self.hidden_dims)))

    def _network(self, input_shape: Shape, widths: Shape) -> Network:
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise(widths):
            layers += self._layer(width_in, width_out)
        return Network(nn.Sequential(*layers), input_shape, (widths[-1],))

    def _layer(self, width_in: int, width_out: int) -> list[nn.Module]:
        return [nn.Linear(width_in, width_out), self.activation()]


class GatedMLP(MLP):
    """Fully connected gated layers, h = (W x + b) ⊙ σ(V x + c), in place of a nonlinearity.

    Dauphin et al., "Language Modeling with Gated Convolutional Networks" (2017); the dense network of
    Tomczak & Welling, "VAE with a VampPrior" (2018), has hidden_dims (300, 300).

    Args:
        hidden_dims: Widths of the encoder's hidden layers; the decoder's are the same in reverse.

    >>> GatedMLP().decoder(5, (1, 8, 8)).output_shape
    (300,)
    """

    def __init__(self, hidden_dims: tuple[int, ...] = (300, 300)) -> None:
        super().__init__(hidden_dims)

    def _layer(self, width_in: int, width_out: int) -> list[nn.Module]:
        return [nn.Linear(width_in, 2 * width_out), nn.GLU()]
