"""Log p(x) by importance sampling in NumPyro: particles by `vmap`, chunks and data by `lax.scan`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import replay, seed
from numpyro.infer.util import log_density

from experiments.benchmarks import cases
from experiments.benchmarks.contender import Contender, Task, mean
from experiments.benchmarks.variants.jax_networks import apply, check_device, device_arrays, peak_memory

#: Draws of one `vmap`.
ROWS = 5000


def vmapped(task: Task) -> Contender:
    """A running logsumexp over chunks of at most 5000 draws."""
    check_device(task)
    network, particles = task.case.network, task.case.particles
    encoder, decoder = cases.encoder(network), cases.decoder(network)
    weights = device_arrays(encoder, 0), device_arrays(decoder, 1)
    rows = min(ROWS, particles)

    def guide(weights: Any, x: Any) -> None:
        loc, log_scale = jnp.split(apply(encoder, weights[0], x[None])[0], 2)
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    def model(weights: Any, x: Any) -> None:
        z = numpyro.sample("z", dist.Normal(0, 1).expand([network.latent_dim]).to_event(1))
        logits = apply(decoder, weights[1], z[None])[0]
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(len(network.data_shape)), obs=x)

    def log_weight(key: Any, weights: Any, x: Any) -> Any:
        log_q, trace = log_density(seed(guide, key), (weights, x), {}, {})
        return log_density(replay(model, trace), (weights, x), {}, {})[0] - log_q

    @jax.jit
    def estimate(weights: Any, x: Any, key: Any) -> Any:
        def datum(_: Any, pair: Any) -> Any:
            each, key = pair

            def chunk(total: Any, key: Any) -> Any:
                log_w = jax.vmap(log_weight, (0, None, None))(jax.random.split(key, rows), weights, each)
                return jnp.logaddexp(total, jax.nn.logsumexp(log_w)), None

            return None, jax.lax.scan(chunk, -jnp.inf, jax.random.split(key, particles // rows))[0]

        totals = jax.lax.scan(datum, None, (x, jax.random.split(key, len(x))))[1]
        return totals.mean() - math.log(particles)

    x = jnp.asarray(task.data[: task.case.batch])
    keys, found = iter(range(2**31)), list[float]()

    def run(number: int) -> None:
        for _ in range(number):
            found.append(float(estimate(weights, x, jax.random.PRNGKey(next(keys)))))

    return Contender(run, lambda: mean(found), device_memory=peak_memory if task.device == "cuda" else None)
