"""The law of the total of independent counts, by their characteristic functions."""

import math

import torch
from torch import Tensor

#: Rows whose characteristic functions are held at once.
_ROWS = 200


def binomial_logits(means: Tensor, dispersion: Tensor) -> Tensor:
    """The logits by which torch's negative binomial of count θ has these means."""
    return means.log() - dispersion.log()


def log_p_of_totals(
    totals: Tensor, means: Tensor, dispersion: Tensor | None, log_weights: Tensor, *, length: int = 4096
) -> Tensor:
    """Log P(n) = log Σ_r w_r P_r(n), n = Σ_d x_d of independent x_d of these means in row r: (B,).

    E[s^x_d] is (1 + m_d (1 − s) / θ_d)^−θ_d for negative binomial counts, exp(−m_d (1 − s)) for Poisson ones,
    at s = exp(−2πi j / length); P is the inverse Fourier transform. Totals from `length` on are folded back,
    so it must lie far above them.

    Args:
        totals: (B,), whole numbers below `length`.
        means: (R, D).
        dispersion: θ, (D,); None for Poisson.
        log_weights: log w, (R,).
        length: Of the transform, even.

    >>> found = log_p_of_totals(torch.tensor([3]), torch.tensor([[1.0, 2.0]]).double(), None, torch.zeros(1))
    >>> round(float(found.exp()), 4)  # Poisson of mean 3
    0.224
    """
    angles = 2 * math.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length
    gap = 1 - torch.polar(torch.ones_like(angles), -angles)  # 1 − s
    total = torch.zeros(len(gap), dtype=torch.complex128)
    for part, weights in zip(means.split(_ROWS), log_weights.double().split(_ROWS), strict=True):
        total += (weights.exp()[:, None] * _log_characteristic(part, dispersion, gap).exp()).sum(0)
    return torch.fft.irfft(total, n=length)[totals.long()].clamp(min=1e-300).log()


def _log_characteristic(means: Tensor, dispersion: Tensor | None, gap: Tensor) -> Tensor:
    """Σ_d log E[s^x_d] of each row: (R, length / 2 + 1)."""
    if dispersion is None:
        return -means.sum(1)[:, None] * gap
    total = torch.zeros(len(means), len(gap), dtype=torch.complex128)
    for mean, theta in zip(means.T, dispersion.tolist(), strict=True):
        total -= theta * torch.log1p(mean[:, None] * gap / theta)
    return total
