"""Imputation by importance sampling."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance.bound import chunks_of
from pyro_vae.importance.pareto import pareto_k
from pyro_vae.imputation.moments import Resampled, WeightedMoments
from pyro_vae.imputation.results import Imputation
from pyro_vae.programs import Drawn, Pair, Place, Program, entries_of, one_at_a_time, sites
from pyro_vae.randomness import own_draws

#: Draws from p(x_mis|x_obs) on which quantiles stand.
QUANTILE_DRAWS = 1000
#: Numbers of such draws held at once.
_HELD = 2**25


@one_at_a_time
@torch.no_grad()
def impute(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_particles: int = 1000,
    num_draws: int = 10,
    levels: Iterable[float] = (0.05, 0.5, 0.95),
    data_plate: str | None = None,
) -> Imputation:
    """p(x_mis|x_obs) of each datum by self-normalised importance sampling: means, quantiles and draws.

    E[x_mis|x_obs] ≈ Σ_k w̄_k E[x_mis|z_k] with z_k ~ q(z|x_obs) and w̄_k = w_k / Σ w, w_k = p(x_obs, z_k) /
    q(z_k|x_obs). Draws are resampled, with probability w̄_k, from x_mis ~ p(x_mis|z_k), so that the missing
    entries of a datum are drawn together, and quantiles are those of 1000 such draws. All of this is right as
    K grows; the bias is of order 1/K, and what the guide never visits is not in it. Mattei & Frellsen,
    "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets" (2019); Rubin (1987) for the
    resampling.

    Args:
        model: Pyro program of p(x, z) that leaves NaN out, called as `model(x, **given)`. It may observe the
            entries of x at several sites; those of one datum are independent given z, as in a VAE.
        guide: Pyro program of q(z|x) that takes x with NaN, called likewise.
        x: Data (B, *data_shape), NaN where not observed, on the device of the programs.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: K, draws of z per datum.
        num_draws: M, draws of x_mis that are returned.
        levels: Probabilities of the quantiles.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `log_evidence`; where x is not of floats, a level lies outside of (0, 1), a latent is
            summed out, or the model does not observe the entries of x as they are.

    >>> from pyro_vae import Dataset, NormalLikelihood, assemble
    >>> x = torch.randn(40, 3)
    >>> x[0, 1] = torch.nan
    >>> vae = assemble(Dataset(x, missing=True), likelihood=NormalLikelihood)
    >>> found = impute(vae.model, vae.guide, x[:5], num_particles=100)
    >>> found.mean.isfinite().all(), found.draws.shape, torch.equal(found.mean[1:], x[1:5])
    (tensor(True), torch.Size([10, 5, 3]), True)
    """
    draws("num_particles", num_particles)
    count("num_draws", num_draws)
    levels = _levels(levels)
    data = Batch.of(x, given)
    if not data.x.is_floating_point():
        raise InputError(f"expected x of floats, NaN where not observed, got {data.x.dtype}: use .float()")
    pair = Pair(model, guide, data, density=True, data_plate=data_plate)
    if pair.summed:
        raise InputError(
            f"expected latents that the guide draws, got {', '.join(sorted(pair.summed))} summed out: leave "
            "out the mark for enumeration, and draw it in the guide"
        )
    kept = max(num_draws, QUANTILE_DRAWS)
    rows = min(pair.rows, 256 * max(_HELD // (kept * data.x[0].numel()), 1))
    parts = [
        _imputed(pair, batch, chunks, num_draws, kept, levels)
        for batch, chunks in chunks_of(data, num_particles, rows, pair.whole)
    ]
    axes = {"quantiles": 1, "draws": 1}
    joined = {name: torch.cat([part[name] for part in parts], axes.get(name, 0)) for name in parts[0]}
    return Imputation(**joined, levels=levels, missing=data.x.isnan())


def _levels(levels: Iterable[float]) -> tuple[float, ...]:
    levels = tuple(float(level) for level in levels)
    if not all(0 < level < 1 for level in levels):
        raise InputError(f"levels expects probabilities between 0 and 1, got {list(levels)}")
    return levels


def _imputed(
    pair: Pair, batch: Batch, chunks: list[int], num_draws: int, kept: int, levels: tuple[float, ...]
) -> Mapping[str, Tensor]:
    """What `Imputation` has of a few data."""
    missing = batch.x.isnan()
    columns = missing.flatten(1).any(0).nonzero()[:, 0]  # of an entry that nobody lacks nothing is kept
    moments, resampled, log_weights = WeightedMoments(), Resampled(kept), []
    entries: Mapping[str, Tensor] = {}
    for number, size in enumerate(chunks):
        drawn = pair.draw(batch, size, validate=number == 0)
        if number == 0:
            entries, _ = entries_of(pair.model, batch, sites(drawn.model, observed=True))
            _check_independent(pair, batch, drawn, entries)
        log_w = pair.log_weights_of(drawn)
        log_weights.append(log_w)
        mean, variance, values = _moments_of(pair, batch, drawn, entries, columns)
        moments.add(log_w.double(), mean.double(), variance.double())
        resampled.add(log_w.double(), values)
    log_w = torch.cat(log_weights)
    _refuse_non_finite(log_w)

    def whole(found: Tensor, observed: Tensor) -> Tensor:
        """Numbers of the columns as data, with others where something was observed."""
        full = found.new_zeros(*found.shape[:-1], batch.x[0].numel())
        full[..., columns] = found
        full = full.reshape(*found.shape[:-1], *batch.x.shape[1:]).to(batch.x)
        return torch.where(missing, full, observed)

    nothing = torch.zeros((), dtype=batch.x.dtype, device=batch.x.device)
    probabilities = torch.tensor(levels, dtype=torch.float64, device=batch.device)
    quantiles = resampled.values.double().quantile(probabilities, dim=0)
    total = log_w.double().logsumexp(0)
    rounding = torch.finfo(log_w.dtype).eps
    ordered = log_w.double().sort(0, descending=True).values.T.cpu()
    return {
        "mean": whole(moments.mean, batch.x),
        "standard_deviation": whole(moments.standard_deviation, nothing),
        "standard_error": whole(moments.standard_error, nothing),
        "quantiles": whole(quantiles, batch.x),
        "draws": whole(resampled.values[:num_draws], batch.x),
        "log_evidence": total - math.log(len(log_w)),
        "effective_sample_size": (2 * total - (2 * log_w.double()).logsumexp(0)).exp(),
        "pareto_k": total.new_tensor([pareto_k(each, len(log_w), rounding=rounding) for each in ordered]),
    }


def _check_independent(pair: Pair, batch: Batch, drawn: Drawn, names: Iterable[str]) -> None:
    """Refuse p(x|z) that depends on x itself, since what is missing would be drawn under NaN."""
    x = batch.x.roll(1, 0) if len(batch) > 1 else batch.x.flatten(1).flip(1).reshape(batch.x.shape)
    values = pair.values(drawn.guide, drawn.guide_layout)
    with own_draws(batch.device), pyro.validation_enabled(False):
        other = pair.run_model(Batch(x, batch.given), drawn.model_layout, values)
        for name in names:
            value = drawn.model.nodes[name]["fn"].sample()
            one, two = (trace.nodes[name]["fn"].log_prob(value) for trace in (drawn.model, other))
            if not torch.allclose(one, two, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise InputError(
                    f"expected entries that are independent given z, got a density at the site {name!r} that "
                    "depends on x itself (as of an autoregressive decoder): what is missing has no mean there"
                )


def _moments_of(
    pair: Pair, batch: Batch, drawn: Drawn, entries: Mapping[str, Tensor], columns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of p(x|z), and draws from it, at some entries: (K, B, columns) each."""
    trace = drawn.model
    size = (3, drawn.model_layout.num, len(batch), batch.x[0].numel())
    out = torch.zeros(size, dtype=batch.x.dtype, device=batch.device)
    for name, index in entries.items():
        for number, value in enumerate(_moments(trace.nodes[name]["fn"])):
            out[number][..., index] = _rows(pair, drawn, trace, name, value).to(out)
    mean, variance, values = out[..., columns]
    return mean, variance, values


def _moments(fn: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance, and one draw; what a distribution does not know of itself is taken from the draw."""
    drawn: Tensor = fn.sample()
    try:
        mean = fn.mean
    except (NotImplementedError, AttributeError):
        return drawn, torch.zeros_like(drawn), drawn
    try:
        return mean, fn.variance, drawn
    except (NotImplementedError, AttributeError):
        return mean, (drawn - mean).square(), drawn


def _rows(pair: Pair, drawn: Drawn, trace: Trace, name: str, value: Tensor) -> Tensor:
    """A value of an observed site, of all particles: (K, B, numbers of the site)."""
    layout, fn = drawn.model_layout, trace.nodes[name]["fn"]
    place = Place(pair.plate.axis(trace, name), fn.event_dim, value.ndim)
    value = layout.unfold(value, place)
    particles, data = value.ndim + layout.particles(place), value.ndim + place.data
    return value.movedim((particles, data), (0, 1)).reshape(layout.num, layout.size, -1)


def _refuse_non_finite(log_w: Tensor) -> None:
    total = log_w.logsumexp(0)
    bad = int((~total.isfinite()).sum())
    if bad:
        raise InputError(
            f"expected log weights that are numbers, got NaN, +inf or only −inf for {bad} of {len(total)} "
            "data drawn together: see where log_weights(model, guide, x, 100) comes from"
        )
