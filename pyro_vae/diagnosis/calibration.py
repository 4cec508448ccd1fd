"""Simulation-based calibration of q(z|x)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.diagnosis.common import JOINT, quantities, store_as_found, unusable
from pyro_vae.diagnosis.ranking import (
    Quantities,
    Ranking,
    Ranks,
    chi_square,
    mean_z,
    number_of_bins,
    variance_z,
)
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.markup import table
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time
from pyro_vae.randomness import own_randomness


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often the central interval of q(z|x) holds the true latent, per unconstrained coordinate.

    >>> found = Coverage(0.9, torch.tensor([0.82, 0.91]), 0.009, ("z[0]", "z[1]"))
    >>> (found.found < found.nominal - 2 * found.standard_error).tolist()  # q is too narrow there
    [True, False]
    """

    #: Share that it should be: that of the ranks in the interval, next to the level asked for.
    nominal: float
    #: Share found, (n,).
    found: Tensor
    #: Standard error of a share that is as it should be.
    standard_error: float
    #: Of the coordinates.
    names: tuple[str, ...]

    def __repr__(self) -> str:
        lowest, highest = int(self.found.argmin()), int(self.found.argmax())
        return (
            f"central {self.nominal:.0%} intervals of q(z|x) hold the true latent in "
            f"{self.found.mean():.1%} of simulated data, from {self.found[lowest]:.1%} "
            f"({self.names[lowest]}) to {self.found[highest]:.1%} ({self.names[highest]}); "
            f"± {self.standard_error:.1%} by chance"
        )


@dataclass(frozen=True, eq=False)
class Calibration(Ranks):
    """Ranks of the true latents among draws from q(z|x), on data drawn from the model; on the CPU.

    Uniform on 0 … L for the exact posterior, in every quantity: the unconstrained latent coordinates, and
    last "log p(x, z)".

    >>> ends, even = torch.tensor([0, 9]).repeat(20), torch.arange(40) % 10
    >>> found = Calibration(
    ...     ranks=torch.stack([ends, even], 1),  # of 40 data among 9 draws each
    ...     names=("z[0]", "log p(x, z)"),
    ...     num_draws=9,
    ...     bins=5,
    ...     chi_square=torch.tensor([60.0, 0.0]),
    ...     p_value=torch.tensor([2.9e-12, 1.0]),
    ... )
    >>> found.calibrated, found.verdicts
    (False, ('too narrow', 'calibrated'))
    >>> found.coverage(0.8).found
    tensor([0.], dtype=torch.float64)
    """

    @property
    def calibrated(self) -> bool:
        """Whether no quantity is rejected."""
        return not any(self.rejected)

    @property
    def mean_z(self) -> Tensor:
        """Mean of the ranks against L/2, in standard errors: positive where the truth lies high, (Q,)."""
        return mean_z(self.ranks, self.num_draws)

    @property
    def variance_z(self) -> Tensor:
        """Variance of the ranks against ((L+1)² − 1)/12, in standard errors: positive for a U, (Q,)."""
        return variance_z(self.ranks, self.num_draws)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """In words, what is wrong with each quantity; "calibrated" where it is not rejected.

        Of a coordinate "too narrow" (ranks in a U), "too wide" (in a hump), "shifted upwards" or
        "downwards" (q lies above or below the truth, ranks on one side), or "of another shape". Of
        log p(x, z) "too high" or "too low" at the draws, or the same words.
        """
        found = zip(self.names, self.rejected, self.mean_z.tolist(), self.variance_z.tolist(), strict=True)
        return tuple(_verdict(*each) for each in found)

    def coverage(self, level: float = 0.9) -> Coverage:
        """How often the truth lies in the central interval of probability `level`, per coordinate.

        The interval runs between two order statistics of the draws, and holds a whole number of the L + 1
        ranks on either side of the middle; `nominal` is its exact probability.

        Raises:
            InputError: where `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise InputError(f"level expects a number between 0 and 1, got {level}")
        size = self.num_draws + 1
        tail = min(round((1 - level) / 2 * size), (size - 1) // 2)
        inside = (self.ranks[:, :-1] >= tail) & (self.ranks[:, :-1] < size - tail)
        nominal = 1 - 2 * tail / size
        error = math.sqrt(nominal * (1 - nominal) / len(self.ranks))
        return Coverage(nominal, wide(inside).mean(0), error, self.names[:-1])

    def _repr_html_(self) -> str:
        """The p-value and the verdict of each quantity, as a table."""
        found = zip(self.names, self.p_value.tolist(), self.verdicts, strict=True)
        rows = [[name, f"{p:.2g}", words] for name, p, words in found]
        return table([["quantity", "p-value", "verdict"], *rows], repr(self))

    def __repr__(self) -> str:
        how = f"{len(self.ranks)} data drawn from the model, {self.num_draws} draws each"
        if self.calibrated:
            return (
                f"q(z|x) is calibrated in all {len(self.names)} quantities "
                f"(smallest p-value {float(self.p_value.min()):.2g}, Holm at 5 %; {how})"
            )
        wrong = [number for number, rejected in enumerate(self.rejected) if rejected]
        # coordinates first, the worst of them before the others
        wrong.sort(key=lambda number: (self.names[number] == JOINT, -float(self.chi_square[number])))
        texts = [f"{self.names[number]} {self.verdicts[number]}" for number in wrong]
        words = ", ".join(texts[:6]) + f" and {len(wrong) - 6} more" * (len(wrong) > 6)
        return (
            f"q(z|x) is not calibrated in {len(wrong)} of {len(self.names)} quantities: {words} "
            f"(Holm at 5 %; {how})"
        )


@one_at_a_time
@torch.no_grad()
def calibrate(
    model: Program,
    guide: Program,
    *,
    like: Tensor | Batch,
    given: Given | None = None,
    num_data: int = 1000,
    num_draws: int = 99,
    rows: int | None = None,
    seed: int = 0,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> Calibration:
    """Simulation-based calibration of q(z|x) on data drawn from the model.

    With z* ~ p(z), x ~ p(x|z*) and z_1 … z_L ~ q(z|x), the rank of f(z*) among f(z_1) … f(z_L) is uniform
    on 0 … L for every f if q(z|x) = p(z|x). f are the unconstrained latent coordinates, and
    log p(x, z), the joint density of the unconstrained latents: coordinates alone cannot tell the exact
    posterior from a guide that ignores x and draws from the prior. Ties are broken at random. χ² tests
    with Holm's correction say which ranks are not uniform. It tests q(z|x) on the model's own data; real data
    may lie elsewhere. Talts, Betancourt, Simpson, Vehtari & Gelman (2018), "Validating Bayesian inference
    algorithms with simulation-based calibration"; Modrák et al. (2023), "Simulation-based calibration
    checking for Bayesian computation: the choice of test quantities shapes sensitivity".

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)`, that observes all of x.
        guide: Pyro program of q(z|x), called likewise.
        like: Data (at least one) of the shape, type and device that the programs are called with.
        given: What lies beside `like`, as in `bidirectional_gap`.
        num_data: Data to draw.
        num_draws: L, draws per datum; L + 1 is cut into 4 to 20 equal bins, so one less than a round number.
        rows: Draws handled at once; by default as many as fit a CPU's cache, 5000 at the most.
        seed: Of torch's random numbers, whose global state is given back as it was.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_weights`; where a latent site is discrete and not marked; where the model does not
            observe all of its argument; where the draws or their log densities are NaN; where `num_draws` + 1
            has no divisor from 4 to 20, or there are fewer than five data in a bin.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = calibrate(vae.model, vae.guide, like=data.test.batch(), num_data=100, num_draws=19)
    >>> found.names, found.ranks.shape
    (('z[0]', 'z[1]', 'log p(x, z)'), torch.Size([100, 3]))
    """
    bins = number_of_bins(count("num_data", num_data), count("num_draws", num_draws))
    shown = Batch.of(like, given)
    with own_randomness(seed_number(seed), shown.device), store_as_found():
        latents = Latents(model, guide, shown, data_plate=data_plate)
        ranking = Ranking(latents, shown, num_data, num_draws, rows, progress)
        (ranks,) = ranking.run([Coordinates(latents)])
    return _tested(ranks, (*latents.columns(), JOINT), num_draws, bins)


class Coordinates(Quantities):
    """The unconstrained latent coordinates, and last log p(x, z)."""

    def __init__(self, latents: Latents) -> None:
        self.latents = latents

    def of(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Of draws u (K, B, n): (K, B, n + 1)."""
        return lambda u: self._numbers(batch, u)

    def _numbers(self, batch: Batch, u: Tensor) -> Tensor:
        """The quantities, refused where one is NaN."""
        found = quantities(self.latents, batch, u)
        if found.isnan().any():
            raise unusable(found.isnan().any(0), (*self.latents.columns(), JOINT))
        return found


def _tested(ranks: Tensor, names: tuple[str, ...], num_draws: int, bins: int) -> Calibration:
    """With the χ² test of each quantity."""
    return Calibration(ranks, names, num_draws, bins, *chi_square(ranks, num_draws, bins))


def _verdict(name: str, rejected: bool, mean: float, variance: float) -> str:
    """By the larger of two z-scores, those of the ranks' mean and variance."""
    if not rejected:
        return "calibrated"
    if max(abs(mean), abs(variance)) < 2:
        return "of another shape"
    if abs(variance) > abs(mean):
        return "too narrow" if variance > 0 else "too wide"
    if name == JOINT:
        return "too low at the draws" if mean > 0 else "too high at the draws"
    return "shifted downwards" if mean > 0 else "shifted upwards"
