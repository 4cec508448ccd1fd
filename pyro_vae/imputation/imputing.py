"""Imputation by importance sampling."""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance.bound import chunks_of
from pyro_vae.importance.halving import Halving
from pyro_vae.importance.summary import summary_of_weights
from pyro_vae.imputation.drawing import Drawing
from pyro_vae.imputation.moments import Resampled, WeightedMoments
from pyro_vae.imputation.results import Imputation
from pyro_vae.precision import home, wide
from pyro_vae.programs import Pair, Program, one_at_a_time
from pyro_vae.progress import progress_bar

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
    progress: bool | None = None,
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
        progress: Show a progress bar; by default in a terminal and in a notebook.

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
    within_memory, parts = Halving(bool(pair.whole)), []
    with progress_bar(
        progress, total=num_particles * len(data), desc="imputation", unit="draws", unit_scale=True
    ) as bar:
        for batch, chunks in chunks_of(data, num_particles, rows, pair.whole):
            found = _Found(pair, batch, kept)
            for size in chunks:
                found.add(within_memory, size)
                bar.update(size * len(batch))
            parts.append(found.result(num_draws, levels))
    axes = {"quantiles": 1, "draws": 1}
    joined = {name: torch.cat([part[name] for part in parts], axes.get(name, 0)) for name in parts[0]}
    return Imputation(**joined, levels=levels, missing=data.x.isnan())


def _levels(levels: Iterable[float]) -> tuple[float, ...]:
    levels = tuple(float(level) for level in levels)
    if not all(0 < level < 1 for level in levels):
        raise InputError(f"levels expects probabilities between 0 and 1, got {list(levels)}")
    return levels


class _Found:
    """What `Imputation` has of a few data, from draws that come in chunks.

    Args:
        pair: The model and the guide.
        batch: The data.
        kept: Draws of what is missing that are kept.
    """

    def __init__(self, pair: Pair, batch: Batch, kept: int) -> None:
        self.batch, self.missing = batch, batch.x.isnan()
        #: Entries that some lack; of one that nobody lacks nothing is kept.
        self.columns = self.missing.flatten(1).any(0).nonzero()[:, 0]
        self.drawing = Drawing(pair, self.columns)
        self.moments, self.resampled = WeightedMoments(), Resampled(kept)
        self.log_weights: list[Tensor] = []

    def add(self, within_memory: Halving, draws: int) -> None:
        """Draw, those that do not fit into memory a part at a time."""
        work = partial(self.drawing, first=not self.log_weights)
        log_w, mean, variance, values = self.drawing.parts(within_memory(work, self.batch, draws))
        self.log_weights.append(log_w)
        self.moments.add(wide(log_w), wide(mean), wide(variance))
        self.resampled.add(wide(log_w), values)

    def result(self, num_draws: int, levels: tuple[float, ...]) -> Mapping[str, Tensor]:
        """By the names of `Imputation`."""
        x, values = self.batch.x, self.resampled.values
        missing = self.missing.flatten(1)[:, self.columns]
        nothing = torch.zeros((), dtype=x.dtype, device=x.device)
        return {
            "mean": self._whole(self.moments.mean, x),
            "standard_deviation": self._whole(self.moments.standard_deviation, nothing),
            "standard_error": self._whole(self.moments.standard_error, nothing),
            "quantiles": self._whole(_quantiles(values, missing, levels), x),
            "draws": self._whole(values[:num_draws], x),
            **summary_of_weights(torch.cat(self.log_weights), self.drawing.rounding),
        }

    def _whole(self, found: Tensor, observed: Tensor) -> Tensor:
        """Numbers of the columns as data, with others where something was observed."""
        x = self.batch.x
        full = found.new_zeros(*found.shape[:-1], x[0].numel())
        full[..., self.columns.to(full.device)] = found
        full = full.reshape(*found.shape[:-1], *x.shape[1:]).to(x)
        return torch.where(self.missing, full, observed)


def _quantiles(values: Tensor, missing: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Of draws (M, B, C), where they are missing, (B, C); 0 elsewhere: (Q, B, C)."""
    found = torch.zeros(len(levels), *missing.shape, dtype=torch.float64, device=home(values.device))
    if bool(missing.any()):
        draws = wide(values[:, missing].T.contiguous())  # (missing, M), which sorts fast
        found[:, missing.to(found.device)] = draws.quantile(draws.new_tensor(levels), dim=1)
    return found
