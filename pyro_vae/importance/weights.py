"""How log weights of a chunk of draws are computed."""

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.compiled import FlatFunction
from pyro_vae.compiled.policy import WEIGHTS, Compile, choose
from pyro_vae.errors import InputError
from pyro_vae.programs import Pair
from pyro_vae.proposals.family import Family
from pyro_vae.proposals.fitted import apart

#: Log weights (K, B) of K draws of data; the first chunk of a batch is validated.
LogWeights = Callable[[Batch, int, bool], Tensor]


def of_guide(pair: Pair) -> LogWeights:
    """Of draws from the guide."""
    return lambda batch, draws, validate: pair.log_weights(batch, draws, validate=validate)


def of_family(family: Family) -> LogWeights:
    """Of draws from the proposals whose parameters lie beside the data."""

    def log_weights(batch: Batch, draws: int, validate: bool) -> Tensor:
        data, tensors = apart(batch)
        return family.log_weights(data, tensors, draws, validate=validate)

    return log_weights


class Weights:
    """Log weights of chunks, by Pyro or by a flat graph.

    Args:
        pair: The model and the guide.
        log_weights: What computes them.
        compile: How, as in `log_evidence`.
    """

    def __init__(self, pair: Pair, log_weights: LogWeights, compile: Compile) -> None:
        if compile not in get_args(Compile):
            raise InputError(f"compile expects 'auto', 'flat', 'inductor' or 'off', got {compile!r}")
        self.pair, self.log_weights, self.compile = pair, log_weights, compile
        self.flat: FlatFunction | None = None
        #: Relative rounding of the weights' type.
        self.rounding = 0.0

    def prepare(self, chunks: int) -> None:
        """Choose by how many chunks come."""
        choice = choose(self.compile, WEIGHTS, chunks, chunks)
        better = self.flat is None or (choice.inductor and not self.flat.inductor and not self.flat.eager)
        if choice.graph and better:
            self.flat = FlatFunction(fast=True, inductor=choice.inductor, who="log_evidence")

    def __call__(self, batch: Batch, draws: int, *, first: bool) -> Tensor:
        """(draws, B); data outside the support are refused by the first chunk."""
        if self.flat is None:
            log_w = self.log_weights(batch, draws, first)
        else:
            if first:
                self.pair.check(apart(batch)[0])

            def log_weights(*tensors: Sequence[Tensor]) -> Tensor:
                return self.log_weights(batch.with_tensors(tensors), draws, False)  # type: ignore[arg-type]

            log_w = self.flat(log_weights, batch.tensors, draws)
        self.rounding = torch.finfo(log_w.dtype).eps
        return log_w
