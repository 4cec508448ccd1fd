"""log p(x) by importance sampling, for any Pyro model and guide with a plate "data".

All is computed on the pair of programs by trace and replay, so it needs nothing of this package's
components. Units are nats per datum.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from pyro_vae.compiled import FlatFunction, own_draws
from pyro_vae.errors import InputError, count, one_line

Program = Callable[[Tensor], Any]


class LogEvidence(NamedTuple):
    """Importance-sampled log p(x), per datum, in float64.

    A lower bound in expectation (Jensen's inequality), tightening with the number of particles.
    """

    #: log p̂(x) = log 1/K Σ_k w_k, in nats, (B,).
    estimate: Tensor
    #: Its Monte Carlo standard error by the delta method, in nats, (B,); NaN for one particle.
    standard_error: Tensor
    #: (Σ w)² / Σ w², between 1 and K, (B,).
    effective_sample_size: Tensor
    #: K.
    num_particles: int

    @property
    def mean(self) -> float:
        """The mean of the estimates over the data."""
        return float(self.estimate.mean())

    @property
    def mean_standard_error(self) -> float:
        """Standard error of `mean` as an estimate for new data of the same kind.

        It is √(var_b(estimate) / B): the spread over the data, in which the Monte Carlo error is
        contained. NaN for one datum.
        """
        return (
            float(self.estimate.std() / math.sqrt(len(self.estimate))) if len(self.estimate) > 1 else math.nan
        )

    @property
    def mean_monte_carlo_error(self) -> float:
        """The Monte Carlo part of it, for these very data: √(Σ_b standard_error²) / B."""
        return float(self.standard_error.square().sum().sqrt() / len(self.standard_error))

    def __repr__(self) -> str:
        return (
            f"log p(x) = {self.mean:.3f} ± {self.mean_standard_error:.3f} nats, mean of {len(self.estimate)} "
            f"data by {self.num_particles} importance samples each (Monte Carlo error "
            f"{self.mean_monte_carlo_error:.3f})"
        )


class ELBO(NamedTuple):
    """The evidence lower bound and its two parts, per datum, in float64: elbo = reconstruction − kl."""

    #: E_q[log p(x, z) − log q(z|x)], in nats, (B,).
    elbo: Tensor
    #: E_q[log p(x|z)], in nats, (B,).
    reconstruction: Tensor
    #: KL(q(z|x) ‖ p(z)), estimated by the same draws, in nats, (B,).
    kl: Tensor

    def __repr__(self) -> str:
        elbo, reconstruction, kl = (float(part.mean()) for part in self)
        parts = f"reconstruction {reconstruction:.3f} − KL {kl:.3f}"
        return f"ELBO {elbo:.3f} = {parts} nats, mean of {len(self.elbo)} data"


@torch.no_grad()
def log_weights(model: Program, guide: Program, x: Tensor, num_particles: int) -> Tensor:
    """Log w = log p(x, z) − log q(z|x) at K draws z ~ q(z|x): (K, B).

    Scales set by handlers (a KL weight, a subsampling plate) are left out: the weights are those of the
    density itself. Masks count.

    Args:
        model: Pyro program of p(x, z), called with x.
        guide: Pyro program of q(z|x), called with x.
        x: One batch (B, *data_shape).
        num_particles: K.

    Raises:
        InputError: where a site lies outside the plate "data", or its shape does not fit its plates;
            where model and guide differ in their latent sites; where x lies outside the support; where the
            model says that it is no density, as an `Autoencoder`.
    """
    pair = _Pair(model, guide, x, density=True)
    return pair.log_weights(x, count("num_particles", num_particles), validate=True)


@torch.no_grad()
def elbo(
    model: Program, guide: Program, x: Tensor, *, num_particles: int = 1, rows: int | None = None
) -> ELBO:
    """The ELBO of each datum, split into reconstruction and KL, by `num_particles` draws.

    Kingma & Welling (2014), eq. 3, with the KL estimated by sampling, so that it holds for any pair of
    programs.

    Args:
        model: Pyro program of p(x, z), called with batches of x of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        num_particles: Draws of z per datum.
        rows: Draws handled at once; by default as many as fit a CPU's cache, 5000 at the most.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> terms = elbo(vae.model, vae.guide, data.test.batch())
    >>> bool(torch.allclose(terms.elbo, terms.reconstruction - terms.kl))
    True
    """
    count("num_particles", num_particles)
    pair = _Pair(model, guide, x)
    parts = []
    for batch, chunks in _chunks(x, num_particles, pair.rows if rows is None else rows):
        sums = torch.zeros(2, len(batch), dtype=torch.float64, device=x.device)
        for number, draws in enumerate(chunks):
            log_px, log_pz, log_qz = pair.log_probs(batch, draws, validate=number == 0)
            sums += torch.stack([log_px.double().sum(0), (log_qz - log_pz).double().sum(0)])
        parts.append(sums / num_particles)
    reconstruction, kl = torch.cat(parts, dim=1)
    return ELBO(reconstruction - kl, reconstruction, kl)


@torch.no_grad()
def log_evidence(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 1000,
    rows: int | None = None,
    compile: Literal["auto", "flat", "inductor", "off"] = "auto",
    progress: bool = False,
) -> LogEvidence:
    """Log p(x) of each datum by importance sampling from the guide.

    log p̂(x) = log 1/K Σ_k w_k with w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x). Exactly K draws per datum,
    made `rows` at a time into running sums of w and w², so memory depends neither on K nor on B.
    The standard error is √(K/(K−1) · (Σw²/(Σw)² − 1/K)). It is honest only while the weights have a
    finite variance: where q misses mass, the estimate is low and the standard error cannot know.
    Rezende, Mohamed & Wierstra (2014), appendix E; Burda, Grosse & Salakhutdinov (2016).

    Args:
        model: Pyro program of p(x, z), called with batches of x of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), on the device of the programs.
        num_particles: K, draws per datum.
        rows: Draws handled at once; by default 1250 at the most on a CPU, a GiB of them on a GPU.
        compile: `off` runs the Pyro programs, `flat` the torch operations that they consist of, on a CPU the
            faster ones that agree up to rounding, `inductor` compiles these; `auto` takes what pays.
        progress: Show a progress bar.

    Raises:
        InputError: as `log_weights`; and where x is empty or a number is not positive.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> log_evidence(vae.model, vae.guide, data.test.batch()[:4], num_particles=10).estimate.shape
    torch.Size([4])
    """
    count("num_particles", num_particles)
    pair = _Pair(model, guide, x, density=True)
    work = list(_chunks(x, num_particles, pair.flat_rows if rows is None else rows))
    flat = _flat(compile, sum(len(chunks) for _, chunks in work))
    # float64: at log w of −2000 a float32 sum would no longer see one more weight among ten thousand
    sums = torch.full((2, len(x)), -math.inf, dtype=torch.float64, device=x.device)
    start = 0
    with tqdm(total=len(x) * num_particles, unit="draw", unit_scale=True, disable=not progress) as bar:
        for batch, chunks in work:
            part = sums[:, start : start + len(batch)]
            for number, draws in enumerate(chunks):
                if flat is None:
                    log_w = pair.log_weights(batch, draws, validate=number == 0).double()
                else:
                    if number == 0:
                        pair.check(batch)
                    log_weights = partial(pair.log_weights, num_particles=draws, validate=False)
                    log_w = flat(log_weights, batch, draws).double()
                torch.logaddexp(part, torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]), out=part)
                bar.update(draws * len(batch))
            start += len(batch)
    return _summarise(sums[0], sums[1], num_particles)


def _summarise(log_sum: Tensor, log_sum_squares: Tensor, num_particles: int) -> LogEvidence:
    """From log Σ w and log Σ w², (B,) each."""
    inverse_ess = (log_sum_squares - 2 * log_sum).exp()
    variance = (inverse_ess - 1 / num_particles).clamp(min=0)
    correction = num_particles / (num_particles - 1) if num_particles > 1 else math.nan
    return LogEvidence(
        log_sum - math.log(num_particles), (variance * correction).sqrt(), 1 / inverse_ess, num_particles
    )


def _flat(compile: str, chunks: int) -> FlatFunction | None:
    """How chunks are computed, by how many there are: a graph takes a second to build, a compiler ten."""
    if compile not in ("auto", "flat", "inductor", "off"):
        raise InputError(f"compile expects 'auto', 'flat', 'inductor' or 'off', got {compile!r}")
    if compile == "off" or (compile == "auto" and chunks < 50):
        return None
    compiler = shutil.which("g++") is not None
    inductor = compile == "inductor" or (compile == "auto" and chunks >= 2000 and compiler)
    return FlatFunction(fast=True, inductor=inductor, who="log_evidence")


def _chunks(x: Tensor, num_particles: int, rows: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches of x, each with numbers of draws that add up to `num_particles`, `rows` rows at the most."""
    # up to 256 draws of a datum, beside which one run of its encoder costs nothing
    size = max(count("rows", rows) // min(num_particles, 256), 1)
    for batch in x.split(size):
        chunk = rows // len(batch)
        full, rest = divmod(num_particles, chunk)
        yield batch, [chunk] * full + [rest] * (rest > 0)


class _Pair:
    """A model and a guide whose sites are known to lie in the plates as they must.

    Found out by running them on two data, with validation on, first as they are and then in a plate of
    three particles, since shapes that do not fit can otherwise broadcast to plausible numbers.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, *, density: bool = False) -> None:
        if x.ndim == 0 or len(x) == 0:
            raise InputError(
                f"expected data of shape (B, *data_shape) with B at least 1, got {tuple(x.shape)}"
            )
        self.model, self.guide = model, guide
        two = torch.cat([x[:1], x[-1:]])
        self.depth = 0
        with _refusals():
            probes = self._traces(two, 1, validate=True)
            if density:
                _check_density(probes[1])
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
            for trace in self._traces(two, 3, validate=True):
                for name in sites(trace):
                    check_site_shape(trace.nodes[name], self.depth + 1)
                    _check_axes(trace, name)

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
        with _refusals():
            guide_trace, model_trace = self._traces(x, num_particles, validate=validate)
        observed, latent, guided = (
            sites(model_trace, observed=True),
            sites(model_trace, observed=False),
            sites(guide_trace, observed=False),
        )
        if set(latent) != set(guided):
            raise InputError(
                f"expected the guide to sample the model's latent sites {sorted(latent)} and no others, "
                f"got {sorted(guided)}"
            )
        zero = x.new_zeros(num_particles, len(x))
        return (
            per_datum(model_trace, observed, zero),
            per_datum(model_trace, latent, zero),
            per_datum(guide_trace, guided, zero),
        )

    def _traces(self, x: Tensor, num_particles: int, *, validate: bool) -> tuple[Trace, Trace]:
        """One run of the guide, and of the model on the guide's draws, with their log densities."""
        with pyro.validation_enabled(validate), ExitStack() as stack:
            if self.depth:
                stack.enter_context(pyro.plate("particles", num_particles, dim=-self.depth - 1))
            guide_trace = poutine.trace(self.guide).get_trace(x)
            model_trace = poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(x)
            for trace in (guide_trace, model_trace):
                trace.compute_log_prob()
        return guide_trace, model_trace


@contextmanager
def _refusals() -> Iterator[None]:
    """What torch and Pyro refuse, as our own error of one line."""
    try:
        yield
    except InputError as error:
        raise InputError(one_line(error)) from error
    except (RuntimeError, ValueError) as error:
        raise InputError(f"model or guide cannot be evaluated on these data: {one_line(error)}") from error


def sites(trace: Trace, *, observed: bool | None = None) -> list[str]:
    """Names of the sample sites that have a density: all, the observed, or the latent ones."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
        and observed in (None, site["is_observed"])
    ]


def plates(trace: Trace, name: str) -> dict[str, int]:
    """Axes of the plates around a site."""
    return {frame.name: frame.dim for frame in trace.nodes[name]["cond_indep_stack"] if frame.vectorized}


def _largest(distribution: Any) -> int:
    """Size of the largest tensor in a distribution, and in those that it is made of."""
    parts = vars(distribution).values()
    sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
    return max([0, *sizes, *(_largest(part) for part in parts if isinstance(part, Distribution))])


def _check_density(model_trace: Trace) -> None:
    """Refuse a model that says of a site that it is no density, with the reason."""
    for name in sites(model_trace, observed=True):
        reason = model_trace.nodes[name]["infer"].get("no_density")
        if reason:
            raise InputError(reason)


def _check_axes(trace: Trace, name: str) -> None:
    """Refuse a log density with an axis of no plate, over which the sum would run silently."""
    shape, axes = trace.nodes[name]["log_prob"].shape, plates(trace, name).values()
    if any(size > 1 and axis - len(shape) not in axes for axis, size in enumerate(shape)):
        raise InputError(
            f"expected the log density of the site {name!r} to have an axis for each plate and no other, "
            f"got shape {tuple(shape)} and plates at {sorted(axes)}: use to_event, or set the plates' dim"
        )


def per_datum(trace: Trace, names: Iterable[str], total: Tensor, *, scaled: bool = False) -> Tensor:
    """`total` (K, B) plus the log densities of the named sites, summed over all other plates.

    With `scaled`, times the scales that handlers have set.
    """
    for name in names:
        site, axes = trace.nodes[name], plates(trace, name)
        sizes = {frame.name: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
        if sizes.get("data") != total.shape[1]:
            raise InputError(
                f'expected every site inside a pyro.plate named "data" of size {total.shape[1]}, that of x, '
                f"got the site {name!r} inside {_in_words(sizes)}: log p(x) per datum needs it there"
            )
        log_prob = (
            site["log_prob"] if scaled else scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
        )
        kept = {log_prob.ndim + axes["particles"], log_prob.ndim + axes["data"]}
        others = [axis for axis in range(log_prob.ndim) if axis not in kept]
        total = total + (log_prob.sum(others) if others else log_prob)
    return total


def unscaled(site: Mapping[str, Any]) -> Tensor:
    """The log density at a site, masked, without the scales that handlers have set."""
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])


def _in_words(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in sizes.items() if name != "particles") or "none"
