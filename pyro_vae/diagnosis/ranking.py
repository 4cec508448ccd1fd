"""Ranks of the latents that data were drawn from among draws from q(z|x), and their tests."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.diagnosis.common import holm
from pyro_vae.errors import InputError, count
from pyro_vae.precision import home, wide
from pyro_vae.programs import Latents, simulate
from pyro_vae.progress import progress_bar

#: More bins than this see no more of a shape that matters, fewer than four no U.
_BINS = (4, 20)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of the truth among draws from q(z|x), on data drawn from the model; on the CPU.

    Uniform on 0 … L for the exact posterior, in each of Q quantities.
    """

    #: Number of draws that lie below the truth, (num_data, Q), whole numbers from 0 to L.
    ranks: Tensor
    #: The Q quantities.
    names: tuple[str, ...]
    #: L, draws per datum.
    num_draws: int
    #: Bins of equal numbers of ranks, for the χ² test.
    bins: int
    #: Pearson's χ² of the ranks against the uniform distribution, `bins` − 1 degrees of freedom, (Q,).
    chi_square: Tensor
    #: Probability of a χ² at least as large for the exact posterior, (Q,).
    p_value: Tensor

    @property
    def rejected(self) -> tuple[bool, ...]:
        """Whether each quantity's ranks are not uniform, by Holm's (1979) test at 5 % over all of them."""
        return holm(self.p_value)


class Quantities(ABC):
    """Functions f of x and u: the rank of f(truth) among f(draws) is uniform where q(z|x) is the posterior.

    What they draw for themselves they draw in `randomness`, so that the simulated data and the draws are the
    same whichever quantities are ranked beside one another.
    """

    @abstractmethod
    def of(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The functions at simulated data, from u (K, B, n) to (K, B, Q)."""

    def randomness(self) -> AbstractContextManager[object]:
        """Around all that these quantities draw; by default the random numbers at hand."""
        return nullcontext()


class Ranking:
    """Simulated data, draws from the guide, and the ranks of any quantities on them.

    Args:
        latents: Of the programs.
        like: Data of the shape that they are called with.
        num_data: Data to draw.
        num_draws: L, draws per datum.
        rows: Draws handled at once; None for as many as fit a CPU's cache.
        progress: Show a progress bar; by default in a terminal and in a notebook.
    """

    def __init__(
        self,
        latents: Latents,
        like: Batch,
        num_data: int,
        num_draws: int,
        rows: int | None,
        progress: bool | None,
    ) -> None:
        self.latents, self.like, self.progress = latents, like, progress
        self.num_data, self.num_draws = num_data, num_draws
        self.rows = count("rows", latents.pair.rows if rows is None else rows)

    def run(self, tests: Sequence[Quantities]) -> list[Tensor]:
        """The ranks of each of several sets of quantities, from 0 to L: (num_data, Q) each, on the CPU."""
        size = max(self.rows // self.num_draws, 1)
        parts = []
        with progress_bar(self.progress, total=self.num_data, desc="calibration", unit="data") as bar:
            for start in range(0, self.num_data, size):
                number = min(size, self.num_data - start)
                parts.append([ranks.cpu() for ranks in self._ranks(tests, number)])
                bar.update(number)
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def _ranks(self, tests: Sequence[Quantities], number: int) -> list[Tensor]:
        """Ranks on `number` new data, as many draws of each at a time as `rows` allows."""
        batch, truth = simulate(self.latents, self.like, number)
        functions = []
        for test in tests:
            with test.randomness():
                functions.append(test.of(batch))
        true = [function(truth[None]) for function in functions]
        below, ties = ([torch.zeros_like(each[0], dtype=torch.int64) for each in true] for _ in range(2))
        chunk = max(self.rows // number, 1)
        for start in range(0, self.num_draws, chunk):
            u = self.latents.from_guide(batch, min(chunk, self.num_draws - start))
            for place, function in enumerate(functions):
                draws = function(u)
                below[place] += (draws < true[place]).sum(0)
                ties[place] += (draws == true[place]).sum(0)
        return [_broken(*each) for each in zip(tests, below, ties, strict=True)]


def _broken(test: Quantities, below: Tensor, ties: Tensor) -> Tensor:
    """Ranks with ties broken at random."""
    with test.randomness():
        # in float64, so that the product stays below ties + 1
        uniform = torch.rand(ties.shape, dtype=torch.float64, device=home(ties.device))
    return below + (uniform * (ties + 1).to(uniform.device)).long().to(below.device)


def chi_square(ranks: Tensor, num_draws: int, bins: int) -> tuple[Tensor, Tensor]:
    """Pearson's χ² of ranks (N, Q) against the uniform distribution in `bins` bins, and its p-value: (Q,)."""
    from scipy import stats  # slow to import

    width = (num_draws + 1) // bins
    counts = torch.stack([(ranks // width == number).sum(0) for number in range(bins)])
    statistic, p_value = stats.chisquare(counts.numpy())
    return torch.as_tensor(statistic), torch.as_tensor(p_value)


def mean_z(ranks: Tensor, num_draws: int) -> Tensor:
    """Mean of ranks (N, Q) against L/2, in standard errors: positive where the truth lies high, (Q,)."""
    size = num_draws + 1
    variance = (size**2 - 1) / 12
    return (wide(ranks).mean(0) - num_draws / 2) / math.sqrt(variance / len(ranks))


def variance_z(ranks: Tensor, num_draws: int) -> Tensor:
    """Variance of ranks (N, Q) against ((L+1)² − 1)/12, in standard errors: positive for a U, (Q,)."""
    size = num_draws + 1
    variance = (size**2 - 1) / 12
    fourth = (size**2 - 1) * (3 * size**2 - 7) / 240
    error = math.sqrt((fourth - variance**2) / len(ranks))
    return (wide(ranks).var(0, correction=0) - variance) / error


def number_of_bins(num_data: int, num_draws: int) -> int:
    """The largest number of equal bins of the ranks that leaves five data to each."""
    low, high = _BINS
    divisors = [bins for bins in range(low, high + 1) if (num_draws + 1) % bins == 0]
    if not divisors:
        raise InputError(
            f"num_draws + 1 expects a divisor from {low} to {high}, to cut the ranks into equal bins, got "
            f"num_draws {num_draws}: take {-(-(num_draws + 1) // high) * high - 1}"
        )
    fitting = [bins for bins in divisors if 5 * bins <= num_data]
    if not fitting:
        raise InputError(
            f"num_data expects at least {5 * divisors[0]}, five in each of {divisors[0]} bins, got {num_data}"
        )
    return fitting[-1]
