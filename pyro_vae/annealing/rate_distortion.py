"""Rates and distortions along a path from the prior, and the mutual information of a model."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.annealing.schedules import interpolate
from pyro_vae.precision import wide

#: Temperatures at which chains are looked at, beside the first.
RECORDED = 100


@dataclass(frozen=True, eq=False)
class RateDistortion:
    """Rate and distortion of p_β(z|x) ∝ p(z) p(x|z)^β at G inverse temperatures β from 0 to 1; in float64.

    Of all q(z|x) with the same distortion, p_β(z|x) has the least rate, with this prior and likelihood, so
    that the means over the data are the rate-distortion curve of p(z) and p(x|z), whose slope is −β. At β = 1
    it is p(z|x): distortion + rate = −log p(x). Huang, Makhzani, Cao & Grosse (2020).

    >>> distortion, rate = torch.tensor([[80.0], [40.0], [30.0]]), torch.tensor([[0.0], [4.0], [6.0]])
    >>> betas, errors = torch.tensor([0.0, 0.5, 1.0]), torch.zeros(3, 1)
    >>> curve = RateDistortion(betas, distortion, rate, errors, errors)
    >>> curve.rate_at(35.0), curve.rate_at(90.0), curve.rate_at(20.0)
    (5.0, 0.0, nan)
    """

    #: β, (G,), rising.
    betas: Tensor
    #: −E log p(x|z) with z ~ p_β(z|x), in nats, (G, B).
    distortion: Tensor
    #: KL(p_β(z|x) ‖ p(z)), in nats, (G, B); too high on average, by as much as log p̂(x) is too low.
    rate: Tensor
    #: Monte Carlo standard errors by the delta method, (G, B) each.
    distortion_error: Tensor
    rate_error: Tensor

    @property
    def mean_distortion(self) -> Tensor:
        """Mean over the data, (G,)."""
        return self.distortion.mean(1)

    @property
    def mean_rate(self) -> Tensor:
        """Mean over the data, (G,)."""
        return self.rate.mean(1)

    @property
    def mean_monte_carlo_errors(self) -> tuple[Tensor, Tensor]:
        """Monte Carlo standard errors of the two means, (G,) each."""
        errors = (self.distortion_error, self.rate_error)
        first, second = (each.square().sum(1).sqrt() / each.shape[1] for each in errors)
        return first, second

    def rate_at(self, distortion: float) -> float:
        """The least mean rate at a mean distortion, linear between the temperatures; 0 above all of them.

        NaN below the distortion of p(z|x), which this curve does not reach.
        """
        falling, rates = self.mean_distortion.flip(0)[:, None], self.mean_rate.flip(0)[:, None]
        if not distortion >= float(falling[0]):
            return math.nan
        rising = falling.cummax(0).values
        wanted = torch.full_like(rising[:1], distortion)
        return float(interpolate(wanted, rising, rates))

    def __repr__(self) -> str:
        distortion, rate = float(self.mean_distortion[-1]), float(self.mean_rate[-1])
        return (
            f"rate {rate:.3f} and distortion {distortion:.3f} nats of p(z|x), from rate 0 and distortion "
            f"{float(self.mean_distortion[0]):.3f} of p(z), over {len(self.betas)} temperatures, means of "
            f"{self.rate.shape[1]} data"
        )


@dataclass(frozen=True, eq=False)
class InformationBounds:
    """Mutual information I(x; z) of p(z) p(x|z) between two stochastic bounds, by simulated data; float64.

    I = E log p(x|z) − E log p(x) over data drawn from the model: that of log p(x) from above bounds I from
    below, and the other way round, in expectation. No number of data limits it.

    >>> bounds = InformationBounds(torch.tensor([3.0, 3.5]), torch.tensor([3.25, 3.75]))
    >>> bounds.mean_lower, bounds.mean_upper
    (3.25, 3.5)
    """

    #: log p(x|z) less the upper bound of log p(x), in nats, (B,).
    lower: Tensor
    #: log p(x|z) less the lower bound of log p(x), in nats, (B,).
    upper: Tensor

    @property
    def mean_lower(self) -> float:
        """A lower bound of I(x; z) in expectation, in nats."""
        return float(self.lower.mean())

    @property
    def mean_upper(self) -> float:
        """An upper bound of I(x; z) in expectation, in nats."""
        return float(self.upper.mean())

    @property
    def standard_errors(self) -> tuple[float, float]:
        """Of the two, over other data of the model; NaN for one datum."""
        lower, upper = (
            float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.nan
            for each in (self.lower, self.upper)
        )
        return lower, upper

    def __repr__(self) -> str:
        errors = self.standard_errors
        return (
            f"I(x; z) of the model is at least {self.mean_lower:.3f} ± {errors[0]:.3f} and at most "
            f"{self.mean_upper:.3f} ± {errors[1]:.3f} nats, by {len(self.lower)} simulated data"
        )


def recorded_steps(num_temperatures: int) -> list[int]:
    """The steps, from 0 to T, before which chains are looked at: all, or `RECORDED` evenly spread ones."""
    number = min(num_temperatures, RECORDED)
    return [round(num_temperatures * place / number) for place in range(number + 1)]


def look_at(beta: Tensor, log_weights: Tensor, log_px: Tensor) -> Tensor:
    """Distortion, rate and their errors at β (B,), by chains with log weights for p_β and log p(x|z): (5, B).

    log weights and log p(x|z) are (C, B). The first row is β. E_β f = Σ w f / Σ w, and
    KL(p_β ‖ p(z)) = β E_β log p(x|z) − log Z_β with Z_β the mean of w.
    """
    num = len(log_weights)
    share = log_weights.softmax(0)
    log_px = wide(log_px)
    mean = torch.where(share > 0, share * log_px, 0.0).sum(0)
    # how much each chain moves the two
    moves = torch.where(share > 0, share * (log_px - mean), 0.0)
    log_z = log_weights.logsumexp(0) - math.log(num)
    rate = torch.where(beta > 0, beta * mean - log_z, 0.0)
    of_rate = torch.where(beta > 0, beta * moves - (share - 1 / num), 0.0)
    factor = num / (num - 1) if num > 1 else math.nan
    errors = [(factor * each.square().sum(0)).sqrt() for each in (moves, of_rate)]
    return torch.stack([wide(beta), -mean, rate, *errors])


def curve_of(record: Tensor) -> RateDistortion:
    """The curve of what `look_at` gave at each recorded step: (G, 5, B)."""
    own, *values = record.unbind(1)
    betas = own.mean(1)
    if not bool((own == own[:, :1]).all()):  # of a schedule for each datum
        wanted = betas[:, None].expand_as(own).contiguous()
        values = [interpolate(wanted, own, each) for each in values]
    return RateDistortion(betas, *values)
