"""How many temperatures a gap takes, and through which rounds of them one gets there."""

import math
from functools import lru_cache

import torch
from torch import Tensor

#: The largest standard deviation of a log weight that is told from others, in nats.
_WIDEST = 6.0
#: What counts has at most so many times the temperatures of the last pilot.
_GROWTH = 2.5


def temperatures_for(
    gap: float, squared: Tensor, *, num_chains: int, num_data: int, num_simulated: int
) -> int:
    """The fewest temperatures T for which annealing is expected within `gap`.

    Along equal lengths a log weight has the variance Λ²/T, Λ being the barrier of a datum, and is
    nearly normal (Syed, Bouchard-Côté, Chern & Doucet 2024; for chains that mix at once Λ = ∫ sd_β dβ). Of C
    log-normal weights, log p̂(x) is then low by b and has the variance v, with b ≈ v/2 ≈ Λ²/2TC where T is
    large. Asked for are that these be within `gap`, b and v being averaged over the data:

        log p̂(x) itself, with two standard errors:          b(T) + 2 √(v(T)/N),
        its change from T/2, with one:           b(T/2) − b(T) + √((v(T/2) + v(T))/N),
        upper − lower on S simulated data, with one:        2b(T) + √(2v(T)/S).

    Args:
        gap: In nats.
        squared: Λ² of each datum, (B,), or what chains have had in its place.
        num_chains: C.
        num_data: N, over which estimates are averaged.
        num_simulated: S; 0 for none.

    >>> temperatures_for(0.05, torch.tensor([40.0]), num_chains=16, num_data=10_000, num_simulated=10_000)
    70
    """
    low_by, variances = _lognormal(num_chains)

    def at(number: float) -> tuple[float, float]:
        places = (squared.cpu().double() / number).sqrt().clamp(max=_WIDEST) * (len(low_by) - 1) / _WIDEST
        left = places.long().clamp(max=len(low_by) - 2)
        return tuple(
            float(torch.lerp(y[left], y[left + 1], places - left).mean()) for y in (low_by, variances)
        )  # type: ignore[return-value]

    def expected(number: float) -> float:
        (low, variance), (half_low, half_variance) = at(number), at(number / 2)
        itself = low + 2 * math.sqrt(variance / num_data)
        change = half_low - low + math.sqrt((half_variance + variance) / num_data)
        apart = 2 * low + math.sqrt(2 * variance / num_simulated) if num_simulated else 0.0
        return max(itself, change, apart)

    high = 1.0
    while expected(high) > gap:
        high *= 2
    low = high / 2
    while high > 1 and high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) > gap else (low, middle)
    return math.ceil(high)


@lru_cache
def _lognormal(num_chains: int) -> tuple[Tensor, Tensor]:
    """−E log m and var log m of the mean m of C weights exp(s ε − s²/2), at s from 0 to `_WIDEST`.

    By fixed draws; −E log m = E (m − 1 − log m), which has little noise.
    """
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(num_chains, max(64_000 // num_chains, 200), generator=generator, dtype=torch.float64)
    found = []
    for s in torch.linspace(0, _WIDEST, 121, dtype=torch.float64):
        log_mean = (s * draws - s**2 / 2).logsumexp(0) - math.log(num_chains)
        found.append(torch.stack([(log_mean.expm1() - log_mean).mean(), log_mean.var()]))
    low_by, variances = torch.stack(found, 1)
    return low_by, variances


def next_round(last: int, needed: int, most: int) -> tuple[int, bool]:
    """The temperatures of the round after one of `last`, and whether they are those that are needed.

    Each has twice those of the one before, or fewer for the last pilot to have half of what is needed: chains
    of far too few temperatures say little of what that is.

    >>> next_round(16, 300, 1000), next_round(64, 200, 1000), next_round(100, 210, 1000)
    ((32, False), (100, False), (210, True))
    """
    aim = min(max(needed, 2 * last), most)
    if aim <= _GROWTH * last:
        return aim, True
    return min(aim // 2, 2 * last), False


def chains_barrier(log_weights: Tensor, barrier: Tensor, num_temperatures: int) -> Tensor:
    """T log(1 + var w / (E w)²), which Λ² would be if chains mixed at once, but Λ² where that is more: (B,).

    Of log-normal weights this is T var log w; where chains lag, log w has a long tail to the left, which
    makes its variance larger and the mean of the weights no worse.

    Args:
        log_weights: Of T temperatures, (C, B).
        barrier: Λ, (B,).
        num_temperatures: T.
    """
    num = len(log_weights)
    relative = (num * log_weights.softmax(0).square().sum(0) - 1) * num / (num - 1)
    found = num_temperatures * relative.clamp(min=0).log1p()
    return torch.maximum(found.nan_to_num(0.0), barrier.square())
