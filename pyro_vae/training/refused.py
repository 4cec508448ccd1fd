"""What is said of programs where a step cannot be taken."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro import poutine

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError, NonFiniteLossError
from pyro_vae.programs import refusals


@contextmanager
def refusals_of_programs() -> Iterator[None]:
    """What programs raise as one line, but for what `fit` says itself."""
    try:
        with refusals():
            yield
    except InputError as error:
        if isinstance(error.__cause__, NonFiniteLossError | InputError):
            raise error.__cause__ from error.__cause__.__cause__
        raise


def non_finite_site(model: Program, guide: Program, batch: Batch) -> str:
    """The first sample site whose value or log density is not finite, in words."""
    with torch.no_grad():
        guide_trace = batch.call(poutine.trace(guide).get_trace)
        model_trace = batch.call(poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace)
    for program, trace in (("guide", guide_trace), ("model", model_trace)):
        trace.compute_log_prob()
        for name in (*trace.stochastic_nodes, *trace.observation_nodes):
            site = trace.nodes[name]
            if not (torch.isfinite(site["value"]).all() and torch.isfinite(site["log_prob"]).all()):
                return f"{name!r} of the {program}"
    return "unknown (not found again in a second run)"
