"""The steps of `pyro_vae.fit`, without what it does between epochs."""

from collections.abc import Callable, Iterator
from itertools import count

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

import pyro_vae as pv
from pyro_vae.compiled import Compile, make_capturable
from pyro_vae.data import shuffle
from pyro_vae.training.joint import TrainedModule
from pyro_vae.training.optimising import Optimising
from pyro_vae.training.options import Precision
from pyro_vae.training.steps import Steps
from pyro_vae.training.ways import EAGER_STEPS, way_of


def fit_steps(
    vae: pv.JointProgram,
    data: pv.Dataset,
    batch_size: int,
    learning_rate: float,
    compile: Compile,
    precision: Precision,
) -> Callable[[int], None]:
    """A function that takes so many further steps as `fit` does: batch, loss, check, optimiser.

    With `auto`, the steps are those after the first 500, which are Pyro's own.

    Args:
        vae: Already on its device.
        data: 0/1, binarised before.
        batch_size: Data per step.
        learning_rate: Of Adam.
        compile: As `fit` takes it.
        precision: Likewise.
    """
    vae.train()
    programs = TrainedModule(vae)
    optimising = Optimising(
        programs, lambda params: torch.optim.Adam(params, lr=learning_rate, fused=True), None
    )
    optimising.begin(list(vae.parameters()))
    way = way_of(compile, vae.device)
    if way.captured:
        make_capturable(optimising.optimiser)
    split = data.train.to(vae.device)
    objective = Trace_ELBO(max_plate_nesting=1)
    steps = Steps(
        programs, objective, None, optimising, split, batch_size, way, precision, None, pv.NonFiniteLossError
    )

    def batches() -> Iterator[Tensor]:
        for epoch in count(1):
            order = shuffle(split, steps.generator, seed=0, epoch=epoch)
            with steps.epoch():
                yield from order[: len(order) // batch_size * batch_size].split(batch_size)

    indices, numbers = batches(), count(EAGER_STEPS + 1)

    def run(number: int) -> None:
        for _ in range(number):
            steps.take(next(indices), next(numbers))

    return run
