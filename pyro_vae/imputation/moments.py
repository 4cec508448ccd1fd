"""Sums over weighted draws that come in chunks."""

import torch
from torch import Tensor


class WeightedMoments:
    """Mean, variance and Monte Carlo error under self-normalised weights, of draws that are not kept.

    With centres c near the mean, sums are of w, w², w (m − c), …, all relative to the largest weight so far.
    """

    def __init__(self) -> None:
        self._largest: Tensor | None = None
        self._sums: list[Tensor] = []

    def add(self, log_w: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Add draws: log w (K, B), E[x|z] and var[x|z] (K, B, D)."""
        largest = log_w.amax(0)
        if self._largest is None:
            share = log_w.softmax(0)[..., None]
            self._centre = (share * mean).sum(0).nan_to_num()
        else:
            largest = torch.maximum(self._largest, largest)
        w = (log_w - largest).exp()[..., None]
        d = mean - self._centre
        new = [
            w.sum(0),
            (w * d).sum(0),
            (w * (d.square() + variance)).sum(0),
            w.square().sum(0),
            (w.square() * d).sum(0),
            (w.square() * d.square()).sum(0),
        ]
        if self._largest is not None:
            scale = (self._largest - largest).exp()[:, None]
            powers = [1, 1, 1, 2, 2, 2]
            new = [n + o * scale**power for n, o, power in zip(new, self._sums, powers, strict=True)]
        self._largest, self._sums = largest, new

    @property
    def mean(self) -> Tensor:
        """Σ w̄ E[x|z]: (B, D)."""
        return self._centre + self._sums[1] / self._sums[0]

    @property
    def standard_deviation(self) -> Tensor:
        """√(Σ w̄ (var[x|z] + E[x|z]²) − mean²): (B, D)."""
        d = self._sums[1] / self._sums[0]
        return (self._sums[2] / self._sums[0] - d.square()).clamp(min=0).sqrt()

    @property
    def standard_error(self) -> Tensor:
        """√(Σ w̄² (E[x|z] − mean)²): (B, D)."""
        d = self._sums[1] / self._sums[0]
        squares = self._sums[5] - 2 * d * self._sums[4] + d.square() * self._sums[3]
        return squares.clamp(min=0).sqrt() / self._sums[0]


class Resampled:
    """M draws, each one of all weighted ones with a probability in proportion to its weight.

    Each of the M places holds one of the draws seen so far; a new chunk takes it over with the probability
    that its share of the weights is, so that the draws themselves need not be kept (Chao 1982).

    Args:
        num: M.
    """

    def __init__(self, num: int) -> None:
        self.num = num
        self.values = torch.empty(0)
        self._total: Tensor | None = None

    def add(self, log_w: Tensor, values: Tensor) -> None:
        """Add draws: log w (K, B), values (K, B, D)."""
        chosen = _picked(values, log_w, self.num)
        new = log_w.logsumexp(0)
        if self._total is None:
            self._total, self.values = new, chosen
            return
        self._total = torch.logaddexp(self._total, new)
        share = (new - self._total).exp()
        replace = torch.rand(chosen.shape[:2], device=chosen.device).to(share.device) < share
        self.values = torch.where(replace.to(chosen.device)[..., None], chosen, self.values)


def _picked(values: Tensor, log_w: Tensor, num: int) -> Tensor:
    """`num` of the draws of each datum by their weights: (num, B, D)."""
    shares = log_w.softmax(0).nan_to_num(nan=1.0)
    index = torch.multinomial(shares.T, num, replacement=True).T.to(values.device)  # (num, B)
    return values.gather(0, index[..., None].expand(-1, -1, values.shape[-1]))
