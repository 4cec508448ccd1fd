"""What is measured: networks, sizes, and the matrix products that the work cannot do without.

Imports neither torch nor JAX, so that each worker imports only what it measures.
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["steps", "evidence", "particles"]
Product = tuple[int, int, int]
Weights = list[tuple[np.ndarray, np.ndarray]]


class Network(NamedTuple):
    """A VAE's encoder and its mirror image, of pictures with `side` × `side` pixels.

    With `channels`, 3×3 convolutions of stride 2 come before the one dense layer `hidden_dims`.
    """

    side: int
    hidden_dims: tuple[int, ...]
    latent_dim: int
    channels: tuple[int, ...] = ()

    @property
    def data_dim(self) -> int:
        """Pixels of a picture."""
        return self.side**2

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Of one datum, as the networks take it."""
        return (1, self.side, self.side) if self.channels else (self.data_dim,)

    def __str__(self) -> str:
        if self.channels:
            return f"conv {'-'.join(map(str, self.channels))}, {self.hidden_dims[0]}-{self.latent_dim}"
        return "-".join(map(str, (self.data_dim, *self.hidden_dims, self.latent_dim)))


class Layer(NamedTuple):
    """A layer with weights, `side` being that of the map that comes in (1 for a dense layer)."""

    kind: Literal["dense", "convolution", "transposed"]
    inputs: int
    outputs: int
    side: int = 1
    stride: int = 1

    def product(self, batch: int) -> Product:
        """(m, k, n): the layer is the product of an (m, k) and a (k, n) matrix; convolutions by im2col."""
        if self.kind == "convolution":
            return batch * (self.side // self.stride) ** 2, 9 * self.inputs, self.outputs
        if self.kind == "transposed":
            return batch * self.side**2, self.inputs, 9 * self.outputs
        return batch, self.inputs, self.outputs

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As torch has it."""
        if self.kind == "dense":
            return self.outputs, self.inputs
        first, second = (
            (self.inputs, self.outputs) if self.kind == "transposed" else (self.outputs, self.inputs)
        )
        return first, second, 3, 3


class Case(NamedTuple):
    """One table.

    `batch` is the number of data per training step ("steps"), or the data whose log p(x) is estimated by
    `particles` draws each ("evidence"), or by numbers of draws that are the variants ("particles").
    """

    kind: Kind
    network: Network
    batch: int
    particles: int = 0

    @property
    def title(self) -> str:
        """What is measured, in words."""
        if self.kind == "steps":
            return f"{self.network}, batch {self.batch}"
        if self.kind == "evidence":
            return f"{self.network}, {self.particles} draws for each of {self.batch} data"
        return f"{self.network}, {self.batch} datum, by number of draws"


MLP = Network(28, (400,), 20)
SMALL = Network(8, (8,), 2)

CASES = {
    "mlp-20": Case("steps", MLP, 20),
    "mlp-128": Case("steps", MLP, 128),
    "mlp-1000": Case("steps", MLP, 1000),
    "burda-100": Case("steps", Network(28, (200, 200), 50), 100),
    "tiny-20": Case("steps", Network(28, (4,), 20), 20),
    "conv-128": Case("steps", Network(28, (256,), 20, (32, 64)), 128),
    "evidence": Case("evidence", MLP, 400, 5000),
    "particles": Case("particles", MLP, 1),
}

#: For tests: the same code in seconds.
SMOKE = {
    "smoke-steps": Case("steps", SMALL, 4),
    "smoke-conv": Case("steps", Network(8, (8,), 2, (2, 3)), 4),
    "smoke-evidence": Case("evidence", SMALL, 2, 10),
}


def encoder(network: Network) -> list[Layer]:
    """The layers from x to mean and log scale, each but the last followed by a softplus."""
    maps, width, side = [], network.data_dim, network.side
    for before, after in pairwise((1, *network.channels) if network.channels else ()):
        maps.append(Layer("convolution", before, after, side, 2))
        side //= 2
        width = after * side**2
    widths = (width, *network.hidden_dims, 2 * network.latent_dim)
    return [*maps, *(Layer("dense", *pair) for pair in pairwise(widths))]


def decoder(network: Network) -> list[Layer]:
    """The layers from z to logits, each but the last followed by a softplus."""
    channels = network.channels
    if not channels:
        widths = (network.latent_dim, *reversed(network.hidden_dims), network.data_dim)
        return [Layer("dense", *pair) for pair in pairwise(widths)]
    side = network.side // 2 ** len(channels)
    layers = [Layer("dense", network.latent_dim, channels[-1] * side**2)]
    for before, after in pairwise((channels[-1], *reversed(channels))):
        layers.append(Layer("transposed", before, after, side, 2))
        side *= 2
    return [*layers, Layer("convolution", channels[0], 1, side)]


def step_products(network: Network, batch: int) -> list[Product]:
    """The products of a training step: forward, weight gradients, and input gradients but that of x."""
    products = []
    for number, layer in enumerate([*encoder(network), *decoder(network)]):
        m, k, n = layer.product(batch)
        products += [(m, k, n), (k, m, n)]
        if number:
            products.append((m, n, k))
    return products


def evidence_products(network: Network, rows: int) -> list[Product]:
    """The products of `rows` importance weights: the decoder's, next to which the encoder's are nothing."""
    return [layer.product(rows) for layer in decoder(network)]


def flops(products: list[Product]) -> int:
    """Multiplications and additions.

    >>> flops([(2, 3, 4)])
    48
    """
    return sum(2 * m * k * n for m, k, n in products)


def case_flops(case: Case) -> int:
    """FLOPs of the matrix products of one training step, or of one estimate of all data."""
    if case.kind == "steps":
        return flops(step_products(case.network, case.batch))
    return flops(evidence_products(case.network, case.batch * case.particles))


def weights(layers: list[Layer], seed: int) -> Weights:
    """Weight and bias of each layer, uniform within 1/√(fan-in), as torch draws them."""
    random, drawn = np.random.RandomState(seed), []
    for layer in layers:
        shape = layer.weight_shape
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        size = layer.outputs
        pair = (random.uniform(-bound, bound, shape), random.uniform(-bound, bound, size))
        drawn.append((pair[0].astype(np.float32), pair[1].astype(np.float32)))
    return drawn


def synthetic(network: Network, num: int) -> np.ndarray:
    """(num, D) bits with something to learn: Bernoulli with logits linear in five normal factors."""
    random = np.random.RandomState(0)
    logits = random.normal(size=(num, 5)) @ random.normal(size=(5, network.data_dim)) - 1
    return (random.random_sample(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
