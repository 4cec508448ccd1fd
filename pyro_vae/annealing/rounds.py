"""What rounds of annealing have found."""

import math
from dataclasses import dataclass
from typing import NamedTuple


class Round(NamedTuple):
    """One round of annealing."""

    #: T.
    num_temperatures: int
    #: Whether its chains are fresh, over all data, and could be the estimate; those of a pilot could not.
    counts: bool
    #: Mean of log p̂(x) over the data of this round, in nats.
    mean: float
    #: Of a pilot, a hundred at most.
    num_data: int
    #: What the mean over the data of the pilots gained from the round before, in nats; NaN of the first.
    change: float
    #: Upper less lower bound of log p(x) on simulated data, and its standard error; NaN where not measured.
    gap: float
    gap_error: float
    #: Gradients that it took: of all chains, data and simulated data, the adaptation of step sizes included.
    gradients: int


@dataclass(frozen=True, eq=False, repr=False)
class GapSearch:
    """How annealing came to its number of temperatures.

    >>> pilot = Round(16, False, -21.4, 100, change=math.nan, gap=0.3, gap_error=0.02, gradients=500_000)
    >>> fresh = Round(32, True, -21.3, 600, change=0.05, gap=0.08, gap_error=0.02, gradients=4_000_000)
    >>> search = GapSearch(wanted=0.1, rounds=(pilot, fresh), num_simulated=100, needed=30)
    >>> search.reached, search.attempts, search.gradients
    (True, 1, 4500000)
    """

    #: The gap that was asked for, in nats.
    wanted: float
    #: All rounds; the estimate is that of the last one.
    rounds: tuple[Round, ...]
    #: Simulated data of the last gap, 0 for none.
    num_simulated: int
    #: Temperatures that the last chains say are needed.
    needed: int

    @property
    def reached(self) -> bool:
        """Whether the change, and the gap where there are simulated data, are within the wanted gap."""
        return abs(self.change) <= self.wanted and not self.gap > self.wanted

    @property
    def attempts(self) -> int:
        """k, the rounds that counted when they were run: the certificate holds with δ/2^k."""
        return sum(each.counts for each in self.rounds)

    @property
    def gap(self) -> float:
        """Upper less lower bound on simulated data, with the temperatures of the estimate; NaN without."""
        return self.rounds[-1].gap

    @property
    def gap_error(self) -> float:
        """Its standard error."""
        return self.rounds[-1].gap_error

    @property
    def change(self) -> float:
        """What the mean on the data of the pilots gained in the last round, in nats."""
        return self.rounds[-1].change

    @property
    def gradients(self) -> int:
        """Of all rounds."""
        return sum(each.gradients for each in self.rounds)

    @property
    def found(self) -> str:
        """Gap and change in words."""
        error = "" if math.isnan(self.gap_error) else f" ± {self.gap_error:.3f}"  # of one datum
        gap = f"a gap of {self.gap:.3f}{error} on simulated data"
        if not self.num_simulated:
            gap = "no gap on simulated data"
        return f"{gap}, a change of {self.change:+.3f} on these"

    def __repr__(self) -> str:
        sizes = ", ".join(str(each.num_temperatures) for each in self.rounds)
        return (
            f"{self.found}, for {self.wanted:g} wanted, by rounds of {sizes} temperatures and "
            f"{self.gradients:.2g} gradients"
        )
