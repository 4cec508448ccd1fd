"""A model and a guide, run together."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.compiled import own_draws
from pyro_vae.errors import InputError, one_line
from pyro_vae.programs.sites import (
    check_axes,
    check_delta,
    check_density,
    check_precision,
    check_subsampling,
    first_difference,
    per_datum,
    plates,
    sites,
)

Program = Callable[[Tensor], Any]


class Pair:
    """A model and a guide whose sites are known to lie in the plates as they must.

    Found out by running them on two data, with validation on, first as they are and then in a plate of
    three particles, since shapes that do not fit can otherwise broadcast to plausible numbers.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, *, density: bool = False) -> None:
        if x.ndim == 0 or len(x) == 0:
            raise InputError(
                f"expected data of shape (B, *data_shape) with B at least 1, got {tuple(x.shape)}"
            )
        if x.dtype in (torch.float16, torch.bfloat16):
            raise InputError(f"expected float32 or float64 data, got {x.dtype}: use .float()")
        self.model, self.guide = model, guide
        two = torch.cat([x[:1], x[-1:]])
        self.depth = 0
        with refusals():
            probes = self.traces(two, 1, validate=True)
            for trace in probes:
                check_subsampling(trace)
            if density:
                check_density(probes[1])
                _check_latents(probes[1], probes[0])
                check_delta(probes[1], probes[0])
            axes = [
                axis for trace in probes for name in sites(trace) for axis in plates(trace, name).values()
            ]
            self.depth = max((-axis for axis in axes), default=0)
            observed = [probes[1].nodes[name]["fn"] for name in sites(probes[1], observed=True)]
            numbers = max([two[0].numel(), 1, *(_largest(fn) // 2 for fn in observed)])
            #: Draws that fit a CPU's cache, by the numbers of one p(x|z).
            self.rows = min(max(2**22 // numbers, 16), 5000)
            #: Draws that a flat graph passes over, operation by operation; on a GPU they fill a gibibyte.
            self.flat_rows = max(2**28 // numbers if x.device.type == "cuda" else self.rows // 4, 16)
            probes = self.traces(two, 3, validate=True)
            for trace in probes:
                for name in sites(trace):
                    check_site_shape(trace.nodes[name], self.depth + 1)
                    check_axes(trace, name)
                    check_precision(trace, name)
            if density:
                self._check_repeats(two, *probes)

    def _check_repeats(self, x: Tensor, guide_trace: Trace, model_trace: Trace) -> None:
        """Refuse a model whose density at one point is another number at each run."""
        with pyro.validation_enabled(False), self.particles(3):
            again = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(x)
            again.compute_log_prob()
        name = first_difference(model_trace, again, 1e-3)
        if name is not None:
            raise InputError(
                f"expected one density at given latents, got another one at each run at the site {name!r}: "
                "put the modules in evaluation mode by .eval(), and draw by pyro.sample only"
            )

    def check(self, x: Tensor) -> None:
        """Refuse data outside the support, by one draw of each that leaves the random numbers as they are."""
        with own_draws(x.device):
            self.log_weights(x, 1, validate=True)

    def log_weights(self, x: Tensor, num_particles: int, *, validate: bool) -> Tensor:
        """Log w: (K, B)."""
        log_px, log_pz, log_qz = self.log_probs(x, num_particles, validate=validate)
        return log_px + log_pz - log_qz

    def log_probs(self, x: Tensor, num_particles: int, *, validate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Log p(x|z), log p(z) and log q(z|x) at `num_particles` draws from the guide: (K, B) each."""
        with refusals():
            guide_trace, model_trace = self.traces(x, num_particles, validate=validate)
        _check_latents(model_trace, guide_trace)
        observed, latent = (sites(model_trace, observed=observed) for observed in (True, False))
        zero = x.new_zeros(num_particles, len(x))
        return (
            per_datum(model_trace, observed, zero),
            per_datum(model_trace, latent, zero),
            per_datum(guide_trace, sites(guide_trace), zero),  # with its factors, as in Pyro's ELBOs
        )

    def particles(self, num: int) -> AbstractContextManager[Any]:
        """The plate of particles, left of all others; none while these are not known."""
        return pyro.plate("particles", num, dim=-self.depth - 1) if self.depth else nullcontext()

    def traces(self, x: Tensor, num_particles: int, *, validate: bool) -> tuple[Trace, Trace]:
        """One run of the guide, and of the model on the guide's draws, with their log densities."""
        with pyro.validation_enabled(validate), self.particles(num_particles):
            guide_trace = poutine.trace(self.guide).get_trace(x)
            model_trace = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(x)
            for trace in (guide_trace, model_trace):
                trace.compute_log_prob()
        return guide_trace, model_trace


@contextmanager
def refusals() -> Iterator[None]:
    """What torch and Pyro refuse, as our own error of one line."""
    try:
        yield
    except InputError as error:
        raise InputError(one_line(error)) from error
    except (RuntimeError, ValueError) as error:
        raise InputError(f"model or guide cannot be evaluated on these data: {one_line(error)}") from error


def _check_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a guide that does not sample the model's latent sites, or samples others."""
    latent, guided = (sites(trace, observed=False) for trace in (model_trace, guide_trace))
    if set(latent) != set(guided):
        raise InputError(
            f"expected the guide to sample the model's latent sites {sorted(latent)} and no others, "
            f"got {sorted(guided)}"
        )


def _largest(distribution: Any) -> int:
    """Size of the largest tensor in a distribution, and in those that it is made of."""
    parts = vars(distribution).values()
    sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
    return max([0, *sizes, *(_largest(part) for part in parts if isinstance(part, Distribution))])
