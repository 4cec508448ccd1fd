"""log p(x) by the cheapest method that can be trusted for each datum, within a budget of time."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.annealing.evidence import AnnealedEvidence, annealed_log_evidence
from pyro_vae.annealing.options import AnnealingOptions, usual_temperatures
from pyro_vae.annealing.rounds import GapSearch
from pyro_vae.annealing.search import Wanted
from pyro_vae.batch import Batch, Given
from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance.estimation import Estimation, Proposal, Proposed, identity_of, local_of
from pyro_vae.importance.results import RELIABLE_K, LogEvidence, OverData, warn_of_zeros
from pyro_vae.programs import Program, one_at_a_time, say
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import own_draws
from pyro_vae.ranks import workers
from pyro_vae.storage.resumable import Resumable

#: Draws of the pilot by which it is judged whether the proposal of a datum is a good one.
PILOT = 500
#: Temperatures of an annealing that is worth its time, and at the most.
_FEWEST, _MOST = 100, 10_000
#: Data and temperatures of the run by which the speed of annealing is measured.
_TIMED, _TEMPERATURES = 16, 2
#: Transitions of a pilot of annealing, beside a fifth of its temperatures.
_FIRST = 70


@dataclass(frozen=True, eq=False)
class AutoEvidence(OverData):
    """Log p(x) by a local proposal, and by annealing where that is none that can be trusted; in float64.

    Which of the two gave the number of a datum was chosen by a pilot, not by the draws that count.

    >>> found = AutoEvidence(
    ...     estimate=torch.tensor([-20.0, -22.0]),
    ...     standard_error=torch.tensor([0.03, 0.4]),
    ...     effective_sample_size=torch.tensor([150.0, 5.0]),
    ...     largest_share=torch.tensor([0.02, 0.4]),
    ...     annealed=torch.tensor([False, True]),
    ...     pareto_k=torch.tensor([0.2, math.nan]),
    ...     pilot_k=torch.tensor([0.3, 1.1]),
    ...     acceptance=torch.tensor([math.nan, 0.65]),
    ...     num_particles=1000,
    ...     num_chains=8,
    ...     num_temperatures=400,
    ... )
    >>> found.method, found.mean
    (['local', 'annealed'], -21.0)
    """

    #: Whether a datum was annealed, (B,) bool.
    annealed: Tensor
    #: k̂ of the draws that count, (B,); NaN where a datum was annealed.
    pareto_k: Tensor
    #: k̂ of the pilot, by which the method was chosen, (B,).
    pilot_k: Tensor
    #: Mean acceptance probability of the transitions, (B,); NaN where a datum was not annealed.
    acceptance: Tensor
    #: K of the local proposals.
    num_particles: int
    #: C and T of the annealing; T is 0 where there was none.
    num_chains: int
    num_temperatures: int
    #: How T was found, with `until_gap`; else None.
    search: GapSearch | None = None

    @property
    def attempts(self) -> int:
        """k, the rounds of annealing that counted when they were run; 0 where T was given."""
        return 0 if self.search is None else self.search.attempts

    @property
    def method(self) -> list[str]:
        """What gave the number of each datum: "local" or "annealed"."""
        return ["annealed" if each else "local" for each in self.annealed.tolist()]

    def _quality(self) -> dict[str, str]:
        number, total = int(self.annealed.sum()), len(self.estimate)
        rows = {f"by {self.num_particles} draws from a local proposal": f"{total - number} data"}
        if number:
            way = f"{self.num_chains} chains, {self.num_temperatures} temperatures"
            rows[f"by annealing, {way}"] = f"{number} data"
        return rows

    def __repr__(self) -> str:
        number, total = int(self.annealed.sum()), len(self.estimate)
        how = f"{total - number} of {total} data by {self.num_particles} draws each from a local proposal"
        if number:
            how += f", {number} by annealing ({self.num_chains} chains, {self.num_temperatures} temperatures)"
        return (
            f"log p(x) = {self.mean:.3f} ± {self.mean_standard_error:.3f} nats, mean of {how}; Monte Carlo "
            f"error {self.mean_monte_carlo_error:.3f}; a lower bound in expectation"
        )


@one_at_a_time
def auto_log_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_particles: int = 1000,
    budget: float = 60.0,
    until_gap: float | None = None,
    num_chains: int = 8,
    proposal: Proposal = "local",
    rows: int | None = None,
    compile: Compile = "auto",
    data_plate: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> AutoEvidence:
    """Log p(x) of each datum by a proposal fitted to it, and by annealing where k̂ says that this fails.

    A pilot of 500 draws gives the k̂ of each datum's local proposal. Data above 0.7 are annealed from the
    guide, with as many temperatures as `budget` seconds allow, measured on a few of them; where not even 100
    temperatures fit, those with the largest k̂ are, as many as do. All others have `num_particles` fresh draws
    from their proposals. What decides are the pilot and the clock, never the draws that count, so that each
    estimate of p(x) is unbiased and `certificate` holds. Another machine may choose another number of
    temperatures: a result says which it was.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), on the device of the programs.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: K, draws per datum that is not annealed.
        budget: Seconds of annealing, about; 0 for none.
        until_gap: Nats, instead: anneal all of these data until their mean is within so many, as
            `annealed_log_evidence` does, whatever the time.
        num_chains: C, annealed chains per datum.
        proposal: As with `log_evidence`.
        rows: As with `log_evidence`.
        compile: As with `log_evidence`.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        checkpoint: A file from which the same call goes on, to the very same result; a second one lies
            beside it while chains run.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_evidence`; where the budget is negative, or the guide is one of these very
            data only.

    Warns:
        UserWarning: where data that should be annealed are not.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> x = data.test.batch()[:4]
    >>> found = auto_log_evidence(vae.model, vae.guide, x, num_particles=50, budget=0)
    >>> found.method
    ['local', 'local', 'local', 'local']
    """
    data, budget, local = Batch.of(x, given), _budget(budget), local_of(proposal)
    most = draws("num_particles", num_particles)
    annealing = Annealing(model, guide, count("num_chains", num_chains), compile, data_plate, until_gap)
    if until_gap is not None:
        Wanted.of(until_gap, annealing.options, None, len(data))
    with torch.no_grad():
        proposed = Proposed.of(model, guide, data, local, compile=compile, data_plate=data_plate)
    if proposed.pair.whole:
        raise InputError(
            "expected a guide that can be run on a part of the data, got one for these very data: use "
            "log_evidence or annealed_log_evidence"
        )
    work = Estimation(
        proposed, data, most, rows=proposed.pair.flat_rows if rows is None else count("rows", rows)
    )
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        asked = {"num_particles": most, "budget": budget, "chains": num_chains, "rows": work.rows}
        asked |= {} if until_gap is None else {"until_gap": until_gap}
        settings = {**asked, "compile": compile, "proposal": str(local), **identity_of(proposed.pair, data)}
    with (
        Resumable(checkpoint, settings, data.device) as kept,
        progress_bar(progress, desc="log p(x)", unit="draws", unit_scale=True) as bar,
    ):
        beside = None if checkpoint is None else Path(checkpoint).with_suffix(".annealed.pt")
        result = _estimated(work, annealing, budget, kept, bar, beside, progress)
    warn_of_zeros(result.estimate, "draws")
    return result


def _estimated(
    work: Estimation,
    annealing: "Annealing",
    budget: float,
    kept: Resumable,
    bar: "tqdm[Any]",
    beside: Path | None,
    progress: bool | None,
) -> AutoEvidence:
    """Pilot, choice, draws and chains, each from where it was interrupted."""
    data = work.data
    with torch.no_grad():
        fitted = work.fitted(kept, bar)
        done = work.done
        pilot = work.drawn(fitted, PILOT, kept, bar, "pilot").pareto_k
        if "temperatures" not in done:

            def choose() -> dict[str, Any]:
                chosen = annealing.choose(data, ~(pilot <= RELIABLE_K), pilot, budget)
                return {"temperatures": chosen.temperatures, "annealed": chosen.annealed.cpu()}

            done |= workers().from_first(choose)  # by its clock
        annealed = done["annealed"].to(data.device)
        drawn = chains = None
        if not bool(annealed.all()):
            drawn = work.drawn(fitted[(~annealed).nonzero()[:, 0]], work.most, kept, bar)
    if bool(annealed.any()):
        kept.keep(lambda: {"done": done, "stage": "annealed", "now": {}}, now=True)
        part = data[annealed.nonzero()[:, 0]]
        chains = annealing.run(part, done["temperatures"], checkpoint=beside, progress=progress)
    return _joined(annealed, pilot, drawn, chains, work.most, annealing.chains)


class Choice(NamedTuple):
    """Which data are annealed, (B,) bool, and by how many temperatures."""

    annealed: Tensor
    temperatures: int


class Annealing(NamedTuple):
    """How data are annealed from the guide."""

    model: Program
    guide: Program
    chains: int
    compile: Compile
    data_plate: str | None
    until_gap: float | None = None

    @property
    def options(self) -> AnnealingOptions:
        """Those of all annealing here, with the most temperatures that are tried."""
        most = usual_temperatures(self.until_gap)
        return AnnealingOptions(self.chains, most, "guide", "sigmoid", 10, 0.65, None, self.compile)

    def run(
        self,
        data: Batch,
        temperatures: int,
        *,
        checkpoint: Path | None = None,
        progress: bool | None = None,
        timed: bool = False,
    ) -> AnnealedEvidence:
        """Log p(x) of these data, with `timed` by so many temperatures and no others."""
        return annealed_log_evidence(
            self.model,
            self.guide,
            data,
            num_chains=self.chains,
            num_temperatures=temperatures,
            start="guide",
            until_gap=None if timed else self.until_gap,
            compile=self.compile,
            data_plate=self.data_plate,
            checkpoint=checkpoint,
            progress=progress,
        )

    def choose(self, data: Batch, hard: Tensor, k: Tensor, budget: float) -> Choice:
        """What can be annealed in `budget` seconds, of the data that are `hard` (B,), by their k̂."""
        number, none = int(hard.sum()), Choice(torch.zeros_like(hard), 0)
        if not number or not (budget or self.until_gap):
            return none
        if self.until_gap is not None:
            return Choice(hard, usual_temperatures(self.until_gap))
        worst = k.nan_to_num(math.inf, math.inf).masked_fill(~hard, -math.inf).argsort(descending=True)
        try:
            seconds = self._seconds(data[worst[: min(number, _TIMED)]])
        except InputError as error:
            say(f"{number} of {len(data)} data should be annealed and are not: {error}")
            return none
        fit = int(budget / (seconds * _transitions(_FEWEST)))
        if fit < number:
            say(
                f"{number - fit} of {len(data)} data should be annealed and are not, for which a budget of "
                f"about {math.ceil(number * seconds * _transitions(4 * _FEWEST))} seconds is needed"
            )
        count = min(fit, number)
        annealed = torch.zeros_like(hard)
        annealed[worst[:count]] = True
        return Choice(annealed, _rounded(budget / (seconds * count)) if count else 0)

    def _seconds(self, data: Batch) -> float:
        """Seconds of a transition of one datum; random numbers go on as if unused."""
        start = time.perf_counter()
        with own_draws(data.device):
            self.run(data, _TEMPERATURES, progress=False, timed=True)
        return (time.perf_counter() - start) / (len(data) * (_FIRST + _TEMPERATURES))


def _transitions(temperatures: int) -> float:
    """Of the pilot and the run."""
    return _FIRST + 1.2 * temperatures


def _rounded(transitions: float) -> int:
    """As many temperatures as so many transitions allow, in two digits."""
    temperatures = min(max((transitions - _FIRST) / 1.2, _FEWEST), _MOST)
    unit = 10 ** max(int(math.log10(temperatures)) - 1, 0)
    return max(int(temperatures // unit) * unit, _FEWEST)


def _budget(budget: float) -> float:
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not 0 <= budget < math.inf:
        raise InputError(f"budget expects a number of seconds, got {budget}: 60 is a minute, 0 anneals none")
    return float(budget)


def _joined(
    annealed: Tensor,
    pilot: Tensor,
    drawn: LogEvidence | None,
    chains: AnnealedEvidence | None,
    particles: int,
    num_chains: int,
) -> AutoEvidence:
    """One result of both."""

    def of(name: str) -> Tensor:
        whole = torch.full_like(pilot, math.nan)
        for where, part in ((~annealed, drawn), (annealed, chains)):
            if part is not None and hasattr(part, name):
                whole[where.to(whole.device)] = getattr(part, name).to(whole)
        return whole

    return AutoEvidence(
        of("estimate"),
        of("standard_error"),
        of("effective_sample_size"),
        of("largest_share"),
        annealed=annealed,
        pareto_k=of("pareto_k"),
        pilot_k=pilot,
        acceptance=of("acceptance"),
        num_particles=particles,
        num_chains=num_chains,
        num_temperatures=chains.num_temperatures if chains is not None else 0,
        search=chains.search if chains is not None else None,
    )
