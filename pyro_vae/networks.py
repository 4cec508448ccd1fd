"""Networks: tensors to tensors, no probability.

A network ends in *features*. The component that owns the density (a posterior, a likelihood) adds
the linear heads that turn features into the parameters of its distribution, so every network fits
every component. An `Architecture` makes the encoder and the decoder of one kind, which fit each other.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import cast

import torch
from torch import Size, Tensor, nn

from pyro_vae.errors import InputError, count, counts

Shape = tuple[int, ...]


class Network(nn.Module):
    """A module that says which shapes it maps: (..., *input_shape) to (..., *output_shape).

    Any number of leading axes is allowed; the layers inside see exactly one. Wrap a network of your
    own in it to use it as an encoder or a decoder.

    Args:
        layers: A module from (N, *input_shape) to N · prod(output_shape) numbers.
        input_shape: Shape of one input.
        output_shape: Shape of one output.

    Raises:
        InputError: where an input's last axes are not `input_shape`.

    >>> import torch
    >>> features = Network(nn.Sequential(nn.Linear(64, 32), nn.Tanh()), (64,), (32,))
    >>> features(torch.zeros(5, 3, 64)).shape
    torch.Size([5, 3, 32])
    """

    def __init__(self, layers: nn.Module, input_shape: Iterable[int], output_shape: Iterable[int]) -> None:
        super().__init__()
        self.layers = layers
        self.input_shape: Shape = tuple(input_shape)
        self.output_shape: Shape = tuple(output_shape)
        #: Compute the layers in bfloat16, from and to the type of x; see `in_bfloat16`.
        self.in_bfloat16 = False

    def forward(self, x: Tensor) -> Tensor:
        """The features of x."""
        axes = x.ndim - len(self.input_shape)
        if axes < 0 or x.shape[axes:] != Size(self.input_shape):
            raise InputError(
                f"the network expects inputs of shape {self.input_shape}, got a tensor of shape "
                f"{tuple(x.shape)}: build the network for the shape of the data"
            )
        leading = x.shape[:axes]
        inputs = x.reshape(math.prod(leading), *self.input_shape)
        if self.in_bfloat16:
            with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
                outputs = self.layers(inputs).to(x.dtype)
        else:
            outputs = self.layers(inputs)
        return cast(Tensor, outputs).reshape(*leading, *self.output_shape)


@contextmanager
def in_bfloat16(module: nn.Module, enabled: bool = True) -> Iterator[None]:
    """With every `Network` in `module` computed in bfloat16; densities and sums keep their type.

    Matrix products and convolutions then have 8 significant bits, and cost about half as much where the
    hardware has them. Meant for training: log p(x) moves by up to 0.01 nats per datum on the digits
    (`experiments/benchmarks/bfloat16.py`).

    Args:
        module: A VAE, or any part of one.
        enabled: False for no change.

    >>> import torch
    >>> network = Network(nn.Linear(64, 32), (64,), (32,))
    >>> with in_bfloat16(network):
    ...     network(torch.zeros(5, 64)).dtype
    torch.float32
    """
    networks = [each for each in module.modules() if isinstance(each, Network)] if enabled else []
    before = [network.in_bfloat16 for network in networks]
    for network in networks:
        network.in_bfloat16 = True
    try:
        yield
    finally:
        for network, value in zip(networks, before, strict=True):
            network.in_bfloat16 = value


class Architecture(ABC):
    """A kind of network: makes an encoder and a decoder that fit each other.

    Contract for the next one: the constructor takes choices only, every one with a default; the sizes
    come with the calls. Both calls return a `Network` that ends in features, not in parameters.
    """

    @abstractmethod
    def encoder(self, data_shape: Iterable[int]) -> Network:
        """A network from data of shape `data_shape` to features."""

    @abstractmethod
    def decoder(self, latent_dim: int, data_shape: Iterable[int]) -> Network:
        """A network from a latent vector to features for data of shape `data_shape`."""


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


class Convolutional(Architecture):
    """3×3 convolutions of stride 2 and a dense layer; transposed convolutions on the way back.

    Works for any C×H×W: a side s becomes ceil(s/2) in each layer, and the decoder returns through the
    very same sizes. The decoder ends in a map of `channels[0]` channels at full size, to which the
    likelihood adds a 3×3 convolution.

    Args:
        channels: Channels after each convolution of the encoder.
        hidden_dim: Width of the encoder's last, dense layer.
        activation: Nonlinearity after each layer.

    >>> Convolutional().encoder((3, 9, 5)).output_shape
    (256,)
    >>> Convolutional().decoder(2, (3, 9, 5)).output_shape
    (32, 9, 5)
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64),
        hidden_dim: int = 256,
        activation: Callable[[], nn.Module] = nn.ReLU,
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
        """Latent vector to a map of `channels[0]` channels of the picture's size."""
        data_shape = picture(data_shape)
        sizes = self._sizes(data_shape)[::-1]
        small = (self.channels[-1], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(latent_dim, math.prod(small)), self.activation()]
        layers.append(nn.Unflatten(1, small))
        channels = (self.channels[-1], *reversed(self.channels))
        for (channels_in, channels_out), (_, size) in zip(pairwise(channels), pairwise(sizes), strict=True):
            # from ceil(s/2) back to s: an even side needs one more row than an odd one
            even = (1 - size[0] % 2, 1 - size[1] % 2)
            layers.append(
                nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=even)
            )
            layers += self._after(channels_out)
        return Network(nn.Sequential(*layers), (latent_dim,), (self.channels[0], *data_shape[1:]))

    def _after(self, channels: int) -> list[nn.Module]:
        """What follows a (transposed) convolution that ends in so many channels."""
        return [self.activation()]

    def _sizes(self, data_shape: Shape) -> list[Shape]:
        """Height and width before the first convolution and after each."""
        sizes = [data_shape[1:]]
        for _ in self.channels:
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        return sizes


class ResidualConvolutional(Convolutional):
    """`Convolutional` with residual blocks of group-normalised 3×3 convolutions at every size.

    After each (transposed) convolution of stride 2 come `blocks` blocks h + f(h), f being twice group
    normalisation, nonlinearity and convolution, as He et al., "Identity Mappings in Deep Residual
    Networks" (2016), with the normalisation of Wu & He, "Group Normalization" (2018), which, unlike that
    of a batch, treats each datum on its own, so that p(x|z) and q(z|x) stay densities of one datum.

    Args:
        channels: Channels after each convolution of stride 2 of the encoder.
        hidden_dim: Width of the encoder's last, dense layer.
        blocks: Residual blocks at every size.
        groups: Groups of channels normalised together; where it does not divide the channels, their
            greatest common divisor.
        activation: Nonlinearity.

    >>> ResidualConvolutional().decoder(2, (3, 9, 5)).output_shape
    (32, 9, 5)
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


def head(network: nn.Module, output_shape: Iterable[int]) -> Network:
    """The linear layer from a network's features to `output_shape`.

    A 3×3 convolution where the features are a map of the output's height and width, a dense layer
    otherwise.

    Raises:
        InputError: where `network` does not say its `output_shape`, or a size is not positive.
    """
    features = declared_shape(network, "output_shape")
    output_shape = counts("data_shape", output_shape)  # latent_dim has been checked
    if len(features) == len(output_shape) == 3 and features[1:] == output_shape[1:]:
        return Network(nn.Conv2d(features[0], output_shape[0], 3, padding=1), features, output_shape)
    dense = nn.Linear(math.prod(features), math.prod(output_shape))
    return Network(nn.Sequential(nn.Flatten(), dense), features, output_shape)


def declared_shape(network: nn.Module, which: str) -> Shape:
    """The `input_shape` or `output_shape` that a network declares."""
    shape = getattr(network, which, None)
    if shape is None:
        raise InputError(
            f"expected a network that declares its {which}, got {type(network).__name__}: "
            "wrap it as pyro_vae.Network(module, input_shape, output_shape)"
        )
    return tuple(shape)


def bounded(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Middle + half · tanh((values − middle) / half): strictly inside `bounds`, slope 1 in the middle.

    Applied to log-scales, it keeps a density from collapsing or exploding into NaN while the gradient
    stays alive.

    >>> import torch
    >>> bounded(torch.tensor([-100.0, 0.0, 100.0]), (-6, 6))
    tensor([-6.,  0.,  6.])
    """
    low, high = bounds
    middle, half = (low + high) / 2, (high - low) / 2
    return middle + half * ((values - middle) / half).tanh()


def check_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """The bounds of a log-scale, refused where they are not two increasing finite numbers."""
    low, high = bounds
    if not -math.inf < low < high < math.inf:
        raise InputError(f"log_scale_bounds expects two finite increasing numbers, got {tuple(bounds)}")
    return low, high


def picture(data_shape: Iterable[int]) -> Shape:
    """A data shape, refused where it is not (C, H, W)."""
    data_shape = tuple(data_shape)
    if len(data_shape) != 3:
        raise InputError(
            f"a convolutional network expects pictures of shape (C, H, W), got data of shape {data_shape}: "
            "reshape the data, or use the network MLP"
        )
    return data_shape
