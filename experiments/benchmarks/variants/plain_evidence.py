"""Log p(x) by importance sampling in hand-written PyTorch."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Weights
from experiments.benchmarks.contender import Contender, Task, mean
from experiments.benchmarks.variants.floor import ROWS
from experiments.benchmarks.variants.plain import PlainVAE, device_memory, wait

Chunk = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def shared_weights(task: Task) -> tuple[Weights, Weights]:
    """Those of encoder and decoder that all estimates of log p(x) use."""
    network = task.case.network
    return cases.weights(cases.encoder(network), 0), cases.weights(cases.decoder(network), 1)


@torch.no_grad()
def load(linear: list[nn.Linear], arrays: Weights) -> None:
    """Copy the arrays into the layers."""
    for layer, (weight, bias) in zip(linear, arrays, strict=True):
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def linear_layers(*modules: Any) -> list[nn.Linear]:
    """In the order of the computation."""
    return [each for module in modules for each in module.modules() if isinstance(each, nn.Linear)]


def eager(task: Task) -> Contender:
    """Chunks of 5000 draws, eager."""
    return _contender(task, lambda chunk: chunk)


def compiled(task: Task) -> Contender:
    """The same, each chunk by torch.compile."""
    return _contender(task, lambda chunk: torch.compile(chunk, dynamic=False))


def contender(task: Task, estimate: Callable[[Tensor], float]) -> Contender:
    """A contender whose unit of work is one estimate of the mean log p(x) of all data."""
    x = torch.from_numpy(task.data[: task.case.batch]).to(task.device)
    found: list[float] = []

    def run(number: int) -> None:
        found.extend(estimate(x) for _ in range(number))
        wait(task.device)

    return Contender(run, lambda: mean(found), device_memory=device_memory(task.device))


def _contender(task: Task, wrap: Callable[[Chunk], Chunk]) -> Contender:
    model = PlainVAE(task.case.network).to(task.device)
    for part, arrays in zip((model.encoder, model.decoder), shared_weights(task), strict=True):
        load(linear_layers(part), arrays)

    def chunk(x: Tensor, loc: Tensor, log_scale: Tensor, rows: int) -> Tensor:
        """Log Σ w over `rows` draws for one datum."""
        noise = torch.randn(rows, len(loc), device=x.device)
        z = loc + log_scale.exp() * noise
        logits = model.decoder(z)
        log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_ratio = (0.5 * (noise**2 - z**2) + log_scale).sum(-1)  # log p(z) − log q(z|x)
        return (log_px + log_ratio).logsumexp(0)

    run_chunk, particles = wrap(chunk), task.case.particles
    rows = min(ROWS, particles)

    @torch.no_grad()
    def estimate(x: Tensor) -> float:
        loc, log_scale = model.encoder(x).chunk(2, dim=-1)
        totals = []
        for datum in zip(x, loc, log_scale, strict=True):
            total = x.new_tensor(-math.inf)
            for _ in range(particles // rows):
                total = torch.logaddexp(total, run_chunk(*datum, rows))
            totals.append(total - math.log(particles))
        return float(torch.stack(totals).mean())

    return contender(task, estimate)
