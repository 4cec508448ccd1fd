"""The networks of the Keras example: the decoder returns to the full size, by as many channels."""

import math
from collections.abc import Iterable
from itertools import pairwise

from torch import nn

import pyro_vae as pv


class KerasConvolutional(pv.Convolutional):
    """`Convolutional` whose decoder has no hidden dense layer, and a transposed convolution more.

    >>> KerasConvolutional((32, 64), 16, nn.ReLU).decoder(2, (1, 28, 28)).output_shape
    (32, 28, 28)
    """

    def decoder(self, latent_dim: int, data_shape: Iterable[int]) -> pv.Network:
        """Latent vector to a map of `channels[0]` channels, for sides that are halved without rest."""
        _, *size = data_shape
        size = [side // 2 ** len(self.channels) for side in size]
        small = (self.channels[-1], *size)
        layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(small)), self.activation()]
        layers.append(nn.Unflatten(1, small))
        for channels in pairwise((self.channels[-1], *reversed(self.channels))):
            layers.append(nn.ConvTranspose2d(*channels, 3, stride=2, padding=1, output_padding=1))
            layers.append(self.activation())
            size = [2 * side for side in size]
        return pv.Network(nn.Sequential(*layers), (latent_dim,), (self.channels[0], *size))
