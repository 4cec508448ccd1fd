"""Log p(x) by this library, and by Pyro's RenyiELBO on the same programs."""

import pyro
import torch
from pyro.infer import RenyiELBO
from torch import Tensor

import pyro_vae as pv
from experiments.benchmarks.contender import Contender, Task
from experiments.benchmarks.variants.own import build
from experiments.benchmarks.variants.plain_evidence import contender, linear_layers, load, shared_weights
from pyro_vae.networks import in_bfloat16


def _program(task: Task) -> pv.VAE:
    """The VAE with the shared weights; its two heads are the halves of the shared one."""
    vae = build(task.case.network)
    (*hidden, (weight, bias)), decoder = shared_weights(task)
    half = task.case.network.latent_dim
    load(linear_layers(vae.posterior.encoder), hidden)
    load(linear_layers(vae.posterior.loc), [(weight[:half], bias[:half])])
    load(linear_layers(vae.posterior.log_scale), [(weight[half:], bias[half:])])
    load(linear_layers(vae.likelihood), decoder)
    return vae.to(task.device)


def own(task: Task) -> Contender:
    """`pyro_vae.log_evidence`."""
    vae, particles = _program(task), task.case.particles

    def estimate(x: Tensor) -> float:
        return pv.log_evidence(vae.model, vae.guide, x, num_particles=particles).mean

    return contender(task, estimate)


def bfloat16(task: Task) -> Contender:
    """`pyro_vae.log_evidence` with the networks in bfloat16."""
    vae, particles = _program(task), task.case.particles

    def estimate(x: Tensor) -> float:
        with in_bfloat16(vae):
            return pv.log_evidence(vae.model, vae.guide, x, num_particles=particles).mean

    return contender(task, estimate)


def renyi(task: Task) -> Contender:
    """RenyiELBO at α = 0, which is minus log p̂(x), datum by datum; particles vectorised, validation off."""
    pyro.enable_validation(False)
    vae, particles = _program(task), task.case.particles
    loss = RenyiELBO(alpha=0, num_particles=particles, max_plate_nesting=1, vectorize_particles=True)

    @torch.no_grad()
    def estimate(x: Tensor) -> float:
        return -sum(loss.loss(vae.model, vae.guide, datum) for datum in x.split(1)) / len(x)

    return contender(task, estimate)
