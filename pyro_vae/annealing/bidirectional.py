"""Bidirectional Monte Carlo: log p(x) of simulated data between two bounds."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.annealing.options import AnnealingOptions, Schedule, Start
from pyro_vae.annealing.rate_distortion import InformationBounds
from pyro_vae.annealing.runner import Runner, resumable, simulated
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.batch import Batch, Given
from pyro_vae.compiled import Compile
from pyro_vae.errors import count
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, Simulated, one_at_a_time


@dataclass(frozen=True, eq=False)
class BidirectionalGap:
    """Two stochastic bounds of log p(x) on data drawn from the model, per datum, in float64.

    >>> lower, upper = torch.tensor([-20.0, -22.0]), torch.tensor([-19.75, -21.75])
    >>> found = BidirectionalGap(
    ...     lower=lower,
    ...     upper=upper,
    ...     gap=upper - lower,
    ...     lower_error=torch.tensor([0.1, 0.1]),
    ...     upper_error=torch.tensor([0.1, 0.1]),
    ...     acceptance=torch.tensor([0.65, 0.64]),
    ...     x=torch.zeros(2, 3),
    ...     log_likelihood=torch.tensor([-17.0, -18.0]),
    ...     num_chains=16,
    ...     num_temperatures=1000,
    ... )
    >>> found.mean, found.information.mean_lower, found.information.mean_upper
    (0.25, 3.25, 3.5)
    """

    #: log 1/C Σ w by forward chains, a lower bound of log p(x) in expectation, in nats, (B,).
    lower: Tensor
    #: −log 1/C Σ 1/w by reverse chains, an upper bound in expectation, in nats, (B,).
    upper: Tensor
    #: upper − lower, (B,); its mean over chains and data is not negative.
    gap: Tensor
    #: Monte Carlo standard error of lower by the delta method, in nats, (B,).
    lower_error: Tensor
    #: That of upper given z, which all reverse chains share: over other z, upper varies more, (B,).
    upper_error: Tensor
    #: Mean acceptance probability of the transitions, forward and reverse, (B,).
    acceptance: Tensor
    #: The data, drawn from the model, (B, *data_shape).
    x: Tensor
    #: log p(x|z) at the z from which x was drawn, (B,).
    log_likelihood: Tensor
    #: C.
    num_chains: int
    #: T.
    num_temperatures: int

    @property
    def mean(self) -> float:
        """The mean gap over the data, in nats."""
        return float(self.gap.mean())

    @property
    def mean_standard_error(self) -> float:
        """Its standard error, by the spread over the data; NaN for one datum."""
        return float(self.gap.std() / math.sqrt(len(self.gap))) if len(self.gap) > 1 else math.nan

    @property
    def information(self) -> InformationBounds:
        """Mutual information I(x; z) of the model between two bounds.

        Brekelmans, Huang, Ghassemi, Ver Steeg, Grosse & Makhzani (2022), "Improving mutual information
        estimation with annealed and energy-based bounds".
        """
        return InformationBounds(self.log_likelihood - self.upper, self.log_likelihood - self.lower)

    def __repr__(self) -> str:
        return (
            f"log p(x) of {len(self.gap)} simulated data lies between {self.lower.mean():.3f} and "
            f"{self.upper.mean():.3f} nats in the mean: a gap of {self.mean:.3f} ± "
            f"{self.mean_standard_error:.3f} (chains each: {self.num_chains}, temperatures: "
            f"{self.num_temperatures})"
        )


@one_at_a_time
def bidirectional_gap(
    model: Program,
    guide: Program,
    num_data: int = 100,
    *,
    like: Tensor | Batch,
    given: Given | None = None,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    start: Start = "prior",
    schedule: Schedule = "sigmoid",
    leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    rows: int | None = None,
    compile: Compile = "auto",
    data_plate: str | None = None,
    progress: bool | None = None,
    checkpoint: Path | str | None = None,
) -> BidirectionalGap:
    """Bounds of log p(x) from below and above, on data drawn from the model.

    Grosse, Ghahramani & Adams (2015). Of z ~ p(z), x ~ p(x|z), z is an exact draw from p(z|x). Forward chains
    as in `annealed_log_evidence` give E[w] = p(x); chains that start at z and run the same frozen transitions
    backwards give E[1/w] = 1/p(x):

        E[log 1/C Σ w]  ≤  log p(x)  ≤  E[−log 1/C Σ 1/w].

    The gap is how far annealing with these options can be off, on data of the model. For real data there
    is no exact draw: the forward estimate stays a lower bound in expectation, and the gap is evidence that it
    is tight, the better the more the data look like those of the model, but no proof. The upper bound needs
    p(x|z) > 0 for every z to become tight: chains in reverse never reach where it is 0. The same bounds hold
    the model's mutual information I(x; z) = E log p(x|z) − E log p(x) between two numbers, `.information`.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size; it observes
            all of x, at one site or at several.
        guide: Pyro program of q(z|x), called likewise.
        num_data: B, data to simulate.
        like: Data (at least one) of the shape, type and device of what the model is called with.
        given: What lies beside `like`, by the programs' arguments. It is kept, and of simulated data the
            first has that of the first datum, and so on over again; what the model observes of it is drawn
            anew.
        num_chains: C, chains per datum and direction; those in reverse start at the same z.
        num_temperatures: As with `annealed_log_evidence`, like the further options.
        start: Likewise.
        schedule: Likewise.
        leapfrog_steps: Likewise.
        target_acceptance: Likewise.
        rows: Likewise.
        compile: Likewise.
        data_plate: Likewise.
        progress: Show a progress bar; by default in a terminal and in a notebook.
        checkpoint: Likewise.

    Raises:
        InputError: as `annealed_log_evidence`; where a latent site is masked; and where the model does not
            observe all of x, or x changed, or has densities that depend on x (an autoregressive decoder).

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> x = data.test.batch()
    >>> found = bidirectional_gap(vae.model, vae.guide, 4, like=x, num_chains=4, num_temperatures=5)
    >>> found.gap.shape
    torch.Size([4])
    """
    options = AnnealingOptions(
        num_chains, num_temperatures, start, schedule, leapfrog_steps, target_acceptance, rows, compile
    ).checked()
    num_data = count("num_data", num_data)
    shown = Batch.of(like, given)
    latents = Latents(model, guide, shown, data_plate=data_plate)
    what = "bidirectional_gap"
    with resumable(checkpoint, what, options, latents, shown, num_data=num_data) as kept:
        drawn = simulated(latents, shown, num_data, kept)
        runner = Runner(latents, options, drawn.batch, drawn.u, progress=progress, resumable=kept)
        forward, reverse = runner.run()
    lower, upper = estimate_of(forward.log_weights), estimate_of(-reverse.log_weights)
    return BidirectionalGap(
        lower.estimate,
        -upper.estimate,
        -upper.estimate - lower.estimate,
        lower.standard_error,
        upper.standard_error,
        (forward.acceptance + reverse.acceptance) / 2,
        drawn.batch.x,
        _log_likelihood(latents, drawn),
        options.num_chains,
        options.num_temperatures,
    )


@torch.no_grad()
def _log_likelihood(latents: Latents, drawn: Simulated) -> Tensor:
    """Log p(x|z) of data at the latents that they were drawn from: (B,)."""
    rows = latents.pair.rows
    parts = zip(drawn.batch.split(rows), drawn.u.split(rows), strict=True)
    found = [latents.log_probs(batch, u[None], guide=False).log_px[0] for batch, u in parts]
    return wide(torch.cat(found))
