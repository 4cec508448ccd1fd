"""Discrete sites that a user marks for enumeration, summed out."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree, contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.programs.data_plate import ANY, DataPlate
from pyro_vae.programs.layout import PARTICLES, Layout
from pyro_vae.programs.sites import imputed, sites

#: One factor: packed log density, and the symbols of its plates.
Factor = tuple[Tensor, frozenset[str]]


def marked(guide_trace: Trace, model_trace: Trace) -> set[str]:
    """The latent sites that are to be summed out: those marked in the guide, or in the model alone.

    Raises:
        InputError: where one is to be sampled several times.
    """
    found = {name for name in sites(guide_trace, observed=False) if _is_marked(guide_trace, name)}
    guided = set(sites(guide_trace))
    alone = [name for name in sites(model_trace, observed=False) if name not in guided]
    return found | {name for name in alone if _is_marked(model_trace, name)}


def _is_marked(trace: Trace, name: str) -> bool:
    infer, fn = trace.nodes[name]["infer"], trace.nodes[name]["fn"]
    if infer.get("enumerate") is None or not getattr(fn, "has_enumerate_support", False):
        return False
    if infer.get("num_samples") is not None:
        raise InputError(
            f"expected discrete sites enumerated over all values, got {infer['num_samples']} samples at the "
            f"site {name!r}: leave out num_samples"
        )
    return True


def is_sequential(trace: Trace, name: str) -> bool:
    """Whether a site is marked to be enumerated one value after the other."""
    return name in trace.nodes and trace.nodes[name]["infer"].get("enumerate") == "sequential"


class Marked(Messenger):
    """Marks latent sites for enumeration, whichever of the two programs the user marked them in."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = set(names)

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.names and not message["is_observed"]:
            message["infer"] = {**message["infer"], "enumerate": "parallel"}


def enumerating(layout: Layout, active: bool) -> AbstractContextManager[Any]:
    """Pyro's enumeration in parallel, left of all plates."""
    return EnumMessenger(first_available_dim=-layout.axes - 1) if active else nullcontext()


class Terms(NamedTuple):
    """The three terms of an ELBO, or of log w: (K, B) each."""

    log_px: Tensor
    log_pz: Tensor
    log_qz: Tensor


class Summation:
    """The factors of a run of guide and model under enumeration, and sums over them.

    The sums are by Pyro's message passing (`pyro.ops.contract`), which eliminates one site after the other
    and multiplies over plates, so the cost is not exponential in the number of sites.

    Args:
        guide: Trace with log densities; None for the model by itself.
        model: Trace with log densities, replayed on the guide's; None for the guide by itself.
        layout: Of both.
        plate: Of the data.
    """

    def __init__(self, guide: Trace | None, model: Trace | None, layout: Layout, plate: DataPlate) -> None:
        self.layout = layout
        symbols: dict[str, str] = {}
        for trace in (guide, model):
            if trace is not None:
                _rename(trace, plate)
                trace.pack_tensors(symbols)
                symbols = trace.plate_to_symbol
        self.symbols: Mapping[str, str] = symbols
        self.guide, self.model = guide, model
        self.in_guide = _summed(guide)
        self.in_model = _summed(model) - self.in_guide
        self._batch = [symbols[name] for name in (PARTICLES, ANY) if name in symbols]

    def log_weight(self) -> Tensor:
        """Log Σ p(x, z, y) / q(z|x, y) over all enumerated y, z ~ q(z|x, y) for each: (K, B)."""
        drawn = self._factors(self.guide, sites(self.guide), enumerated=False) if self.guide else []
        inverse = [(packed.neg(log_q), plates) for log_q, plates in drawn]
        return self._sum([*self._model_factors(), *inverse])

    def log_joint(self) -> Tensor:
        """Log Σ p(x, z, y) over all enumerated y: (K, B)."""
        return self._sum(self._model_factors())

    def log_prior(self) -> Tensor:
        """Log Σ p(z, y) over all enumerated y: (K, B)."""
        return self._sum(self._model_factors(latent=True))

    def log_guide(self) -> Tensor:
        """Log Σ q(z, y|x) over all enumerated y: (K, B)."""
        assert self.guide is not None
        return self._sum(self._factors(self.guide, sites(self.guide)))

    def elbo_terms(self) -> Terms:
        """The terms of the ELBO, in expectation over what the guide enumerates: (K, B) each."""
        assert self.guide is not None
        log_joint, log_pz = (
            sum(map(self._expected, self._marginal(self._model_factors(latent=latent))))
            for latent in (False, True)
        )
        log_qz = sum(map(self._expected, self._factors(self.guide, sites(self.guide))))
        zero = torch.zeros(self.layout.num, self.layout.size)
        log_joint, log_pz, log_qz = (
            zero.to(each) + each if isinstance(each, Tensor) else zero for each in (log_joint, log_pz, log_qz)
        )
        return Terms(log_joint - log_pz, log_pz, log_qz)

    def _model_factors(self, *, latent: bool = False) -> list[Factor]:
        assert self.model is not None
        drawn = set() if self.guide is None else set(self.guide.nodes)
        skipped = imputed(self.model) - drawn
        names = sites(self.model, observed=False if latent else None)
        return self._factors(self.model, [name for name in names if name not in skipped])

    def _factors(self, trace: Trace, names: Iterable[str], *, enumerated: bool = True) -> list[Factor]:
        """Log densities, masked but for enumerated sites, whose sum over all values must be 1."""
        found = []
        for name in names:
            site = trace.nodes[name]
            own = site["infer"].get("_enumerate_dim") is not None
            if own and not enumerated:
                continue
            log_prob = site["packed"]["unscaled_log_prob"]
            if not own:
                log_prob = packed.scale_and_mask(log_prob, mask=site["packed"]["mask"])
            around = (frame.name for frame in site["cond_indep_stack"] if frame.vectorized)
            found.append((log_prob, frozenset(self.symbols[name] for name in around)))
        return found

    def _sum(self, factors: list[Factor]) -> Tensor:
        """Log of the sum over all enumerated values of the product of factors: (K, B)."""
        if not factors:
            return torch.zeros(self.layout.num, self.layout.size)
        total = contract_to_tensor(
            _tree(factors),
            self.in_model | self.in_guide,
            target_ordinal=frozenset(self._batch),
            ring=self._ring(factors),
        )
        return self._per_datum(total)

    def _ring(self, factors: list[Factor]) -> LogRing:
        """Sums and products of logarithms, over axes of these sizes."""
        layout = self.layout
        data = layout.size * (layout.num if layout.repeated else 1)
        known = {PARTICLES: layout.num, ANY: data}
        sizes = {self.symbols[name]: length for name, length in known.items() if name in self.symbols}
        for term, _ in factors:
            sizes.update(zip(term._pyro_dims, term.shape, strict=True))  # type: ignore[attr-defined]
        return LogRing(dim_to_size=sizes)

    def _marginal(self, factors: list[Factor]) -> list[Factor]:
        """Factors from which what the model alone enumerates is summed out."""
        if not factors:
            return []
        tree = contract_tensor_tree(_tree(factors), set(self.in_model))
        return [(term, plates) for plates, terms in tree.items() for term in terms]

    def _expected(self, factor: Factor) -> Tensor:
        """The expectation of a factor under what the guide enumerates: (K, B)."""
        term, plates = factor
        assert self.guide is not None
        dims = self.in_guide & set(term._pyro_dims)  # type: ignore[attr-defined]
        if not dims:
            return self._per_datum(term)
        names = [name for name in sites(self.guide) if "_enumerate_symbol" in self.guide.nodes[name]["infer"]]
        log_q = contract_to_tensor(
            _tree(self._factors(self.guide, names)),
            set(self.in_guide),
            target_ordinal=plates,
            target_dims=dims,
            ring=self._ring([*self._factors(self.guide, names), factor]),
        )
        log_q, term = packed.broadcast_all(log_q, term)
        weight = log_q.exp()
        product = torch.where(weight > 0, weight * term, 0.0)  # a value of probability 0 does not count
        product._pyro_dims = term._pyro_dims  # type: ignore[attr-defined]
        return self._per_datum(product)

    def _per_datum(self, term: Tensor) -> Tensor:
        """A packed term, summed over all axes but those of particles and data: (K, B)."""
        dims: str = term._pyro_dims  # type: ignore[attr-defined]
        others = [number for number, symbol in enumerate(dims) if symbol not in self._batch]
        kept = [symbol for symbol in dims if symbol in self._batch]
        value = term.sum(others) if others else term
        value = value.permute([kept.index(symbol) for symbol in self._batch if symbol in kept])
        for number, symbol in enumerate(self._batch):
            if symbol not in kept:
                value = value.unsqueeze(number)
        num, size = self.layout.num, self.layout.size
        shape = (num * size,) if self.layout.repeated else (num, size)
        return value.expand(shape).reshape(num, size)


def _tree(factors: list[Factor]) -> "OrderedDict[frozenset[str], list[Tensor]]":
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for term, plates in factors:
        tree.setdefault(plates, []).append(term)
    return tree


def _summed(trace: Trace | None) -> set[str]:
    """The symbols of the axes over which a trace is enumerated."""
    if trace is None:
        return set()
    infers = (trace.nodes[name]["infer"] for name in sites(trace))
    return {infer["_enumerate_symbol"] for infer in infers if infer.get("_enumerate_dim") is not None}


def _rename(trace: Trace, plate: DataPlate) -> None:
    """Call the plate of the data by one name, so that programs that have two for it agree."""
    for site in trace.nodes.values():
        if site["type"] == "sample":
            site["cond_indep_stack"] = tuple(
                frame._replace(name=ANY) if frame.name in plate.names else frame
                for frame in site["cond_indep_stack"]
            )
