"""What is measured, and how much of it."""

from typing import NamedTuple


class Options(NamedTuple):
    """Sizes of all parts."""

    #: Data of each posterior, and how often each is estimated anew.
    num_data: int = 4
    repetitions: int = 4
    #: Of annealing, for each datum.
    chains: int = 16
    #: Importance samples: of the guide and of a fitted proposal, and those that moments are matched on.
    draws: tuple[int, ...] = (100, 1000, 10_000, 50_000)
    matched: tuple[int, ...] = (200, 1000, 5000, 20_000)
    #: Temperatures; of annealing in rounds those of the last one.
    temperatures: tuple[int, ...] = (10, 40, 320)
    rounds: tuple[int, ...] = (16, 64, 256)
    #: Draws of NUTS after a warm-up.
    nuts: tuple[int, ...] = (30, 200)
    warm_up: int = 100
    #: Training of the VAEs.
    epochs: int = 50
    #: References: points of a grid along each axis; chains and temperatures; importance samples.
    points: int = 401
    long: tuple[int, int] = (32, 1000)
    many: int = 100_000


#: For a trial in seconds.
SMOKE = Options(2, 2, 3, (30,), (60,), (3,), (16,), (5,), 5, 1, points=21, long=(2, 3), many=30)


class Reference(NamedTuple):
    """Log p(x) of the data of a posterior, in nats."""

    values: list[float]
    #: How it was found.
    how: str
    #: Largest distance to a second way, over the data; 0 where the first is a formula.
    distance: float
