"""A computation on a GPU as one CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch.optim import SGD, Optimizer


def capture(
    step: Callable[[], None], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> Callable[[], None]:
    """`step` as one CUDA graph: a call launches all of its kernels at once, without Python between them.

    The step must have run a few times, read no number from the GPU, and take its inputs from tensors that
    stay in place. Random numbers are drawn anew at each call, as by the step itself.

    Args:
        step: Works on tensors of one GPU only. It is not run here, only its kernels noted.
        device: That GPU.
        generators: Those that it draws from, besides the default one.

    Raises:
        RuntimeError: where the step cannot be captured, as where it waits for the GPU.
    """
    with torch.cuda.device(device):
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            step()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay


def make_capturable(optimiser: Optimizer) -> bool:
    """Let an optimiser keep its step count on the GPU; returns whether its step can be captured."""
    for group in optimiser.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    return type(optimiser) is SGD or all("capturable" in group for group in optimiser.param_groups)
