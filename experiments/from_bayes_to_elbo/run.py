"""The derivation of the ELBO with numbers: log p(x) = ELBO + KL by integration, and two gradient estimators.

    python experiments/from_bayes_to_elbo/run.py

A finished measurement is kept at once in OUT/measurements.jsonl, a trained model in RUNS; a command that was
interrupted goes on. Tables and the picture of the variances are made from that file alone.
"""

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.from_bayes_to_elbo import figures, report
from experiments.from_bayes_to_elbo.measure import datum_gradients, encoder_gradients, identity, moves
from experiments.records import Records, config_hash, publish
from experiments.training import trained
from pyro_vae import plots
from pyro_vae.randomness import own_randomness

HERE = Path(__file__).parent


class Protocol(NamedTuple):
    """What is measured with how much work."""

    #: Latent dimensions for the encoder's gradient.
    latent_dims: tuple[int, ...] = (2, 8, 20)
    #: Test data: in two dimensions, in three, and for a batch's gradient.
    num_data: tuple[int, int, int] = (300, 50, 100)
    #: h in two dimensions and in three.
    step: tuple[float, float] = (0.05, 0.125)
    #: The same in deviations of q.
    q_step: tuple[float, float] = (0.25, 0.3)
    #: Importance samples per datum.
    draws: int = 1000
    #: Estimates of a datum's gradient, and of an encoder's.
    repeats: tuple[int, int] = (4000, 100)
    #: K.
    num_particles: tuple[int, ...] = (1, 10, 100)
    #: One model each.
    seeds: tuple[int, ...] = (0, 1, 2)


SMOKE = Protocol((2, 3), (4, 2, 5), (0.5, 0.7), (0.7, 1.2), 10, (5, 3), (1, 2), (0,))

Work = Callable[[], dict[str, Any]]


def works(runs: Path, protocol: Protocol, smoke: bool) -> dict[str, Work]:
    """What is to be measured, by name; in three dimensions for the first seed alone."""
    found: dict[str, Work] = {}
    for seed in protocol.seeds:
        load = cache(partial(model, runs, seed=seed, smoke=smoke))
        for which, latent_dim in enumerate((2, 3) if seed == protocol.seeds[0] else (2,)):
            found[f"identity {latent_dim} {seed}"] = partial(_identity, load, protocol, which, latent_dim)
        found[f"gradients {seed}"] = partial(_gradients, load, protocol)
        for latent_dim in protocol.latent_dims:
            found[f"encoder {latent_dim} {seed}"] = partial(_encoder, load, protocol, latent_dim)
        found[f"untrained 2 {seed}"] = partial(_encoder, load, protocol, 2, untrained=seed)
        found[f"moves {seed}"] = partial(_moves, load, protocol)
    return found


def model(runs: Path, latent_dim: int, *, seed: int, smoke: bool) -> tuple[pv.VAE, pv.Digits]:
    """A trained model in float64, and its data."""
    words = ["--config", str(HERE / "config.yaml"), "--latent_dim", str(latent_dim), "--seed", str(seed)]
    _, data, vae = trained(runs / f"L{latent_dim}-seed{seed}", *words, smoke=smoke)
    return cast(pv.VAE, vae.double()), cast(pv.Digits, data)


Load = Callable[[int], tuple[pv.VAE, pv.Digits]]


def _identity(load: Load, protocol: Protocol, which: int, latent_dim: int) -> dict[str, Any]:
    vae, data = load(latent_dim)
    x = vae.place(data.test.batch())[: protocol.num_data[which]]
    steps = {"step": protocol.step[which], "q_step": protocol.q_step[which]}
    return identity(vae, x, **steps, limit=(8.0, 7.0)[which], draws=protocol.draws)


def _gradients(load: Load, protocol: Protocol) -> dict[str, Any]:
    vae, data = load(2)
    x, step = vae.place(data.test.batch())[: protocol.num_data[0]], protocol.q_step[0]
    return datum_gradients(vae, x, step=step, repeats=protocol.repeats[0], draws=protocol.num_particles)


def _encoder(
    load: Load, protocol: Protocol, latent_dim: int, *, untrained: int | None = None
) -> dict[str, Any]:
    vae, data = load(latent_dim)
    if untrained is not None:
        torch.manual_seed(untrained)
        vae = pv.assemble(data, latent_dim=latent_dim, network=pv.MLP(hidden_dims=(100, 100))).double()
    x = vae.place(data.test.batch())[: protocol.num_data[2]]
    draws = protocol.num_particles[:2] if latent_dim == 2 else (1,)
    step = protocol.q_step[0] if latent_dim == 2 else None
    return encoder_gradients(vae, x, repeats=protocol.repeats[1], draws=draws, step=step)


def _moves(load: Load, protocol: Protocol) -> dict[str, Any]:
    vae, data = load(2)
    x = vae.place(data.test.batch())[: protocol.num_data[0]]
    return moves(vae, data, x, step=4 * protocol.step[0], distance=0.1)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    protocol = SMOKE if options.smoke else Protocol()
    about: dict[str, Any] = {
        key: list(each) if isinstance(each, tuple) else each for key, each in protocol._asdict().items()
    }
    records = Records(
        options.out / "measurements.jsonl", {**about, "config": config_hash(HERE / "config.yaml")}
    )
    for name, work in works(options.runs, protocol, options.smoke).items():
        if name not in records.found:
            print(name, flush=True)
            with own_randomness(int(name.split()[-1]), torch.device("cpu")):
                records.add(name, work())
    vae, data = model(options.runs, 2, seed=0, smoke=options.smoke)
    with own_randomness(0, torch.device("cpu")):
        for name, figure in figures.pictures(vae, data, coarse=options.smoke).items():
            plots.save(figure, options.out / f"{name}.png")
    plots.save(figures.variances(records.found), options.out / "gradients.png")
    found = records.found
    publish(options.out, report.sections(found), report.summary(found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
