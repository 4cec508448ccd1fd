"""Coverage with random points: whether q(z|x) is the posterior jointly, not in its margins only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.diagnosis.calibration import Calibration, Coordinates, _tested
from pyro_vae.diagnosis.common import JOINT, store_as_found
from pyro_vae.diagnosis.ranking import Ranking, Ranks, chi_square, mean_z, number_of_bins, variance_z
from pyro_vae.diagnosis.references import REFERENCES, References
from pyro_vae.errors import count, seed_number
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time
from pyro_vae.randomness import own_randomness


@dataclass(frozen=True, eq=False)
class RandomCoverage(Ranks):
    """Ranks of the true latents by their distance from points, among draws from q(z|x); on the CPU.

    A quantity is the distance from the point of one rule; a draw lies below the truth where it is nearer.

    >>> found = RandomCoverage(
    ...     ranks=torch.tensor([[7], [8], [9], [9]]).repeat(10, 1),  # of 40 data among 9 draws each
    ...     names=("distance from a draw from the prior",),
    ...     num_draws=9,
    ...     bins=5,
    ...     chi_square=torch.tensor([85.0]),
    ...     p_value=torch.tensor([1.5e-17]),
    ... )
    >>> found.verdicts
    ('too far',)
    >>> masses, shares = found.curve()
    >>> masses.shape, shares.shape
    (torch.Size([11]), torch.Size([11, 1]))
    """

    @property
    def verdicts(self) -> tuple[str, ...]:
        """In words, how the truth lies seen from each point; "not rejected" where it may be a draw from q.

        "too far" or "too near", "too narrow" (ranks in a U: q is, along these distances), "too wide" (in a
        hump), or "of another shape".
        """
        scores = [each(self.ranks, self.num_draws).tolist() for each in (mean_z, variance_z)]
        return tuple(_verdict(*each) for each in zip(self.rejected, *scores, strict=True))

    def curve(self) -> tuple[Tensor, Tensor]:
        """Expected coverage of balls around each point against their mass under q(z|x).

        Returns:
            The masses k / (L + 1), (L + 2,), and the share of simulated data whose truth lies in a ball of
            that mass, (L + 2, R): the same number for the exact posterior.
        """
        size = self.num_draws + 1
        edges = torch.arange(size + 1)
        inside = wide(self.ranks[None] < edges[:, None, None]).mean(1)
        return wide(edges) / size, inside

    def __repr__(self) -> str:
        how = f"{len(self.ranks)} data drawn from the model, {self.num_draws} draws each, Holm at 5 %"
        if not any(self.rejected):
            return (
                f"q(z|x) is not rejected by any of {len(self.names)} kinds of points (smallest p-value "
                f"{float(self.p_value.min()):.2g}; {how})"
            )
        wrong = [number for number, rejected in enumerate(self.rejected) if rejected]
        wrong.sort(key=lambda number: -float(self.chi_square[number]))
        words = ", ".join(f"{self.verdicts[number]} by {self.names[number]}" for number in wrong)
        return f"q(z|x) is rejected: {words} ({how})"


@one_at_a_time
@torch.no_grad()
def tarp(
    model: Program,
    guide: Program,
    like: Tensor | Batch,
    *,
    given: Given | None = None,
    num_data: int = 1000,
    num_draws: int = 99,
    rows: int | None = None,
    seed: int = 0,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> RandomCoverage:
    """Coverage with random points: whether q(z|x) is p(z|x), on data drawn from the model.

    With z* ~ p(z), x ~ p(x|z*), z_1 … z_L ~ q(z|x) and a point r(x), the rank of the distance d(z*, r) among
    d(z_1, r) … d(z_L, r) is uniform on 0 … L if q(z|x) = p(z|x), whatever r. Distances depend on all latents
    together, so that they see what the margins of `calibrate` do not: a wrong correlation, a missing mode.
    d² is the mean square over the unconstrained coordinates in standard deviations of q(z|x), by 16 draws of
    its own. Points are chosen by three rules, each tested as `calibrate` tests its quantities:

    - a draw: one more draw from q(z|x), beside its modes;
    - the shift: 3 standard deviations from the mean of q, towards where a ridge regression on x says that the
      truth lies;
    - the spread: 3 standard deviations off in the direction in which the spread of the truth differs most
      from that of q.

    The regression and the direction are learned from 300 other simulated data, so that the null law is exact.
    That q is not rejected is no proof that it is right. It tests q on the model's own data; real data may lie
    elsewhere (`local_test`). Lemos, Coogan, Hezaveh & Perreault-Levasseur (2023), "Sampling-based accuracy
    testing of posterior estimators for general inference", who let r depend on x by any fixed rule.

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
        InputError: as `calibrate`.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = tarp(vae.model, vae.guide, data.test.batch(), num_data=100, num_draws=19)
    >>> found.names, found.ranks.shape
    (('a draw', 'the shift', 'the spread'), torch.Size([100, 3]))
    """
    bins = number_of_bins(count("num_data", num_data), count("num_draws", num_draws))
    shown = Batch.of(like, given)
    with own_randomness(seed_number(seed), shown.device), store_as_found():
        latents = Latents(model, guide, shown, data_plate=data_plate)
        ranking = Ranking(latents, shown, num_data, num_draws, rows, progress)
        (ranks,) = ranking.run([References(latents, shown, seed)])
    return _covered(ranks, num_draws, bins)


@one_at_a_time
@torch.no_grad()
def calibrate_and_cover(
    model: Program,
    guide: Program,
    like: Tensor | Batch,
    *,
    num_data: int = 1000,
    num_draws: int = 99,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[Calibration, RandomCoverage]:
    """`calibrate`, to the last bit, and `tarp` on the same simulated data and draws.

    Args:
        model: As with `calibrate`, like all that follows.
        guide: Pyro program of q(z|x).
        like: Data of the shape that the programs are called with.
        num_data: Data to draw.
        num_draws: L, draws per datum.
        seed: Of torch's random numbers.
        progress: Show a progress bar.

    Raises:
        InputError: as `calibrate`.
    """
    bins = number_of_bins(count("num_data", num_data), count("num_draws", num_draws))
    shown = Batch.of(like, None)
    with own_randomness(seed_number(seed), shown.device), store_as_found():
        latents = Latents(model, guide, shown)
        ranking = Ranking(latents, shown, num_data, num_draws, None, progress)
        margins, joint = ranking.run([Coordinates(latents), References(latents, shown, seed)])
    names = (*latents.columns(), JOINT)
    return _tested(margins, names, num_draws, bins), _covered(joint, num_draws, bins)


def _covered(ranks: Tensor, num_draws: int, bins: int) -> RandomCoverage:
    """With the χ² test from each point."""
    return RandomCoverage(ranks, REFERENCES, num_draws, bins, *chi_square(ranks, num_draws, bins))


def _verdict(rejected: bool, mean: float, variance: float) -> str:
    """By the larger of two z-scores, those of the ranks' mean and variance."""
    if not rejected:
        return "not rejected"
    if max(abs(mean), abs(variance)) < 2:
        return "of another shape"
    if abs(variance) > abs(mean):
        return "too narrow" if variance > 0 else "too wide"
    return "too far" if mean > 0 else "too near"
