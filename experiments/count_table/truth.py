"""The program that the counts come from, with its log p in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.count_table.totals import binomial_logits, log_p_of_totals

#: Points of the quadrature over the library size.
POINTS = 400


class Truth(NamedTuple):
    """Cells of a few types, as counts of D genes: x_d ~ NB of mean e m_td and variance mean + mean² / θ_d.

    The library size e is log-normal with mean 1; the type t is drawn by its share.
    """

    #: Of the T types, (T,).
    shares: Tensor
    #: m, the mean counts of a cell of size 1, (T, D).
    means: Tensor
    #: θ, (D,).
    dispersion: Tensor
    #: Standard deviation of log e.
    spread: float

    @property
    def law_of_log_size(self) -> torch.distributions.Normal:
        """Of log e."""
        return torch.distributions.Normal(torch.tensor(-(self.spread**2) / 2).double(), self.spread)

    def sample(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Counts (N, D) and library sizes (N,)."""
        types = torch.multinomial(self.shares, num, replacement=True, generator=generator)
        noise = torch.randn(num, generator=generator, dtype=torch.float64)
        sizes = (noise * self.spread - self.spread**2 / 2).exp()
        means = sizes[:, None] * self.means[types]
        rates = torch._standard_gamma(self.dispersion.expand_as(means), generator=generator)
        counts = torch.poisson(rates * means / self.dispersion, generator=generator)
        return counts, sizes

    def log_p_given_size(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Log p(x|e) = log Σ_t share_t Π_d NB(x_d; e m_td, θ_d): (..., B) of x (B, D) and e (..., B)."""
        means = sizes[..., None, None] * self.means  # (..., B, T, D)
        logits = binomial_logits(means, self.dispersion)
        law = torch.distributions.NegativeBinomial(self.dispersion, logits=logits, validate_args=False)
        return (law.log_prob(x[:, None]).sum(-1) + self.shares.log()).logsumexp(-1)

    def log_p(self, x: Tensor) -> Tensor:
        """Log p(x) = log ∫ p(e) p(x|e) de, by the trapezoidal rule in log e: (B,)."""
        log_size, log_weight = self.grid()
        parts = [
            (self.log_p_given_size(each, log_size.exp()[:, None].expand(-1, len(each))) + log_weight[:, None])
            for each in x.split(50)
        ]
        return torch.cat(parts, 1).logsumexp(0)

    def log_p_of_totals(self, totals: Tensor) -> Tensor:
        """Log P(n) of n = Σ_d x_d, by the same rule over e: (B,)."""
        log_size, log_weight = self.grid()
        means = (log_size.exp()[:, None, None] * self.means).flatten(0, 1)  # (points · T, D)
        weights = (log_weight[:, None] + self.shares.log()).flatten()
        return log_p_of_totals(totals, means, self.dispersion, weights)

    def grid(self) -> tuple[Tensor, Tensor]:
        """Points of log e, eight deviations to both sides, and the logarithm of their weights."""
        law = self.law_of_log_size
        points = law.mean + self.spread * torch.linspace(-8, 8, POINTS, dtype=torch.float64)
        return points, law.log_prob(points) + math.log(float(points[1] - points[0]))


def truth_of(genes: int, total: float = 200.0) -> Truth:
    """Three types with shares of 0.5, 0.3 and 0.2, and about `total` counts in a cell of size 1."""
    generator = torch.Generator().manual_seed(0)
    base, own = (torch.randn(size, generator=generator).double() for size in ((1, genes), (3, genes)))
    means = total * (1.0 * base + 0.7 * own).softmax(-1)
    dispersion = torch.empty(genes).uniform_(0.0, 2.0, generator=generator).double().exp()  # 1 to 7.4
    return Truth(torch.tensor([0.5, 0.3, 0.2]).double(), means, dispersion, spread=0.5)


def data_of(truth: Truth, sizes: tuple[int, int, int]) -> pv.Dataset:
    """A table with the library size as its field `exposure`."""
    generator = torch.Generator().manual_seed(1)
    parts = [truth.sample(size, generator) for size in sizes]
    names = ("train", "valid", "test")
    fields = {name: {"exposure": size.float()} for name, (_, size) in zip(names, parts, strict=True)}
    return pv.Dataset(*(x.long() for x, _ in parts), form=pv.Counts(), fields=fields, given=())
