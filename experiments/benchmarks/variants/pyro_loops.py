"""SVI as Pyro's own examples train a VAE, and JitTrace_ELBO."""

import warnings
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Network
from experiments.benchmarks.contender import Contender, Task
from experiments.benchmarks.variants.plain import LEARNING_RATE, batches, chain, trained


class PyroVAE(nn.Module):
    """A VAE as one writes it in Pyro, with p(x|z) by probabilities or by logits."""

    def __init__(self, network: Network, *, by_probabilities: bool) -> None:
        super().__init__()
        self.network, self.by_probabilities = network, by_probabilities
        self.encoder = chain(cases.encoder(network))
        self.decoder = chain(cases.decoder(network))

    def model(self, x: Tensor) -> None:
        """p(x, z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            zero = x.new_zeros(len(x), self.network.latent_dim)
            z = pyro.sample("z", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
            logits = self.decoder(z)
            px = dist.Bernoulli(logits.sigmoid()) if self.by_probabilities else dist.Bernoulli(logits=logits)
            pyro.sample("x", px.to_event(len(self.network.data_shape)), obs=x)

    def guide(self, x: Tensor) -> None:
        """q(z|x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def example(task: Task) -> Contender:
    """One Adam per tensor, validation on, batches by a DataLoader, p(x|z) by probabilities."""
    pyro.enable_validation(True)
    vae = PyroVAE(task.case.network, by_probabilities=True).to(task.device)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), Trace_ELBO())
    data = TensorDataset(torch.from_numpy(task.data))
    stream = _endless(DataLoader(data, batch_size=task.case.batch, shuffle=True, drop_last=True))

    def step() -> float:
        loss: float = svi.step(next(stream).to(task.device))
        return loss

    return trained(vae, step, task)


def _endless(loader: "DataLoader[tuple[Tensor, ...]]") -> Iterator[Tensor]:
    while True:
        for (x,) in loader:
            yield x


def jit(task: Task) -> Contender:
    """JitTrace_ELBO, which traces by torch.jit; validation off, batches by index."""
    pyro.enable_validation(False)
    warnings.filterwarnings("ignore")  # torch.jit.trace is deprecated, and warns of each constant
    vae = PyroVAE(task.case.network, by_probabilities=False).to(task.device)
    loss = JitTrace_ELBO(max_plate_nesting=1, ignore_jit_warnings=True)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss)
    draw = batches(task)
    return trained(vae, lambda: svi.step(draw()), task)
