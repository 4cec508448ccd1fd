"""NumPyro's SVI: one compiled step at a time, and many steps in one `lax.scan`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Layer, Network
from experiments.benchmarks.contender import Contender, Task, loss_steps, mean
from experiments.benchmarks.variants.jax_networks import (
    Arrays,
    apply,
    check_device,
    device_arrays,
    peak_memory,
)

LEARNING_RATE = 1e-3


def jit(task: Task) -> Contender:
    """`jit` of one `svi.update`, called from Python; batches by index."""
    svi, state, data = _prepare(task)
    random = np.random.RandomState(0)

    @jax.jit
    def update(state: Any, data: Any, index: Any) -> Any:
        return svi.update(state, data[index])

    def run(state: Any, number: int) -> Any:
        losses = []
        for _ in range(number):
            state, loss = update(state, data, random.randint(len(data), size=task.case.batch))
            losses.append(loss)
        return state, losses

    return _contender(task, svi, state, run)


def scan(task: Task) -> Contender:
    """All steps of a turn in one `lax.scan`, the batches drawn inside."""
    svi, state, data = _prepare(task)
    shape = (task.case.batch,)

    @partial(jax.jit, static_argnums=3)
    def steps(state: Any, key: Any, data: Any, number: int) -> Any:
        def body(state: Any, key: Any) -> Any:
            return svi.update(state, data[jax.random.randint(key, shape, 0, len(data))])

        return jax.lax.scan(body, state, jax.random.split(key, number))

    keys = iter(range(1, 2**31))

    def run(state: Any, number: int) -> Any:
        return steps(state, jax.random.PRNGKey(next(keys)), data, number)

    return _contender(task, svi, state, run)


def _prepare(task: Task) -> tuple[Any, Any, Any]:
    """SVI, its first state, and the data on the device."""
    check_device(task)
    svi = SVI(*_programs(task.case.network), numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    data = jnp.asarray(task.data)
    return svi, svi.init(jax.random.PRNGKey(0), data[: task.case.batch]), data


def _programs(network: Network) -> tuple[Callable[[Any], None], Callable[[Any], None]]:
    encoder, decoder = cases.encoder(network), cases.decoder(network)

    def model(x: Any) -> None:
        arrays = _parameters("decoder", decoder, seed=1)
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([network.latent_dim]).to_event(1))
            px = dist.Bernoulli(logits=apply(decoder, arrays, z))
            numpyro.sample("x", px.to_event(len(network.data_shape)), obs=x)

    def guide(x: Any) -> None:
        arrays = _parameters("encoder", encoder, seed=0)
        loc, log_scale = jnp.split(apply(encoder, arrays, x), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


def _parameters(name: str, layers: list[Layer], seed: int) -> Arrays:
    return [
        (numpyro.param(f"{name}.{number}.weight", weight), numpyro.param(f"{name}.{number}.bias", bias))
        for number, (weight, bias) in enumerate(device_arrays(layers, seed))
    ]


def _contender(task: Task, svi: Any, state: Any, steps: Callable[[Any, int], Any]) -> Contender:
    """A contender of `steps`, from a state and a number to the new state and the losses."""

    def take(number: int) -> Any:
        nonlocal state
        state, losses = steps(state, number)
        jax.block_until_ready(state)
        return losses

    def run(number: int) -> None:
        take(number)

    def value() -> float:
        return mean(take(loss_steps(task.case.batch))) / task.case.batch

    def parameters() -> list[np.ndarray]:
        return [np.array(each) for each in svi.get_params(state).values()]

    return Contender(run, value, parameters, peak_memory if task.device == "cuda" else None)
