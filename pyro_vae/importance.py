"""log p(x) by importance sampling, for any Pyro model and guide with a plate "data".

All is computed on the pair of programs by trace and replay, so it needs nothing of this package's
components. Units are nats per datum.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from tqdm import tqdm

from pyro_vae.errors import InputError, count

Program = Callable[[Tensor], Any]

#: Rows (particles × data) handled at once; about the fastest on a CPU, whose cache holds the pictures.
ROWS = 5000


class LogEvidence(NamedTuple):
    """Importance-sampled log p(x), per datum.

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
    """The evidence lower bound and its two parts, per datum: elbo = reconstruction − kl."""

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
        InputError: where a site lies outside the plate "data", or model and guide differ in their
            latent sites.
    """
    return _log_weights(model, guide, x, num_particles, _plate_depth(model, guide, x))


@torch.no_grad()
def elbo(model: Program, guide: Program, x: Tensor, *, num_particles: int = 1, rows: int = ROWS) -> ELBO:
    """The ELBO of each datum, split into reconstruction and KL, by `num_particles` draws.

    Kingma & Welling (2014), eq. 3, with the KL estimated by sampling, so that it holds for any pair of
    programs.

    Args:
        model: Pyro program of p(x, z), called with x.
        guide: Pyro program of q(z|x), called with x.
        x: Data (B, *data_shape).
        num_particles: Draws of z per datum.
        rows: Draws handled at once.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> terms = elbo(vae.model, vae.guide, data.test.batch())
    >>> bool(torch.allclose(terms.elbo, terms.reconstruction - terms.kl))
    True
    """
    count("num_particles", num_particles)
    count("rows", rows)
    depth = _plate_depth(model, guide, x)
    parts = []
    for batch in x.split(rows):
        sums = [batch.new_zeros(()), batch.new_zeros(())]
        for draws in _counts(num_particles, rows // len(batch)):
            log_px, log_pz, log_qz = _log_probs(model, guide, batch, draws, depth)
            sums = [sums[0] + log_px.sum(0), sums[1] + (log_qz - log_pz).sum(0)]
        parts.append([total / num_particles for total in sums])
    reconstruction, kl = (torch.cat(part) for part in zip(*parts, strict=True))
    return ELBO(reconstruction - kl, reconstruction, kl)


@torch.no_grad()
def log_evidence(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 1000,
    rows: int = ROWS,
    progress: bool = False,
) -> LogEvidence:
    """Log p(x) of each datum by importance sampling from the guide.

    log p̂(x) = log 1/K Σ_k w_k with w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x). Exactly K draws per datum,
    made `rows` at a time into running sums of w and w², so memory depends neither on K nor on B.
    The standard error is √(K/(K−1) · (Σw²/(Σw)² − 1/K)). It is honest only while the weights have a
    finite variance: where q misses mass, the estimate is low and the standard error cannot know.
    Rezende, Mohamed & Wierstra (2014), appendix E; Burda, Grosse & Salakhutdinov (2016).

    Args:
        model: Pyro program of p(x, z), called with x.
        guide: Pyro program of q(z|x), called with x.
        x: Data (B, *data_shape), on the device of the programs.
        num_particles: K, draws per datum.
        rows: Draws handled at once.
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
    count("rows", rows)
    depth = _plate_depth(model, guide, x)
    with tqdm(total=len(x) * num_particles, unit="draw", unit_scale=True, disable=not progress) as bar:
        parts = [_stream(model, guide, batch, num_particles, rows, depth, bar) for batch in x.split(rows)]
    log_sum, log_sum_squares = (torch.cat(part) for part in zip(*parts, strict=True))
    inverse_ess = (log_sum_squares - 2 * log_sum).exp()
    variance = (inverse_ess - 1 / num_particles).clamp(min=0)
    correction = num_particles / (num_particles - 1) if num_particles > 1 else math.nan
    return LogEvidence(
        log_sum - math.log(num_particles), (variance * correction).sqrt(), 1 / inverse_ess, num_particles
    )


def _log_weights(model: Program, guide: Program, x: Tensor, num_particles: int, depth: int) -> Tensor:
    log_px, log_pz, log_qz = _log_probs(model, guide, x, num_particles, depth)
    return log_px + log_pz - log_qz


def _stream(
    model: Program, guide: Program, x: Tensor, num_particles: int, rows: int, depth: int, bar: "tqdm[Any]"
) -> tuple[Tensor, Tensor]:
    """Log Σ w and log Σ w² over all particles, (B,) each, for one batch."""
    log_sum = log_sum_squares = torch.tensor(-math.inf, device=x.device)
    for draws in _counts(num_particles, rows // len(x)):
        weights = _log_weights(model, guide, x, draws, depth)
        log_sum = torch.logaddexp(log_sum, weights.logsumexp(0))
        log_sum_squares = torch.logaddexp(log_sum_squares, (2 * weights).logsumexp(0))
        bar.update(draws * len(x))
    return log_sum, log_sum_squares


def _counts(total: int, chunk: int) -> Iterator[int]:
    """Positive numbers of at most max(chunk, 1) that add up to `total`."""
    chunk = max(chunk, 1)
    for start in range(0, total, chunk):
        yield min(chunk, total - start)


def _log_probs(
    model: Program, guide: Program, x: Tensor, num_particles: int, depth: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Log p(x|z), log p(z) and log q(z|x) at `num_particles` draws from the guide: (K, B) each."""
    with pyro.validation_enabled(False), pyro.plate("particles", num_particles, dim=-depth - 1):
        guide_trace, model_trace = _traces(model, guide, x)
    latent = set(model_trace.stochastic_nodes)
    if latent != set(guide_trace.stochastic_nodes):
        raise InputError(
            f"expected the guide to sample the model's latent sites {sorted(latent)}, "
            f"got {sorted(guide_trace.stochastic_nodes)}: give the guide each of them"
        )
    shape = (num_particles, len(x))
    return (
        _total(model_trace, model_trace.observation_nodes, x.new_zeros(shape)),
        _total(model_trace, model_trace.stochastic_nodes, x.new_zeros(shape)),
        _total(guide_trace, guide_trace.stochastic_nodes, x.new_zeros(shape)),
    )


def _traces(model: Program, guide: Program, x: Tensor) -> tuple[Trace, Trace]:
    """One run of the guide, and of the model on the guide's draws, with their log densities."""
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    traces = [prune_subsample_sites(trace) for trace in (guide_trace, model_trace)]
    for trace in traces:
        trace.compute_log_prob()
    return traces[0], traces[1]


def _plate_depth(model: Program, guide: Program, x: Tensor) -> int:
    """How many plate axes, counted from the right, the two programs use.

    Found by running them on the first datum, with validation on.
    """
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"expected data of shape (B, *data_shape) with B at least 1, got {tuple(x.shape)}")
    with pyro.validation_enabled(True):
        traces = _traces(model, guide, x[:1])
    dims = [
        -frame.dim
        for trace in traces
        for name in (*trace.stochastic_nodes, *trace.observation_nodes)
        for frame in trace.nodes[name]["cond_indep_stack"]
        if frame.vectorized
    ]
    return max(dims, default=0)


def _total(trace: Trace, names: Iterable[str], total: Tensor) -> Tensor:
    """`total` (K, B) plus the log densities of the named sites, summed over all other plates."""
    for name in names:
        site = trace.nodes[name]
        plates = {frame.name: frame.dim for frame in site["cond_indep_stack"]}
        if "data" not in plates:
            raise InputError(
                f'expected every site inside a pyro.plate named "data", got the site {name!r} inside '
                f"{sorted(set(plates) - {'particles'}) or 'none'}: log p(x) per datum needs it there"
            )
        log_prob = scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
        kept = {log_prob.ndim + plates["particles"], log_prob.ndim + plates["data"]}
        others = [axis for axis in range(log_prob.ndim) if axis not in kept]
        total = total + (log_prob.sum(others) if others else log_prob)
    return total
