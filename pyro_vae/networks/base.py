"""What a network is, and what is added to it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Size, Tensor, nn

from pyro_vae.errors import InputError, counts

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

    >>> import torch
    >>> class Linear(Architecture):
    ...     def encoder(self, data_shape):
    ...         return Network(nn.Flatten(), data_shape, (math.prod(data_shape),))
    ...     def decoder(self, latent_dim, data_shape):
    ...         return Network(nn.Identity(), (latent_dim,), (latent_dim,))
    >>> Linear().encoder((1, 8, 8))(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 64])
    >>> from pyro_vae import Digits, assemble
    >>> assemble(Digits(), latent_dim=3, network=Linear()).sample(5).shape
    torch.Size([5, 1, 8, 8])
    """

    @abstractmethod
    def encoder(self, data_shape: Iterable[int]) -> Network:
        """A network from data of shape `data_shape` to features."""

    @abstractmethod
    def decoder(self, latent_dim: int, data_shape: Iterable[int]) -> Network:
        """A network from a latent vector to features for data of shape `data_shape`."""


def head(network: nn.Module, output_shape: Iterable[int]) -> Network:
    """The linear layer from a network's features to `output_shape`.

    A 3×3 convolution where the features are a map of the output's height and width, or of half of them,
    rounded up: then it gives four numbers for each of the output, as pixels of a square, a sub-pixel
    convolution (Shi et al., "Real-Time Single Image and Video Super-Resolution", 2016). A dense layer
    otherwise.

    Args:
        network: A `Network`, or another module that says its `output_shape`.
        output_shape: Shape of what the head gives.

    Raises:
        InputError: where `network` does not say its `output_shape`, or a size is not positive.

    >>> import torch
    >>> features = Network(nn.Sequential(nn.Linear(64, 32), nn.Tanh()), (64,), (32,))
    >>> loc = head(features, (1, 8, 8))
    >>> loc(features(torch.zeros(5, 64))).shape
    torch.Size([5, 1, 8, 8])
    """
    features = declared_shape(network, "output_shape")
    output_shape = counts("data_shape", output_shape)  # latent_dim has been checked
    if len(features) == len(output_shape) == 3:
        channels, size = output_shape[0], output_shape[1:]
        if features[1:] == size:
            return Network(nn.Conv2d(features[0], channels, 3, padding=1), features, output_shape)
        if features[1:] == halved(size):
            four = nn.Conv2d(features[0], 4 * channels, 3, padding=1)
            return Network(nn.Sequential(four, _Pixels(size)), features, output_shape)
    dense = nn.Linear(math.prod(features), math.prod(output_shape))
    return Network(nn.Sequential(nn.Flatten(), dense), features, output_shape)


class _Pixels(nn.PixelShuffle):
    """(…, 4C, ⌈H/2⌉, ⌈W/2⌉) to (…, C, H, W)."""

    def __init__(self, size: Shape) -> None:
        super().__init__(2)
        self.size = size

    def forward(self, input: Tensor) -> Tensor:
        """Squares of four pixels, without the row and the column too many of an odd size."""
        return super().forward(input)[..., : self.size[0], : self.size[1]]


def halved(size: Shape) -> Shape:
    """Height and width after a convolution of stride 2.

    >>> halved((9, 4))
    (5, 2)
    """
    return tuple((side + 1) // 2 for side in size)


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
