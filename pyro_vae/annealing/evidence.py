"""log p(x) by annealed importance sampling."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.annealing.options import AnnealingOptions, Schedule, Start, usual_temperatures
from pyro_vae.annealing.rate_distortion import RateDistortion, curve_of
from pyro_vae.annealing.rounds import GapSearch
from pyro_vae.annealing.runner import Runner, Weights, resumable
from pyro_vae.annealing.search import Search, Wanted, check_simulated, warn_of_gap
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.batch import Batch, Given
from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError
from pyro_vae.importance.results import OverData, warn_of_zeros
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time


@dataclass(frozen=True, eq=False)
class AnnealedEvidence(OverData):
    """Log p(x) by annealed importance sampling, log 1/C Σ_c w_c, per datum, in float64.

    A lower bound in expectation (Jensen's inequality), tightening with chains and temperatures.

    >>> found = AnnealedEvidence(
    ...     estimate=torch.tensor([-20.0, -22.0]),
    ...     standard_error=torch.tensor([0.3, 0.4]),
    ...     effective_sample_size=torch.tensor([9.0, 1.4]),
    ...     largest_share=torch.tensor([0.2, 0.8]),
    ...     acceptance=torch.tensor([0.65, 0.64]),
    ...     num_chains=16,
    ...     num_temperatures=1000,
    ... )
    >>> found.mean, round(found.mean_monte_carlo_error, 2), round(found.certificate(), 3)
    (-21.0, 0.25, -22.498)
    """

    #: Mean acceptance probability of the transitions, (B,); NaN where there are none.
    acceptance: Tensor
    #: C.
    num_chains: int
    #: T.
    num_temperatures: int
    #: Rate and distortion on the way from the prior; None where the chains start at the guide.
    rate_distortion: RateDistortion | None = None
    #: Λ = ∫ sd_β dβ, the thermodynamic length of the way from β = 0 to 1, sd_β being the standard deviation
    #: at β of the log ratio of joint density to start: by the pilot, NaN where there is none, (B,).
    barrier: Tensor | None = None
    #: How T was found; None where it was given.
    search: GapSearch | None = None

    @property
    def attempts(self) -> int:
        """k, the rounds that counted when they were run; 0 where T was given."""
        return 0 if self.search is None else self.search.attempts

    def _quality(self) -> dict[str, str]:
        poor = int((self.effective_sample_size < 2).sum())
        rows = {
            "chains each, temperatures": f"{self.num_chains}, {self.num_temperatures}",
            "fewer than two effective chains": f"{poor} data",
        }
        if self.num_temperatures > 1:
            rows["acceptance"] = f"{self.acceptance.mean():.2f}"
        return rows

    def __repr__(self) -> str:
        moved = self.num_temperatures > 1
        acceptance = f", acceptance {self.acceptance.mean():.2f}" if moved else ""
        poor = int((self.effective_sample_size < 2).sum())
        return (
            f"log p(x) = {self.mean:.3f} ± {self.mean_standard_error:.3f} nats, mean of {len(self.estimate)} "
            f"data by annealing (chains each: {self.num_chains}, temperatures: {self.num_temperatures}; "
            f"Monte Carlo error {self.mean_monte_carlo_error:.3f}{acceptance}); a lower bound in "
            f"expectation, with less than two effective chains for {poor} of the data"
            + ("" if self.search is None else f"; {self.search}")
        )


@one_at_a_time
def annealed_log_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_chains: int = 16,
    num_temperatures: int | None = None,
    start: Start = "prior",
    schedule: Schedule = "sigmoid",
    leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    rows: int | None = None,
    compile: Compile = "auto",
    data_plate: str | None = None,
    progress: bool | None = None,
    checkpoint: Path | str | None = None,
    until_gap: float | None = None,
    num_simulated: int | None = None,
) -> AnnealedEvidence:
    """Log p(x) of each datum by annealed importance sampling (Neal 2001), for any continuous latents.

    Chains move through the unconstrained latents u of all sites along the densities
    π_β ∝ start(u)^(1−β) p(x, u)^β, β = β_0 … β_T from 0 to 1:

        log w = Σ_t (β_t − β_{t−1}) (log p(x, u_{t−1}) − log start(u_{t−1})),    log p̂(x) = log 1/C Σ_c w_c,

    u_0 from the start, u_t from u_{t−1} by a transition of Hamiltonian Monte Carlo that leaves π_{β_t} as it
    is. E[w] = p(x), so that log p̂(x) is a lower bound in expectation. Step sizes, and an adaptive schedule,
    are found for each datum in a pilot run with chains and random numbers of its own, and then frozen:
    adapted in the run, they would depend on the chains, and E[w] would not be p(x). The pilot has a fifth of
    the temperatures, 40 at the least and 400 at the most. Masses are the precisions of start and guide. With
    T = 1 this is importance sampling from the start. Densities with poles, as Beta(0.1, 0.1), need float64.
    From the prior the path is p(z) p(x|z)^β, and the result has, at no cost, the curve of the least rate at
    each distortion (Huang, Makhzani, Cao & Grosse, "Evaluating lossy compression rates of deep generative
    models", 2020). Discrete sites marked `infer={"enumerate": "parallel"}` are summed out while the others
    move; a latent under a mask moves by its own density, which cancels. The defaults are those of Wu, Burda,
    Salakhutdinov & Grosse, "On the quantitative analysis of decoder-based generative models" (2017), who had
    T = 10,000.

    With `until_gap` T is found: pilots of about doubled T, on a hundred data at most, place the temperatures
    at equal thermodynamic length Λ, and the variance of their log weights, Λ²/T where chains mix at once,
    foretells the T that is needed (Syed, Bouchard-Côté, Chern & Doucet, "Optimised annealed sequential Monte
    Carlo samplers", 2024). The bounds of `bidirectional_gap` on data drawn from the model must be within the
    gap with that T, before *fresh* chains with frozen steps, over all data, give the estimate. It is the
    result where the mean has changed by no more than the gap since the last pilot, of half as many
    temperatures or so; else T is doubled once more. `result.search` has all rounds and what they took. The
    gap is one of the mean over the data, not of each datum.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), on the device of the programs.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_chains: C, chains per datum.
        num_temperatures: T, steps from β = 0 to 1, by default 1000; with until_gap at the most, 10,000.
        start: `prior` starts at p(z), so that the guide gives masses only; `guide` starts at q(z|x), which
            takes fewer temperatures where q is good, and may miss what q misses.
        schedule: `sigmoid`; `linear`; `adaptive`, at equal lengths by the spread of the log ratio of joint
            density to start in the pilot, which takes two chains at least, and what until_gap takes.
        leapfrog_steps: Gradients per transition.
        target_acceptance: What the step sizes are adapted to.
        rows: Data times chains handled at once, the chains of a datum never apart; by default as with
            `log_evidence`.
        compile: `off` runs the Pyro programs, `flat` the torch operations that they consist of, on a CPU the
            faster ones that agree up to rounding, `inductor` compiles these; `auto` takes what pays.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show a progress bar; by default in a terminal and in a notebook.
        checkpoint: A file that keeps the state every few seconds, and from which the same call goes on to
            the very same result; it is gone at the end.
        until_gap: Find the T for which the mean of log p̂(x) is within so many nats, with two chains at least.
        num_simulated: Data drawn from the model on which the gap is looked at, and on as many again where it
            is above the wanted one by less than its standard error; by default as many as there are data, 100
            at most; 0 for none. Each costs twice as much as a datum; with more of them T may be lower.

    Raises:
        InputError: as `log_weights`; where a latent site is discrete and not marked, or an angle, a weight is
            NaN or +∞, or an option is none; and with until_gap as `bidirectional_gap`, but for 0 simulated.

    Warns:
        UserWarning: where the gap is not reached with the most temperatures: what was, and what it takes.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> x = data.test.batch()[:4]
    >>> result = annealed_log_evidence(vae.model, vae.guide, x, num_chains=4, num_temperatures=5)
    >>> result.estimate.shape
    torch.Size([4])
    >>> found = annealed_log_evidence(vae.model, vae.guide, x, until_gap=0.5, start="guide", leapfrog_steps=3)
    >>> found.search.reached, found.num_temperatures
    (True, 32)
    """
    if num_temperatures is None:
        num_temperatures = usual_temperatures(until_gap)
    options = AnnealingOptions(
        num_chains, num_temperatures, start, schedule, leapfrog_steps, target_acceptance, rows, compile
    ).checked()
    data = Batch.of(x, given)
    wanted = None
    if until_gap is not None:
        wanted = Wanted.of(until_gap, options, num_simulated, len(data))
        options = options._replace(schedule="adaptive")
    elif num_simulated is not None:
        raise InputError(f"num_simulated is an option of until_gap, got {num_simulated}: leave it out")
    latents = Latents(model, guide, data, data_plate=data_plate, masked=True)
    if not latents.size:
        return _exact(latents, data, options)
    drawn = None
    if wanted is not None and wanted.num_simulated:
        drawn = Latents(model, guide, data, data_plate=data_plate), data[: wanted.num_simulated]
        check_simulated(*drawn)
    asked: dict[str, float] = {} if wanted is None else wanted.settings
    search = None
    with resumable(checkpoint, "annealed_log_evidence", options, latents, data, **asked) as kept:
        if wanted is None:
            (weights,) = Runner(latents, options, data, None, progress=progress, resumable=kept).run()
        else:
            work = Search(latents, data, options, wanted, drawn=drawn, progress=progress, kept=kept)
            weights, search = work.run()
    if search is not None:
        warn_of_gap(search, options)
    result = _result(weights, options, search)
    warn_of_zeros(result.estimate, "chains")
    return result


def _result(weights: Weights, options: AnnealingOptions, search: GapSearch | None) -> AnnealedEvidence:
    return AnnealedEvidence(
        *estimate_of(weights.log_weights),
        weights.acceptance,
        options.num_chains,
        options.num_temperatures if search is None else search.rounds[-1].num_temperatures,
        curve_of(weights.record) if len(weights.record) else None,
        weights.barrier,
        search,
    )


def _exact(latents: Latents, data: Batch, options: AnnealingOptions) -> AnnealedEvidence:
    """Log p(x) of a model all of whose latent sites are summed out, so that nothing is left to anneal."""
    with torch.no_grad():
        parts = [latents.pair.log_weights(b, 1, validate=True)[0] for b in data.split(1000)]
        exact = wide(torch.cat(parts))
    zero, chains = torch.zeros_like(exact), float(options.num_chains)
    return AnnealedEvidence(
        exact,
        zero,
        zero + chains,
        zero + 1 / chains,
        zero + math.nan,
        options.num_chains,
        options.num_temperatures,
    )
