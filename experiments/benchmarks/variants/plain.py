"""Hand-written PyTorch: the networks, and training steps eager, compiled and as a CUDA graph."""

from collections.abc import Callable

import numpy as np
import torch
import torch._dynamo  # torch.optim imports it at its first step: start-up and memory are to be without
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Layer, Network
from experiments.benchmarks.contender import Contender, LeftOut, Task, loss_steps, mean

LEARNING_RATE = 1e-3


def module(layer: Layer) -> nn.Module:
    """The torch module of one layer."""
    if layer.kind == "dense":
        return nn.Linear(layer.inputs, layer.outputs)
    if layer.kind == "convolution":
        return nn.Conv2d(layer.inputs, layer.outputs, 3, stride=layer.stride, padding=1)
    return nn.ConvTranspose2d(layer.inputs, layer.outputs, 3, stride=2, padding=1, output_padding=1)


def chain(layers: list[Layer]) -> nn.Sequential:
    """All layers, softplus between them, maps and vectors brought into each other's shape."""
    modules: list[nn.Module] = []
    for number, layer in enumerate(layers):
        if number:
            modules.append(nn.Softplus())
            if layer.kind == "dense" and layers[number - 1].kind != "dense":
                modules.append(nn.Flatten())
            if layer.kind != "dense" and layers[number - 1].kind == "dense":
                modules.append(nn.Unflatten(1, (layer.inputs, layer.side, layer.side)))
        modules.append(module(layer))
    return nn.Sequential(*modules)


class PlainVAE(nn.Module):
    """As one writes it by hand: one head for mean and log scale, KL in closed form, BCE of logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.encoder = chain(cases.encoder(network))
        self.decoder = chain(cases.decoder(network))

    def forward(self, x: Tensor) -> Tensor:
        """Minus the ELBO, summed over the batch."""
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        kl = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return kl + F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")


def batches(task: Task) -> Callable[[], Tensor]:
    """A function that draws the next batch, by random index, from data in the device's memory."""
    data = torch.from_numpy(task.data).to(task.device)
    size = (task.case.batch,)

    def draw() -> Tensor:
        return data[torch.randint(len(data), size, device=data.device)]

    return draw


def trained(model: nn.Module, step: Callable[[], Tensor | float], task: Task) -> Contender:
    """A contender of single steps, each of which returns its loss summed over the batch."""

    def run(number: int) -> None:
        for _ in range(number):
            step()
        wait(task.device)

    def value() -> float:
        return mean(step() for _ in range(loss_steps(task.case.batch))) / task.case.batch

    return Contender(run, value, lambda: copies(model), device_memory(task.device))


def copies(model: nn.Module) -> list[np.ndarray]:
    """The parameters as they are now."""
    return [parameter.detach().cpu().numpy().copy() for parameter in model.parameters()]


def wait(device: str) -> None:
    """Until the GPU has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def device_memory(device: str) -> Callable[[], int] | None:
    """Torch's peak on the GPU."""
    return torch.cuda.max_memory_allocated if device == "cuda" else None


def eager(task: Task) -> Contender:
    """The reference of all others."""
    return _stepwise(task, lambda model: model)


def compiled(task: Task) -> Contender:
    """Forward and backward pass by torch.compile."""
    return _stepwise(task, _compile)


def graphed(task: Task) -> Contender:
    """The whole eager step as one CUDA graph."""
    return _graphed(task, lambda model: model)


def compiled_graphed(task: Task) -> Contender:
    """The whole compiled step as one CUDA graph."""
    return _graphed(task, _compile)


Loss = Callable[[Tensor], Tensor]


def _compile(model: nn.Module) -> Loss:
    compiled_model: Loss = torch.compile(model, dynamic=False)
    return compiled_model


def _stepwise(task: Task, wrap: Callable[[nn.Module], Loss]) -> Contender:
    model = PlainVAE(task.case.network).to(task.device)
    return trained(model, _step(model, wrap(model), task, capturable=False), task)


def _step(model: nn.Module, loss_of: Loss, task: Task, *, capturable: bool) -> Callable[[], Tensor]:
    draw = batches(task)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True, capturable=capturable)

    def step() -> Tensor:
        loss = loss_of(draw())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _graphed(task: Task, wrap: Callable[[nn.Module], Loss]) -> Contender:
    if not torch.cuda.is_available():
        raise LeftOut("a CUDA graph needs a GPU")
    model = PlainVAE(task.case.network).to(task.device)
    step = _step(model, wrap(model), task, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made at first use must be there before the capture
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss.clone()

    return trained(model, replay, task)
