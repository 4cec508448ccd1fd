"""The library's training steps: SVI with its optimiser and its ELBO, and the loop of `fit`."""

import numpy as np
import pyro
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from torch import nn

import pyro_vae as pv
from experiments.benchmarks.cases import Network
from experiments.benchmarks.contender import Contender, Task
from experiments.benchmarks.fit_adapter import fit_steps
from experiments.benchmarks.variants.plain import LEARNING_RATE, batches, copies, device_memory, trained, wait
from experiments.keras_conv.network import KerasConvolutional
from pyro_vae.compiled import Backend, Compile
from pyro_vae.training.options import Precision


def build(network: Network) -> pv.VAE:
    """The VAE of this network by the library's components."""
    architecture: pv.Architecture
    if network.channels:
        architecture = KerasConvolutional(network.channels, network.hidden_dims[0], nn.Softplus)
    else:
        architecture = pv.MLP(network.hidden_dims, nn.Softplus)
    shape, latent_dim = network.data_shape, network.latent_dim
    return pv.VAE(
        pv.StandardNormalPrior(latent_dim),
        pv.BernoulliLikelihood(architecture.decoder(latent_dim, shape), shape),
        pv.DiagonalNormalPosterior(architecture.encoder(shape), latent_dim),
    )


def off(task: Task) -> Contender:
    """Trace_ELBO as Pyro runs it, with one fused optimiser."""
    return _svi(task, Trace_ELBO(max_plate_nesting=1))


def flat(task: Task) -> Contender:
    """The ELBO traced once into a flat graph."""
    return _svi(task, _compiled("flat"))


def fast(task: Task) -> Contender:
    """The flat graph with its matrix products by oneDNN."""
    return _svi(task, _compiled("flat", fast=True))


def inductor(task: Task) -> Contender:
    """The flat graph compiled by inductor."""
    return _svi(task, _compiled("inductor"))


def fit_auto(task: Task) -> Contender:
    """The loop of `fit`, with what it chooses itself."""
    return _fit(task, "auto")


def fit_inductor(task: Task) -> Contender:
    """The loop of `fit`, compiled by inductor."""
    return _fit(task, "inductor")


def fit_bfloat16(task: Task) -> Contender:
    """The loop of `fit`, compiled by inductor, with the networks in bfloat16."""
    return _fit(task, "inductor", "bfloat16")


def _compiled(backend: Backend, fast: bool | None = None) -> ELBO:
    return pv.CompiledELBO(Trace_ELBO(max_plate_nesting=1), backend, fast=fast)


def _svi(task: Task, loss: ELBO) -> Contender:
    pyro.enable_validation(False)
    vae = build(task.case.network).to(task.device)
    svi = SVI(vae.model, vae.guide, pv.FusedAdam({"lr": LEARNING_RATE}), loss)
    draw = batches(task)
    return trained(vae, lambda: svi.step(draw()), task)


def _fit(task: Task, compile: Compile, precision: Precision = "full") -> Contender:
    vae = build(task.case.network).to(task.device)
    data = pv.Dataset(task.data.astype(np.uint8), form=pv.Levels())
    steps = fit_steps(vae, data, task.case.batch, LEARNING_RATE, compile, precision)

    def run(number: int) -> None:
        steps(number)
        wait(task.device)

    def value() -> float:
        some = torch.from_numpy(task.data[:5000]).to(task.device)
        return -float(pv.elbo(vae.model, vae.guide, some).elbo.mean())

    return Contender(run, value, lambda: copies(vae), device_memory(task.device))
