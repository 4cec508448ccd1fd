"""Data drawn from a model."""

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.latents import Latents
from pyro_vae.programs.pair import refusals
from pyro_vae.programs.sites import first_difference, sites


class Simulated(NamedTuple):
    """Data drawn from a model, with the latents that they were drawn from."""

    #: (B, *data_shape).
    x: Tensor
    #: The unconstrained latents, exact draws from p(z|x): (B, n).
    u: Tensor


@torch.no_grad()
def simulate(latents: Latents, like: Tensor, num: int) -> Simulated:
    """`num` data from the model, z ~ p(z), x ~ p(x|z), with their latents.

    Args:
        latents: Of the model.
        like: Data (at least one) of the shape and type wanted, which the model is called with.
        num: How many.

    Raises:
        InputError: where the model does not observe just its argument, or has densities that depend on it,
            so that what it draws is no argument for it.
    """
    pair = latents.pair
    template = like[:1].expand(num, *like.shape[1:]).contiguous()
    with refusals(), pyro.validation_enabled(False), pair.particles(1), _Drawn():
        trace = poutine.trace(pair.model).get_trace(template)
        trace.compute_log_prob()
    drawn = [name for name in sites(trace) if trace.nodes[name]["infer"].get("was_observed")]
    if len(drawn) != 1:
        raise InputError(
            f"expected a model that observes one site, its argument, got {drawn or 'none'}: data that it "
            "draws would be no argument for it"
        )
    x = trace.nodes[drawn[0]]["value"][0].to(like)
    u = latents.pack(trace)[0]
    again = latents.model_at(x, u[None])[0] if x.shape == template.shape else None
    if again is None or not _observes(again, drawn[0], x):
        raise InputError(
            f"expected a model that observes its argument as it is at the site {drawn[0]!r}, got one that "
            "changes it: data that it draws would be no argument for it"
        )
    _check_densities(trace, again)
    return Simulated(x, u)


class _Drawn(UnconditionMessenger):
    """Draws what a model observes; a deterministic site stays what it is."""

    def _pyro_sample(self, message: Any) -> None:
        if not message["infer"].get("_deterministic"):
            super()._pyro_sample(message)


def _observes(trace: Trace, name: str, x: Tensor) -> bool:
    """Whether the model, called with x, observes x itself."""
    value = trace.nodes[name]["value"]
    return bool(value.numel() == x.numel() and torch.equal(value.reshape(x.shape), x))


def _check_densities(drawn: Trace, trace: Trace) -> None:
    """Refuse a model whose densities depend on its argument, since x was drawn under another one."""
    with pyro.validation_enabled(False):
        trace.compute_log_prob()
    name = first_difference(drawn, trace, 1e-2)
    if name is not None:
        raise InputError(
            f"expected densities that do not depend on the model's argument, got one at the site {name!r} "
            "that does (as of an autoregressive decoder): data drawn from the model would be drawn under "
            "another argument"
        )
