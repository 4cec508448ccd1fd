"""The latent sites of a model as one vector of unconstrained numbers per datum."""

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import VonMises, biject_to

from pyro_vae.compiled import own_draws
from pyro_vae.errors import InputError
from pyro_vae.programs.pair import Pair, Program, refusals
from pyro_vae.programs.sites import per_datum, plain, plates, sites


class LogProbs(NamedTuple):
    """Log densities at unconstrained points u, z being the constrained ones: (C, B) each."""

    #: log p(x|z).
    log_px: Tensor
    #: log p(z).
    log_pz: Tensor
    #: log q(z|x); zeros where it was not asked for.
    log_qz: Tensor
    #: log |dz/du|, which makes a density of z one of u.
    log_det: Tensor


class _Layout(NamedTuple):
    """Where a site's numbers lie in u, and its shape: (C, *left plates, B, *right plates, *event)."""

    start: int
    stop: int
    #: Sizes of all axes but those of C and B.
    rest: tuple[int, ...]
    #: The axis of B.
    axis: int
    #: The site's own, since u has the widest of all sites.
    dtype: torch.dtype

    def unpack(self, u: Tensor) -> Tensor:
        own = u[..., self.start : self.stop].to(self.dtype)
        return own.reshape(*u.shape[:2], *self.rest).movedim(1, self.axis)

    def pack(self, raw: Tensor) -> Tensor:
        raw = raw.movedim(self.axis, 1)
        return raw.reshape(*raw.shape[:2], -1)


class Latents:
    """All latent sites of a model as one vector u ∈ ℝⁿ per datum, by the bijection of each site's support.

    z = T(u) site by site, in the model's order, T being `torch.distributions.biject_to` of the support; so a
    support may depend on sites before it. n counts unconstrained numbers: K − 1 for a simplex of K.

    Args:
        model: Pyro program of p(x, z), called with x.
        guide: Pyro program of q(z|x), called with x.
        x: Data (B, *data_shape).

    Raises:
        InputError: as `log_weights`; and where a latent site is discrete.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor) -> None:
        self.pair = Pair(model, guide, x, density=True)
        two = torch.cat([x[:1], x[-1:]])
        self.pair.check(two)
        with refusals(), torch.no_grad(), own_draws(x.device):
            _, trace = self.pair.traces(two, 3, validate=True)
        self._layouts: dict[str, _Layout] = {}
        start = 0
        for name in sites(trace, observed=False):
            with refusals():
                layout = self._layout(trace, name, start)
            self._layouts[name], start = layout, layout.stop
        if not self._layouts:
            raise InputError("expected a model with a latent site, got none: log p(x) is its log density")
        #: n.
        self.size = start

    def _layout(self, trace: Trace, name: str, start: int) -> _Layout:
        site = trace.nodes[name]
        if site["fn"].support.is_discrete:
            raise InputError(
                f"expected continuous latent sites, got the discrete site {name!r}: sum it out in the model "
                "(as a mixture), or use log_evidence, which draws it from the guide"
            )
        masked = isinstance(plain(site["fn"]), MaskedDistribution)
        if masked or (site["mask"] is not None and site["mask"] is not True):
            raise InputError(
                f"expected latent sites without a mask, got one at the site {name!r}: where it is masked "
                "it has no density"
            )
        if isinstance(plain(site["fn"]), VonMises):
            raise InputError(
                f"expected latent sites over the reals or a part of them, got an angle at the site {name!r}: "
                "use log_evidence, or a density on an interval"
            )
        raw = biject_to(site["fn"].support).inv(site["value"])
        axis = self.pair.depth + 1 + plates(trace, name)["data"]
        rest = tuple(size for number, size in enumerate(raw.shape) if number not in (0, axis))
        size = raw.numel() // (raw.shape[0] * raw.shape[axis])
        return _Layout(start, start + size, rest, axis, raw.dtype)

    @property
    def names(self) -> list[str]:
        """The latent sites, in the model's order."""
        return list(self._layouts)

    @property
    def axes(self) -> dict[str, int]:
        """The axis of the data in a value of each site, that of the particles being 0."""
        return {name: layout.axis for name, layout in self._layouts.items()}

    def columns(self) -> list[str]:
        """A name for each number of u: the site's, with the number in it where there are several."""
        return [
            name if stop - start == 1 else f"{name}[{number}]"
            for name, (start, stop, *_) in self._layouts.items()
            for number in range(stop - start)
        ]

    def from_guide(self, x: Tensor, num: int, *, validate: bool = False) -> Tensor:
        """Draws of u from the guide: (num, B, n)."""
        with refusals():
            return self.pack(self.pair.traces(x, num, validate=validate)[1])

    def from_prior(self, x: Tensor, num: int) -> Tensor:
        """Draws of u from p(z): (num, B, n)."""
        with refusals(), pyro.validation_enabled(False), self.pair.particles(num):
            return self.pack(poutine.trace(self.pair.model).get_trace(x))

    def pack(self, trace: Trace) -> Tensor:
        """The values of a trace of the model, made inside the plate of particles, as u: (C, B, n)."""
        parts = []
        for name, layout in self._layouts.items():
            site = trace.nodes[name]
            parts.append(layout.pack(biject_to(site["fn"].support).inv(site["value"])))
        return torch.cat(parts, dim=-1)

    def values(self, x: Tensor, u: Tensor) -> dict[str, Tensor]:
        """The constrained values at u (C, B, n), by site."""
        trace, _ = self.model_at(x, u)
        return {name: trace.nodes[name]["value"] for name in self._layouts}

    def log_probs(self, x: Tensor, u: Tensor, *, guide: bool = True) -> LogProbs:
        """The log densities at u (C, B, n); with `guide`, that of the guide, too."""
        model_trace, log_det = self.model_at(x, u)
        zero = u.new_zeros(u.shape[:2])
        log_qz = zero
        if guide:
            log_qz = self.log_guide(x, {name: model_trace.nodes[name]["value"] for name in self._layouts})
        with refusals(), pyro.validation_enabled(False):
            model_trace.compute_log_prob()
            log_px = per_datum(model_trace, sites(model_trace, observed=True), zero)
            log_pz = per_datum(model_trace, sites(model_trace, observed=False), zero)
        return LogProbs(log_px, log_pz, log_qz, log_det)

    def log_guide(self, x: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Log q(z|x) at constrained values of all latent sites: (C, B)."""
        first = next(iter(values.values()))
        num = first.shape[0]
        with refusals(), pyro.validation_enabled(False), self.pair.particles(num):
            with Given(values):
                trace = poutine.trace(self.pair.guide).get_trace(x)
            trace.compute_log_prob()
            return per_datum(trace, sites(trace), first.new_zeros(num, len(x)))

    def model_at(self, x: Tensor, u: Tensor) -> tuple[Trace, Tensor]:
        """A trace of the model at u, without log densities, and log |dz/du|: (C, B)."""
        placed = _Placed(self._layouts, u)
        with refusals(), pyro.validation_enabled(False), self.pair.particles(len(u)), placed:
            trace = poutine.trace(self.pair.model).get_trace(x)
        total = u.new_zeros(u.shape[:2])
        for name, log_det in placed.log_dets.items():
            axis = self._layouts[name].axis
            depth = self.pair.depth + 1
            others = [number for number in range(log_det.ndim) if number not in (0, axis)]
            assert log_det.ndim == depth
            total = total + (log_det.sum(others) if others else log_det)
        return trace, total


class _Placed(Messenger):
    """Puts the values T(u) at the latent sites."""

    def __init__(self, layouts: dict[str, _Layout], u: Tensor) -> None:
        super().__init__()
        self.layouts, self.u = layouts, u
        self.log_dets: dict[str, Tensor] = {}

    def _pyro_sample(self, message: Any) -> None:
        layout = self.layouts.get(message["name"])
        if layout is None or message["is_observed"]:
            return
        transform, raw = biject_to(message["fn"].support), layout.unpack(self.u)
        message["value"] = transform(raw)
        message["done"] = True
        self.log_dets[message["name"]] = transform.log_abs_det_jacobian(raw, message["value"])


class Given(Messenger):
    """Puts given values at latent sites."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.values and not message["is_observed"]:
            message["value"] = self.values[message["name"]]
            message["done"] = True
