"""What a better prior could gain, measured on data that it was not fitted to."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import InputError, count, counts
from pyro_vae.importance.bound import chunks_of
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


@dataclass(frozen=True, eq=False)
class PriorGap:
    """How many nats of the rate a prior fitted to the codes saves, per datum, in float64."""

    #: E_q(z|x_b)[log r(z) − log p(z)], r not fitted to x_b, (B,); negative where r is the worse prior.
    gap: Tensor
    #: Its Monte Carlo standard error, (B,).
    standard_error: Tensor
    #: Components of the mixtures r that were chosen, one for each fit.
    components: tuple[int, ...]

    def __repr__(self) -> str:
        fitted = " and ".join(map(str, self.components))
        return (
            f"prior gap = {float(self.gap.mean()):.3f} nats at least, mean of {len(self.gap)} data, by "
            f"normal mixtures of {fitted} components fitted to the codes of other data"
        )


@one_at_a_time
def prior_gap(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    train: Tensor | Batch | None = None,
    components: Sequence[int] = (1, 2, 5, 10, 20),
    num_draws: int = 10,
    rows: int | None = None,
    data_plate: str | None = None,
) -> PriorGap:
    """Rate under p(z) − rate under r(z), r being a mixture of normals fitted to the guide's draws.

    E_q[log r(z) − log p(z)] = KL(q(z) ‖ p(z)) − KL(q(z) ‖ r(z)), on data that r has not seen: at least so
    much does the best prior gain, the model else unchanged, while KL(q(z) ‖ p(z)) with q(z) made of the
    data given is too large, since no prior learns these data alone. Mixtures with full or diagonal
    covariances are fitted in the unconstrained space of the latents, size and kind being chosen on a quarter
    of the data held out; then all data are fitted. Without `train`, each half of x is measured by the
    other's.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        train: Other data to fit r to; a `Batch` where something lies beside them.
        components: Numbers of components tried.
        num_draws: Draws of z per datum, for the fit and for the measurement, at least 2.
        rows: Draws handled at once.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: where there are fewer than 8 data; where a latent site is discrete or masked.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> found = prior_gap(vae.model, vae.guide, data.test.batch()[:40])
    >>> found.gap.shape
    torch.Size([40])
    """
    components = counts("components", components)
    if count("num_draws", num_draws) < 2:
        raise InputError(f"num_draws expects 2 at least, got {num_draws}: one draw has no error")
    data, fitted = Batch.of(x, given), None if train is None else Batch.of(train, None)
    for name, each in (("x", data), ("train", fitted)):
        if each is not None and len(each) < 8:
            raise InputError(
                f"{name} expects 8 data at least, got {len(each)}: a prior is fitted to some of them"
            )
    latents = Latents(model, guide, data, data_plate=data_plate)
    latents.check_numbers()
    codes, log_prior = _codes(latents, data, num_draws, rows)
    if fitted is not None:
        mixtures = [_fit(_codes(latents, fitted, num_draws, rows)[0], components)] * 2
    else:
        mixtures = [_fit(codes[:, 1 - half :: 2], components) for half in range(2)]
    gain = np.empty(codes.shape[:2])
    for half, mixture in enumerate(mixtures):
        gain[:, half::2] = _log_density(mixture, codes[:, half::2])
    values = torch.from_numpy(gain).to(log_prior) - log_prior
    chosen = dict.fromkeys(map(id, mixtures))
    sizes = tuple(mixture.n_components for mixture in mixtures[: len(chosen)])
    return PriorGap(values.mean(0), values.std(0) / math.sqrt(num_draws), sizes)


@torch.no_grad()
def _codes(latents: Latents, data: Batch, num: int, rows: int | None) -> tuple[np.ndarray, Tensor]:
    """Draws u from the guide (num, B, n), and log p of them as a density of u (num, B)."""
    codes, densities = [], []
    for batch, chunks in chunks_of(
        data, num, latents.pair.rows if rows is None else rows, latents.pair.whole
    ):
        drawn = [latents.from_guide(batch, draws) for draws in chunks]
        terms = [latents.log_probs(batch, u, guide=False) for u in drawn]
        codes.append(wide(torch.cat(drawn)))
        densities.append(torch.cat([wide(term.log_pz) + wide(term.log_det) for term in terms]))
    return torch.cat(codes, dim=1).cpu().numpy(), torch.cat(densities, dim=1)


def _fit(codes: np.ndarray, components: Sequence[int]) -> "GaussianMixture":
    """A mixture fitted to codes (num, B, n), its size and covariances chosen on every fourth datum."""
    held_out = np.arange(codes.shape[1]) % 4 == 3
    learned, chosen_on = _flat(codes[:, ~held_out]), _flat(codes[:, held_out])
    # a component per two data at the most
    sizes = [size for size in components if 2 * size <= codes.shape[1]] or [min(components)]
    choices = [(size, kind) for size in sizes for kind in ("full", "diag")]
    scores = [_mixture(learned, *choice).score(chosen_on) for choice in choices]
    return _mixture(_flat(codes), *choices[int(np.argmax(scores))])


def _mixture(codes: np.ndarray, size: int, kind: str) -> "GaussianMixture":
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        # one that has not converged is a worse prior, and so a lower bound as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(size, covariance_type=kind, random_state=0).fit(codes)


def _log_density(mixture: "GaussianMixture", codes: np.ndarray) -> np.ndarray:
    return np.asarray(mixture.score_samples(_flat(codes))).reshape(codes.shape[:2])


def _flat(codes: np.ndarray) -> np.ndarray:
    return codes.reshape(-1, codes.shape[-1])
