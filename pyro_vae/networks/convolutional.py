"""Networks of convolutions, for pictures."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from torch import Tensor, nn

from pyro_vae.errors import InputError, count, counts
from pyro_vae.networks.base import Architecture, Network, Shape, halved


class Convolutional(Architecture):
    """3×3 convolutions of stride 2 and a dense layer; the same way back, by transposed convolutions.

    Works for any C×H×W: a side s becomes ceil(s/2) in each layer, and the decoder returns through the
    very same sizes. The decoder ends in a map of `channels[0]` channels at half the picture's size, to which
    the likelihood adds a convolution that gives each four pixels (see `head`): a map at full size takes most
    of the time of a small network, and is no better for it (`experiments/colour`).

    Args:
        channels: Channels after each convolution of the encoder.
        hidden_dim: Width of the dense layer in which the encoder ends and the decoder begins.
        activation: Nonlinearity after each layer. With one that is the identity near 0, as the default, z is
            used many steps earlier than with ReLU or SiLU (`experiments/colour`).

    >>> Convolutional().encoder((3, 9, 5)).output_shape
    (256,)
    >>> Convolutional().decoder(2, (3, 9, 5)).output_shape
    (16, 5, 3)
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32),
        hidden_dim: int = 256,
        activation: Callable[[], nn.Module] = nn.ELU,
    ) -> None:
        self.channels = counts("channels", channels)
        if not self.channels:
            raise InputError("channels expects at least one number, got none: give it, or use MLP")
        self.hidden_dim = count("hidden_dim", hidden_dim)
        self.activation = activation

    def encoder(self, data_shape: Iterable[int]) -> Network:
        """Picture (C, H, W) to features of width `hidden_dim`."""
        data_shape = picture(data_shape)
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise((data_shape[0], *self.channels)):
            layers.append(nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1))
            layers += self._after(channels_out)
        flat = self.channels[-1] * math.prod(self._sizes(data_shape)[-1])
        layers += [nn.Flatten(), nn.Linear(flat, self.hidden_dim), self.activation()]
        return Network(nn.Sequential(*layers), data_shape, (self.hidden_dim,))

    def decoder(self, latent_dim: int, data_shape: Iterable[int]) -> Network:
        """Latent vector to a map of `channels[0]` channels of half the picture's size."""
        sizes = self._sizes(picture(data_shape))[:0:-1]
        small = (self.channels[-1], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(latent_dim, self.hidden_dim), self.activation()]
        layers += [nn.Linear(self.hidden_dim, math.prod(small)), self.activation(), nn.Unflatten(1, small)]
        channels = reversed(self.channels)
        for (channels_in, channels_out), (_, size) in zip(pairwise(channels), pairwise(sizes), strict=True):
            # from ceil(s/2) back to s: an even side needs one more row than an odd one
            even = (1 - size[0] % 2, 1 - size[1] % 2)
            layers.append(
                nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=even)
            )
            layers += self._after(channels_out)
        return Network(nn.Sequential(*layers), (latent_dim,), (self.channels[0], *sizes[-1]))

    def _after(self, channels: int) -> list[nn.Module]:
        """What follows a (transposed) convolution that ends in so many channels."""
        return [self.activation()]

    def _sizes(self, data_shape: Shape) -> list[Shape]:
        """Height and width before the first convolution and after each."""
        sizes = [data_shape[1:]]
        for _ in self.channels:
            sizes.append(halved(sizes[-1]))
        return sizes


class ResidualConvolutional(Convolutional):
    """`Convolutional` with residual blocks of group-normalised 3×3 convolutions at every size.

    After each (transposed) convolution of stride 2 come `blocks` blocks h + f(h), f being twice group
    normalisation, nonlinearity and convolution, as He et al., "Identity Mappings in Deep Residual
    Networks" (2016), with the normalisation of Wu & He, "Group Normalization" (2018), which, unlike that
    of a batch, treats each datum on its own, so that p(x|z) and q(z|x) stay densities of one datum.

    Args:
        channels: Channels after each convolution of stride 2 of the encoder.
        hidden_dim: Width of the dense layer in which the encoder ends and the decoder begins.
        blocks: Residual blocks at every size.
        groups: Groups of channels normalised together; where it does not divide the channels, their
            greatest common divisor.
        activation: Nonlinearity.

    >>> ResidualConvolutional().decoder(2, (3, 9, 5)).output_shape
    (32, 5, 3)
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64),
        hidden_dim: int = 256,
        blocks: int = 1,
        groups: int = 8,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__(channels, hidden_dim, activation)
        self.blocks = count("blocks", blocks)
        self.groups = count("groups", groups)

    def _after(self, channels: int) -> list[nn.Module]:
        groups = math.gcd(self.groups, channels)
        blocks = [ResidualBlock(channels, groups, self.activation) for _ in range(self.blocks)]
        return [*blocks, nn.GroupNorm(groups, channels), self.activation()]


class ResidualBlock(nn.Module):
    """Return h + f(h), f being twice group normalisation, nonlinearity and 3×3 convolution."""

    def __init__(self, channels: int, groups: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(groups, channels), activation()]
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        residual: Tensor = self.layers(h)
        return h + residual


def picture(data_shape: Iterable[int]) -> Shape:
    """A data shape, refused where it is not (C, H, W)."""
    data_shape = tuple(data_shape)
    if len(data_shape) != 3:
        raise InputError(
            f"a convolutional network expects pictures of shape (C, H, W), got data of shape {data_shape}: "
            "reshape the data, or use the network MLP"
        )
    return data_shape
