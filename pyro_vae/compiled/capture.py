"""A computation on a GPU as one CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch.optim import Optimizer


def capture(step: Callable[[], None], generators: Sequence[torch.Generator] = ()) -> Callable[[], None]:
    """`step` as one CUDA graph: a call launches all of its kernels at once, without Python between them.

    The step must have run a few times, read no number from the GPU, and take its inputs from tensors that
    stay in place. Random numbers are drawn anew at each call, as by the step itself.

    Args:
        step: Works on tensors of the current GPU only. It is not run here, only its kernels noted.
        generators: Those that it draws from, besides the default one.

    Raises:
        RuntimeError: where the step cannot be captured, as where it waits for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def make_capturable(optimiser: Optimizer) -> bool:
    """Let an optimiser keep its step count and learning rate on the GPU; returns whether it can."""
    able = "capturable" in optimiser.defaults
    for group in optimiser.param_groups if able else ():
        group["capturable"] = True
        group["lr"] = torch.as_tensor(group["lr"], device=group["params"][0].device)
    return able
