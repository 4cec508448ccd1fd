"""The latent sites of a model as one vector of unconstrained numbers per datum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.distributions import Delta
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import VonMises, biject_to

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import first_difference, parts_of
from pyro_vae.programs.enumeration import Summation
from pyro_vae.programs.layout import Layout, Place
from pyro_vae.programs.numbers import SiteNumbers, UnconstrainedLatents, unspread
from pyro_vae.programs.pair import Drawn, Pair
from pyro_vae.programs.running import refusals
from pyro_vae.programs.sites import core, imputed, is_masked, plain, sites, unmasked
from pyro_vae.randomness import own_draws


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
    #: What log p(z) and log q(z|x) have more as if nothing were masked; None where nothing is.
    masked_pz: Tensor | None
    masked_qz: Tensor | None


_UNKNOWN = (
    "expected a guide whose density at given latents is known, for all but log_evidence and annealing that "
    "starts at the prior"
)


class Latents:
    """All latent sites of a model as one vector u ∈ ℝⁿ per datum, by the bijection of each site's support.

    z = T(u) site by site, in the model's order, T being `torch.distributions.biject_to` of the support; so a
    support may depend on sites before it. n counts unconstrained numbers: K − 1 for a simplex of K. Discrete
    sites that are marked for enumeration, in the model or in the guide, are summed out.

    Args:
        model: Pyro program of p(x, z).
        guide: Pyro program of q(z|x).
        batch: Data.
        data_plate: The name of the plate of the data; by default it is found by its size.
        masked: Take latent sites under a mask.

    Raises:
        InputError: as `Pair`; and where a latent site is discrete and not marked, or an angle.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        batch: Batch,
        *,
        data_plate: str | None = None,
        masked: bool = False,
    ) -> None:
        self.pair = Pair(model, guide, batch, density=True, data_plate=data_plate)
        self._numbers: dict[str, SiteNumbers] = {}
        self._takes_masked = masked
        #: Whether a latent site is under a mask.
        self.is_masked = False
        #: Whether all of them have values among all real numbers, so that u is these values.
        self.is_real = True
        ends = self.pair.ends(batch)
        self.pair.check(ends)
        if self.pair.summed:
            self._hold_sums(ends)
        with torch.no_grad(), own_draws(batch.device):
            layout = self.pair.layout("model", 3, len(ends))
            trace = self.pair.run_model(ends, layout, self._guide_draws(ends, 3), validate=True)
        #: Sites at which the model has a value and no density over others.
        self._computed: set[str] = set()
        #: Entries of x that are left open, which count nowhere.
        self._imputed = imputed(trace)
        if self._imputed:
            self._hold_imputed(ends, layout, trace)
        start = 0
        for name in sites(trace, observed=False):
            if isinstance(core(trace.nodes[name]["fn"]), Delta):
                self._computed.add(name)
            elif name not in self.pair.summed and name not in imputed(trace):
                with refusals("model"):
                    self._numbers[name] = self._laid_out(trace, name, layout, start)
                start = self._numbers[name].stop
        if not self._numbers and not self.pair.summed:
            raise InputError("expected a model with a latent site, got none: log p(x) is its log density")
        #: n.
        self.size = start

    @torch.no_grad()
    def _hold_imputed(self, ends: Batch, layout: Layout, trace: Trace) -> None:
        """Refuse a model in which entries of x that are left open change the density of others."""
        values = self.pair.values(trace, layout)
        at = {name: value for name, value in values.items() if name not in self._imputed}
        one, other = (self.pair.run_model(ends, layout, at) for _ in range(2))
        names = [name for name in sites(trace) if name not in self._imputed]
        if not torch.equal(*(self.pair.total(each, layout, names) for each in (one, other))):
            raise InputError(
                "expected entries of x that are left open to change no other density, got "
                f"{sorted(self._imputed)} that do: use log_evidence"
            )

    @torch.no_grad()
    def _hold_sums(self, ends: Batch) -> None:
        """Hold sums at given latents, which a pair of programs does not need, against those of each alone."""
        pair, layout = self.pair, self.pair.layout("model", 3, len(ends))
        with own_draws(ends.device):
            values = self._guide_draws(ends, 3)
            try:
                self._hold_sum(ends, layout, values)
            except InputError:
                pair.spreads = True
                self._hold_sum(ends, layout, values)

    def _hold_sum(self, ends: Batch, layout: Layout, values: dict[str, Tensor]) -> None:
        pair = self.pair
        held, pair.guide_is_held = pair.guide_is_held, False
        try:
            parts = parts_of(pair, None, pair.run_model(ends, layout, values), layout, layout)
            picks = [(0, slice(0, 1)), (2, slice(len(ends) - 1, len(ends)))]
            if first_difference(pair, ends, values, parts, picks) is not None:
                raise InputError(
                    f"expected a model in which {sorted(pair.summed)} can be summed out at given latents, "
                    "got another sum beside other data than alone"
                )
        finally:
            pair.guide_is_held = held
        self.log_guide(ends, values)

    def _laid_out(self, trace: Trace, name: str, layout: Layout, start: int) -> SiteNumbers:
        site = trace.nodes[name]
        self._check(site, name)
        transform = biject_to(site["fn"].support)
        raw = transform.inv(site["value"])
        self.is_real = self.is_real and raw.shape == site["value"].shape and torch.equal(raw, site["value"])
        place = self._raw_place(name, transform)
        depth = self.pair.depth
        raw = layout.unfold(unspread(raw, place, layout), place)
        axis = depth + 1 + place.axis
        rest = tuple(size for number, size in enumerate(raw.shape) if number not in (0, axis))
        size = raw.numel() // (raw.shape[0] * raw.shape[axis])
        return SiteNumbers(start, start + size, rest, place, axis, raw.dtype)

    def _raw_place(self, name: str, transform: Any) -> Place:
        place, event_dim = self.pair.places[name], transform.domain.event_dim
        return Place(place.axis, event_dim, place.ndim - place.event_dim + event_dim)

    def _check(self, site: Mapping[str, Any], name: str) -> None:
        if site["fn"].support.is_discrete:
            raise InputError(
                f"expected continuous latent sites, got the discrete site {name!r}: mark it by "
                "infer={'enumerate': 'parallel'}, which sums it out, or use log_evidence, which draws it "
                "from the guide"
            )
        self.is_masked = self.is_masked or is_masked(site)
        if is_masked(site) and not self._takes_masked:
            raise InputError(
                f"expected latent sites without a mask, got one at the site {name!r}: where it is masked "
                "it has no density"
            )
        if isinstance(plain(site["fn"]), VonMises):
            raise InputError(
                f"expected latent sites over the reals or a part of them, got an angle at the site {name!r}: "
                "use log_evidence, or a density on an interval"
            )

    @property
    def names(self) -> list[str]:
        """The latent sites, in the model's order, without those that are summed out."""
        return list(self._numbers)

    def columns(self) -> list[str]:
        """A name for each number of u: the site's, with the number in it where there are several."""
        return [
            name if found.stop - found.start == 1 else f"{name}[{number}]"
            for name, found in self._numbers.items()
            for number in range(found.stop - found.start)
        ]

    def axis(self, name: str) -> int:
        """The axis of the data in a value of a site, that of the particles being 0."""
        return self.pair.depth + 1 + self.pair.places[name].axis

    def from_guide(self, batch: Batch, num: int, *, model: bool = True) -> Tensor:
        """Draws of u from the guide: (num, B, n).

        Without `model` they are held against no run of the model, where u does not depend on one.
        """
        pair = self.pair
        if not model and self.is_real and not pair.summed and not self._imputed:
            values = self._guide_draws(batch, num)
            return torch.cat([each.pack(values[name]) for name, each in self._numbers.items()], dim=-1)
        guide_layout, layout = (pair.layout(what, num, len(batch)) for what in ("guide", "model"))
        guide_trace = pair.run_guide(batch, guide_layout, summing=False)
        trace = pair.run_model(batch, layout, pair.values(guide_trace, guide_layout))
        if not pair.summed:
            drawn = Drawn(guide_trace, trace, guide_layout, layout)
            pair.verified.check_run(pair, batch, drawn, first=False)
        return self.pack(trace, layout)

    def from_prior(self, batch: Batch, num: int) -> Tensor:
        """Draws of u from p(z): (num, B, n)."""
        layout = self.pair.layout("model", num, len(batch))
        return self.pack(self.pair.run_model(batch, layout, None, summing=False), layout)

    def draws(self, batch: Batch, num: int) -> dict[str, Tensor]:
        """Draws from the guide, constrained, by site, as `values` gives them."""
        return {name: value for name, value in self._guide_draws(batch, num).items() if name in self._numbers}

    def check_numbers(self) -> None:
        """Refuse a model all of whose latent sites are summed out."""
        if not self.size:
            raise InputError(
                f"expected a continuous latent site, got only {sorted(self.pair.summed)}, which are summed "
                "out: use log_evidence and elbo"
            )

    def _guide_draws(self, batch: Batch, num: int) -> dict[str, Tensor]:
        layout = self.pair.layout("guide", num, len(batch))
        return self.pair.values(self.pair.run_guide(batch, layout, summing=False), layout)

    def pack(self, trace: Trace, layout: Layout) -> Tensor:
        """The values of a trace of the model as u: (C, B, n)."""
        self._check_sites(trace)
        parts = []
        for name, numbers in self._numbers.items():
            site = trace.nodes[name]
            with refusals("model"):
                raw = biject_to(site["fn"].support).inv(site["value"])
            parts.append(numbers.pack(layout.unfold(unspread(raw, numbers.place, layout), numbers.place)))
        return torch.cat(parts, dim=-1) if parts else torch.zeros(layout.num, layout.size, 0)

    def values(self, batch: Batch, u: Tensor) -> dict[str, Tensor]:
        """The constrained values at u (C, B, n), by site."""
        trace, _ = self.model_at(batch, u)
        self._check_sites(trace)
        return self._values(trace, self._layout(u))

    def _all_values(self, trace: Trace, layout: Layout) -> dict[str, Tensor]:
        """Those, and those of entries of x that are left open."""
        places = {name: self.pair.place(trace, name) for name in self._imputed}
        left_open = {name: layout.unfold(trace.nodes[name]["value"], place) for name, place in places.items()}
        return {**left_open, **self._values(trace, layout)}

    def _values(self, trace: Trace, layout: Layout) -> dict[str, Tensor]:
        """The constrained values of a trace of the model."""
        places = {name: self.pair.place(trace, name) for name in self._numbers}
        once = {name: unspread(trace.nodes[name]["value"], place, layout) for name, place in places.items()}
        return {name: layout.unfold(once[name], place) for name, place in places.items()}

    def log_probs(self, batch: Batch, u: Tensor, *, guide: bool = True) -> LogProbs:
        """The log densities at u (C, B, n); with `guide`, that of the guide, too."""
        trace, log_det = self.model_at(batch, u)
        layout, pair = self._layout(u), self.pair
        self._check_sites(trace)
        pair.verified.check_model(pair, batch, trace, layout, lambda: self._all_values(trace, layout))
        if pair.summed:
            summation = Summation(None, trace, layout, pair.plate)
            log_pz = summation.log_prior()
            log_px = summation.log_joint() - log_pz
        else:
            skipped = imputed(trace)
            latent = [name for name in sites(trace, observed=False) if name not in skipped]
            log_px = pair.total(trace, layout, sites(trace, observed=True))
            log_pz = pair.total(trace, layout, latent)
        masked_pz = self._masked(trace, layout) if self.is_masked else None
        log_qz, masked_qz = u.new_zeros(u.shape[:2]), None
        if guide:
            guide_trace, guide_layout = self._guide_at(batch, self._values(trace, layout))
            log_qz = self._log_guide(guide_trace, guide_layout)
            masked_qz = self._masked(guide_trace, guide_layout) if self.is_masked else None
        return LogProbs(log_px, log_pz, log_qz, log_det, masked_pz, masked_qz)

    def _check_sites(self, trace: Trace) -> None:
        """Refuse a model whose latent sites are others for these data than for those that were looked at."""
        drawn = {n for n in sites(trace, observed=False) if not trace.nodes[n]["infer"].get("was_observed")}
        latent = drawn - self.pair.summed - self._imputed - self._computed
        if latent != set(self._numbers):
            raise InputError(
                f"expected the same latent sites for all data, got {sorted(latent)} for some and "
                f"{sorted(self._numbers)} for others: use log_evidence"
            )

    def log_guide(self, batch: Batch, values: Mapping[str, Tensor]) -> Tensor:
        """Log q(z|x) at constrained values of all latent sites, as `values` gives them: (C, B)."""
        return self._log_guide(*self._guide_at(batch, values))

    def _guide_at(self, batch: Batch, values: Mapping[str, Tensor]) -> tuple[Trace, Layout]:
        if not self.pair.guide_is_held and not self.pair.whole:
            raise InputError(
                f"{_UNKNOWN}, got one that knows it of its own draws only, as a flow without inverse"
            )
        num = next(iter(values.values())).shape[0] if values else 1
        layout = self.pair.layout("guide", num, len(batch))
        return self.pair.run_guide(batch, layout, values), layout

    def _log_guide(self, trace: Trace, layout: Layout) -> Tensor:
        if self.pair.summed:
            return Summation(trace, None, layout, self.pair.plate).log_guide()
        drawn = set(sites(trace, observed=False)) - set(self._numbers) - self._imputed - self._computed
        if drawn:
            raise InputError(f"{_UNKNOWN}, got one that draws {sorted(drawn)} besides: use log_evidence")
        return self.pair.total(trace, layout, [name for name in sites(trace) if name not in self._imputed])

    def _masked(self, trace: Trace, layout: Layout) -> Tensor:
        """What the log densities of latent sites have more where nothing is masked: (C, B)."""
        found = [name for name in self._numbers if is_masked(trace.nodes[name])]
        whole = [layout.per_datum(unmasked(trace.nodes[n]), self.pair.plate.axis(trace, n)) for n in found]
        total = torch.zeros(layout.num, layout.size)
        return sum(whole, total) - self.pair.total(trace, layout, found) if found else total

    def _layout(self, u: Tensor) -> Layout:
        return self.pair.layout("model", u.shape[0], u.shape[1])

    def model_at(self, batch: Batch, u: Tensor) -> tuple[Trace, Tensor]:
        """A trace of the model at u, and log |dz/du|: (C, B)."""
        layout = self._layout(u)
        summed = self.pair.summed if self.pair.spreads else ()
        with UnconstrainedLatents(self._numbers, u, layout, summed) as placed:
            trace = self.pair.run_model(batch, layout, None)
        total = u.new_zeros(u.shape[:2])
        for name, log_det in placed.log_dets.items():
            if log_det.ndim > layout.axes:
                raise InputError(
                    f"expected a support of the site {name!r} that depends on no enumerated site, got one "
                    "that does"
                )
            total = total + layout.per_datum(log_det, self._numbers[name].place.axis)
        return trace, total
