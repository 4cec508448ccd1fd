"""A model and a guide, run together."""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError
from pyro_vae.programs.data_plate import DataPlate, Plated
from pyro_vae.programs.enumeration import Marked, Summation, Terms, enumerating
from pyro_vae.programs.layout import PARTICLES, Layout, Place
from pyro_vae.programs.running import buffers_kept, check_signature, refusals
from pyro_vae.programs.sites import check_support, imputed, plates, sites, unscaled
from pyro_vae.programs.verifying import Verified, verify
from pyro_vae.randomness import own_draws


class Drawn(NamedTuple):
    """One run of the guide, and of the model at the guide's draws, with log densities."""

    guide: Trace
    model: Trace
    guide_layout: Layout
    model_layout: Layout


class Pair:
    """A model and a guide whose densities are known to mean, for many draws at once, what they mean alone.

    Found out by value, on up to three data: each datum is run by itself, with the same latents, and every
    site must have the same log density as in a run of many. Draws are made in a plate of particles where
    the programs mean the same there, and else by repeating the data, one program apart from the other.

    Args:
        model: Pyro program of p(x, z).
        guide: Pyro program of q(z|x).
        batch: Data, of which a few are run.
        density: Refuse what has no density: a model that says so, and a guide of one point.
        data_plate: The name of the plate of the data; by default it is found by its size.

    Raises:
        InputError: where a program cannot be run, couples data with one another, has another density at each
            run, or has a site outside the plate of the data.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        batch: Batch,
        *,
        density: bool = False,
        data_plate: str | None = None,
    ) -> None:
        self.model, self.guide = model, guide
        if _PYRO_STACK:
            raise InputError(
                f"expected a call outside of Pyro's handlers, got one in {type(_PYRO_STACK[0]).__name__}: "
                "put the handler around model and guide"
            )
        for what, program in (("guide", guide), ("model", model)):
            check_signature(what, program, batch)
        self.depth = 0
        self.plate = DataPlate(())
        #: Sites that the programs leave out of the plate of the data.
        self.undeclared: dict[str, int] = {}
        #: Latent sites that are summed out.
        self.summed: frozenset[str] = frozenset()
        #: Whether latents are given once for each value of what is summed out, as a guide draws them.
        self.spreads = False
        #: Whether each program is run on repeated data.
        self.repeats = {"guide": True, "model": True}
        #: Whether the guide's density at given values is held against runs alone.
        self.guide_is_held = True
        #: The number of data that the guide is made for, where it can be run on these only; else 0.
        self.whole = 0
        #: Where the data lie in a value of each latent site.
        self.places: dict[str, Place] = {}
        self.around_guide: Messenger | None = None
        self.verified = Verified()
        with _store_kept_where_refused():
            verify(self, batch, density, data_plate)
        device = batch.device.type
        numbers = self.verified.numbers
        #: Draws that fit a CPU's cache, by the numbers of one p(x|z).
        self.rows = min(max(2**22 // numbers, 16), 5000)
        #: Draws that a flat graph passes over, operation by operation; on a GPU they fill a gibibyte.
        self.flat_rows = max(2**28 // numbers if device == "cuda" else self.rows // 4, 16)

    def with_guide_in(self, handler: Messenger) -> Self:
        """The same with the guide inside a handler that changes no shape; it is taken at its word."""
        other = copy.copy(self)
        other.around_guide, other.verified = handler, Verified(all_shapes=True)
        return other

    def layout(self, what: str, num: int, size: int) -> Layout:
        """How `num` draws of `size` data lie in a run of the guide or the model."""
        return Layout(num, size, self.depth, self.repeats[what])

    def ends(self, batch: Batch) -> Batch:
        """The first and the last datum; all where the guide is made for all."""
        return batch if self.whole else batch[torch.tensor([0, len(batch) - 1])]

    def check(self, batch: Batch) -> None:
        """Refuse data outside the support, by one draw of each that leaves the random numbers as they are."""
        with own_draws(batch.device):
            self.draw(batch, 1, validate=True)

    def log_weights(self, batch: Batch, num_particles: int, *, validate: bool) -> Tensor:
        """Log w, w with enumerated sites summed out: (K, B)."""
        return self.log_weights_of(self.draw(batch, num_particles, validate=validate))

    def log_weights_of(self, drawn: Drawn) -> Tensor:
        """Log w of draws that were made: (K, B)."""
        if self.summed:
            return Summation(drawn.guide, drawn.model, drawn.model_layout, self.plate).log_weight()
        log_px, log_pz, log_qz = self._terms(drawn)
        return log_px + log_pz - log_qz

    def elbo_terms(self, batch: Batch, num_particles: int, *, validate: bool) -> Terms:
        """Log p(x|z), log p(z) and log q(z|x) at `num_particles` draws from the guide: (K, B) each.

        With what the model enumerates summed out, and in expectation over what the guide does.
        """
        drawn = self.draw(batch, num_particles, validate=validate)
        if self.summed:
            return Summation(drawn.guide, drawn.model, drawn.model_layout, self.plate).elbo_terms()
        return self._terms(drawn)

    def draw(self, batch: Batch, num_particles: int, *, validate: bool = False) -> Drawn:
        """One run of the guide, and of the model on the guide's draws, with their log densities."""
        layouts = [self.layout(what, num_particles, len(batch)) for what in ("guide", "model")]
        guide_trace = self.run_guide(batch, layouts[0], validate=validate)
        at: Mapping[str, Tensor] | Trace = guide_trace
        if not self.summed:
            at = self.values(guide_trace, layouts[0])
        model_trace = self.run_model(batch, layouts[1], at, validate=validate)
        drawn = Drawn(guide_trace, model_trace, *layouts)
        self.verified.check_run(self, batch, drawn, first=validate)
        return drawn

    def run_guide(
        self,
        batch: Batch,
        layout: Layout,
        at: Mapping[str, Tensor] | None = None,
        *,
        validate: bool = False,
        summing: bool = True,
    ) -> Trace:
        """A trace of the guide with log densities, drawn, or at values as `values` gives them.

        Without `summing`, what is marked for enumeration is drawn.
        """
        return self._run("guide", self.guide, batch, layout, at, validate, summing)

    def run_model(
        self,
        batch: Batch,
        layout: Layout,
        at: Mapping[str, Tensor] | Trace | None,
        *,
        validate: bool = False,
        summing: bool = True,
    ) -> Trace:
        """A trace of the model with log densities, drawn, at values, or replayed on a trace of the guide."""
        return self._run("model", self.model, batch, layout, at, validate, summing)

    def _run(
        self,
        what: str,
        program: Program,
        batch: Batch,
        layout: Layout,
        at: Mapping[str, Tensor] | Trace | None,
        validate: bool,
        summing: bool,
    ) -> Trace:
        try:
            return self._trace(what, program, batch, layout, at, validate, summing)
        except Exception:
            missing = any(
                tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in batch.tensors
            )
            if not validate or not missing:
                raise
        # a missing entry lies in no support, but counts only where it is not masked
        trace = self._trace(what, program, batch, layout, at, False, summing)
        with refusals(what):
            check_support(trace)
        return trace

    def _trace(
        self,
        what: str,
        program: Program,
        batch: Batch,
        layout: Layout,
        at: Mapping[str, Tensor] | Trace | None,
        validate: bool,
        summing: bool,
    ) -> Trace:
        data = layout.data(batch)
        with ExitStack() as stack:
            for context in (
                refusals(what),
                buffers_kept(),
                pyro.validation_enabled(validate),
                layout.around(),
            ):
                stack.enter_context(context)
            tracer = stack.enter_context(poutine.trace())
            if isinstance(at, Trace):
                stack.enter_context(poutine.replay(trace=at))
            elif at is not None:
                stack.enter_context(
                    GivenLatents(at, layout, self.places, self.summed if self.spreads else ())
                )
            if self.summed and summing:
                stack.enter_context(enumerating(layout, True))
                stack.enter_context(Marked(self.summed))
            if self.around_guide is not None and what == "guide":
                stack.enter_context(self.around_guide)
            if self.undeclared:
                stack.enter_context(Plated(self.undeclared))
            data.call(program)
            trace = tracer.trace.copy()
            trace.compute_log_prob()
        return trace

    def values(self, trace: Trace, layout: Layout) -> dict[str, Tensor]:
        """The values of latent sites of a run, in the shapes that they have in a plate of particles.

        Those of all sites but of what is summed out.
        """
        return {
            name: layout.unfold(trace.nodes[name]["value"], self.place(trace, name))
            for name in sites(trace, observed=False)
            if name not in self.summed
        }

    def place(self, trace: Trace, name: str) -> Place:
        """Where the data lie in a value of a latent site."""
        if name not in self.places:
            axes = [axis for plate, axis in plates(trace, name).items() if plate != PARTICLES]
            event_dim = trace.nodes[name]["fn"].event_dim
            self.places[name] = Place(self.plate.axis(trace, name), event_dim, event_dim - min(axes))
        return self.places[name]

    def total(self, trace: Trace, layout: Layout, names: Iterable[str], *, masked: bool = True) -> Tensor:
        """Log densities of sites, summed: (K, B); without `masked`, as if nothing were masked."""
        total: Tensor | None = None
        for name in names:
            site = trace.nodes[name]
            log_prob = unscaled(site) if masked else site["unscaled_log_prob"]
            part = layout.per_datum(log_prob, self.plate.axis(trace, name))
            total = part if total is None else total + part
        return torch.zeros(layout.num, layout.size) if total is None else total

    def _terms(self, drawn: Drawn) -> Terms:
        """The three terms where nothing is summed out."""
        skipped = imputed(drawn.model) - set(drawn.guide.nodes)
        latent = [name for name in sites(drawn.model, observed=False) if name not in skipped]
        observed = sites(drawn.model, observed=True)
        return Terms(
            self.total(drawn.model, drawn.model_layout, observed),
            self.total(drawn.model, drawn.model_layout, latent),
            # with its factors, as in Pyro's ELBOs
            self.total(drawn.guide, drawn.guide_layout, sites(drawn.guide)),
        )


def rows_of(pair: Pair, drawn: Drawn, name: str, value: Tensor) -> Tensor:
    """A value of an observed site, of all particles: (K, B, numbers of the site)."""
    layout, fn = drawn.model_layout, drawn.model.nodes[name]["fn"]
    place = Place(pair.plate.axis(drawn.model, name), fn.event_dim, value.ndim)
    return layout.leading(value, place).reshape(layout.num, layout.size, -1)


@contextmanager
def _store_kept_where_refused() -> Iterator[None]:
    """Take parameters that a look has made out of Pyro's store where the programs are refused."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    except InputError:
        for name in set(store.keys()) - before:
            del store[name]
        raise


class GivenLatents(Messenger):
    """Puts given values at latent sites.

    Args:
        values: By site, in the shapes that they have in a plate of particles.
        layout: Of the run.
        places: Where the data lie in them.
        summed: Sites that are summed out, over whose values the others are spread.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        layout: Layout,
        places: Mapping[str, Place],
        summed: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.values, self.layout, self.places = values, layout, places
        self.spread = Spread(layout, summed)

    def _pyro_sample(self, message: Any) -> None:
        name = message["name"]
        if name in self.values and not message["is_observed"]:
            value = self.layout.fold(self.values[name], self.places[name])
            message["value"] = self.spread(value, self.places[name])
            message["done"] = True
        self.spread.note(message)


class Spread:
    """Values repeated over the axes of sites that are enumerated before them.

    A program that is written for enumeration in the guide takes latents that were drawn once for each value.

    Args:
        layout: Of the run.
        summed: The enumerated sites.
    """

    def __init__(self, layout: Layout, summed: Collection[str]) -> None:
        self.layout, self.summed = layout, summed
        self._sizes: dict[int, int] = {}

    def note(self, message: Any) -> None:
        """Look at a site that may be enumerated."""
        axis = message["infer"].get("_enumerate_dim")
        if message["name"] in self.summed and axis is not None:
            value_axis = axis - message["fn"].event_dim
            self._sizes[axis] = message["value"].shape[value_axis]

    def __call__(self, value: Tensor, place: Place) -> Tensor:
        """A value of a site at `place`, with all axes enumerated so far."""
        if not self._sizes:
            return value
        batch = list(value.shape[: value.ndim - place.event_dim])
        batch = [1] * (-min(self._sizes) - len(batch)) + batch
        for axis, size in self._sizes.items():
            batch[axis] = size
        return value.expand(*batch, *value.shape[value.ndim - place.event_dim :])
