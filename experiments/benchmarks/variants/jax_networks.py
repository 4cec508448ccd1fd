"""The networks as functions of arrays, for NumPyro."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.benchmarks.cases import Layer, Weights, weights
from experiments.benchmarks.contender import LeftOut, Task

Arrays = list[tuple[Any, Any]]


def check_device(task: Task) -> None:
    """Leave out where JAX does not see the GPU that is asked for."""
    if task.device == "cuda" and jax.default_backend() != "gpu":
        raise LeftOut("JAX sees no GPU: install jax[cuda]")


def peak_memory() -> int:
    """JAX's peak on the GPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return int(statistics.get("peak_bytes_in_use", 0))


def device_arrays(layers: list[Layer], seed: int) -> Arrays:
    """Weights as `cases.weights` draws them."""
    drawn: Weights = weights(layers, seed)
    return [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in drawn]


def apply(layers: list[Layer], arrays: Arrays, x: Any) -> Any:
    """All layers, softplus between them: (B, ...) to (B, ...)."""
    x = _layer(layers[0], *arrays[0], x)
    for (before, layer), pair in zip(pairwise(layers), arrays[1:], strict=True):
        x = jax.nn.softplus(x)
        if layer.kind == "dense" and before.kind != "dense":
            x = x.reshape(len(x), -1)
        if layer.kind != "dense" and before.kind == "dense":
            x = x.reshape(len(x), layer.inputs, layer.side, layer.side)
        x = _layer(layer, *pair, x)
    return x


def _layer(layer: Layer, weight: Any, bias: Any, x: Any) -> Any:
    if layer.kind == "dense":
        return x @ weight.T + bias
    numbers = ("NCHW", "OIHW", "NCHW")
    if layer.kind == "convolution":
        padding, strides = ((1, 1), (1, 1)), (layer.stride, layer.stride)
        return lax.conv_general_dilated(x, weight, strides, padding, dimension_numbers=numbers) + _map(bias)
    # a transposed convolution is one of a map with zeros in between, its kernel turned around
    turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
    padding = ((1, 2), (1, 2))
    result = lax.conv_general_dilated(
        x, turned, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=numbers
    )
    return result + _map(bias)


def _map(bias: Any) -> Any:
    return bias[:, None, None]
