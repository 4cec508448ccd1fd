"""The estimators, each with its budgets and what it costs."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

import pyro_vae as pv
from experiments.estimators.harmonic_mean import drawn_by_nuts, harmonic_mean
from experiments.estimators.moment_matching import moment_matched
from experiments.estimators.posteriors import Posterior
from experiments.estimators.rounds import annealed_in_rounds, temperatures
from experiments.estimators.sequential import sequential
from experiments.estimators.setting import Options
from pyro_vae.annealing.kernels import pilot_transitions, tune
from pyro_vae.annealing.options import AnnealingOptions, Schedule, Start
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.batch import Batch
from pyro_vae.programs import Latents

#: What log p(x, z) costs without its gradient, in gradients: a reverse pass costs two forward ones.
_DENSITY = 1 / 3
#: Draws by which a fitted proposal is held against its start, twice.
_JUDGED = 20


class Found(NamedTuple):
    """Estimates of log p(x), (N,), and the gradients that one took, densities alone counting a third."""

    estimate: Tensor
    gradients: float


class Estimator(NamedTuple):
    """One way to log p(x)."""

    #: In tables and pictures.
    label: str
    #: Which budgets of the options.
    budgets: Callable[[Options], tuple[int, ...]]
    #: From a pair of programs, data, a budget and options.
    run: Callable[[Posterior, Batch, int, Options], Found]


def _importance(of: Posterior, data: Batch, num: int, options: Options) -> Found:
    found = pv.log_evidence(of.model, of.guide, data, num_particles=num)
    return Found(found.estimate, num * _DENSITY)


def _local(of: Posterior, data: Batch, num: int, options: Options) -> Found:
    """Fitted to every datum, so that the cost is known."""
    fit = pv.LocalProposal(above=float("-inf"))
    found = pv.log_evidence(of.model, of.guide, data, num_particles=num, proposal=fit)
    return Found(found.estimate, fit.steps * fit.draws + (2 * _JUDGED + num) * _DENSITY)


def _matched(of: Posterior, data: Batch, num: int, options: Options) -> Found:
    found = moment_matched(Latents(of.model, of.guide, data), data, num)
    return Found(found.estimate, found.densities * _DENSITY)


def _annealed(start: Start, schedule: Schedule) -> Callable[[Posterior, Batch, int, Options], Found]:
    def run(of: Posterior, data: Batch, num: int, options: Options) -> Found:
        asked = _annealing(options, num, start=start, schedule=schedule)
        found = pv.annealed_log_evidence(
            of.model,
            of.guide,
            data,
            num_chains=asked.num_chains,
            num_temperatures=num,
            start=start,
            schedule=schedule,
        )
        return Found(found.estimate, _gradients(asked, pilot_transitions(num) + num - 1))

    return run


def _in_rounds(start: Start) -> Callable[[Posterior, Batch, int, Options], Found]:
    def run(of: Posterior, data: Batch, num: int, options: Options) -> Found:
        asked, before = _annealing(options, num, start=start), sum(temperatures(num))
        path = _path(of, data, asked, before + num)
        found = estimate_of(annealed_in_rounds(path, asked))
        return Found(found.estimate, _gradients(asked, before + num - 1))

    return run


def _sequential(of: Posterior, data: Batch, num: int, options: Options) -> Found:
    """With the schedule and the transitions of annealing."""
    asked = _annealing(options, num)
    transitions = pilot_transitions(num) + num - 1
    path = _path(of, data, asked, transitions)
    found = sequential(path, tune(path, asked), asked.num_chains)
    return Found(found, _gradients(asked, transitions))


def _harmonic(of: Posterior, data: Batch, num: int, options: Options) -> Found:
    asked = _annealing(options, 1)._replace(num_chains=1)
    found = drawn_by_nuts(_path(of, data, asked, 1000), num, options.warm_up)
    return Found(harmonic_mean(found.log_px), found.gradients)


def _annealing(
    options: Options, num: int, *, start: Start = "prior", schedule: Schedule = "sigmoid"
) -> AnnealingOptions:
    return AnnealingOptions(options.chains, num, start, schedule, 10, 0.65, None, "auto")


def _path(of: Posterior, data: Batch, asked: AnnealingOptions, transitions: int) -> AnnealingPath:
    latents = Latents(of.model, of.guide, data)
    return AnnealingPath(latents, data, asked, transitions * asked.leapfrog_steps)


def _gradients(asked: AnnealingOptions, transitions: int) -> float:
    return float(asked.num_chains * asked.leapfrog_steps * transitions)


#: By the name of their records.
ESTIMATORS = {
    "importance": Estimator("importance sampling", lambda o: o.draws, _importance),
    "local": Estimator("local proposals", lambda o: o.draws, _local),
    "matched": Estimator("moment matching", lambda o: o.matched, _matched),
    "prior": Estimator("annealing, prior", lambda o: o.temperatures, _annealed("prior", "sigmoid")),
    "adaptive": Estimator(
        "annealing, prior, adaptive", lambda o: o.temperatures, _annealed("prior", "adaptive")
    ),
    "rounds": Estimator("annealing, prior, rounds", lambda o: o.rounds, _in_rounds("prior")),
    "sequential": Estimator("sequential Monte Carlo, prior", lambda o: o.temperatures, _sequential),
    "guide": Estimator("annealing, guide", lambda o: o.temperatures, _annealed("guide", "sigmoid")),
    "guide_rounds": Estimator("annealing, guide, rounds", lambda o: o.rounds, _in_rounds("guide")),
    "harmonic": Estimator("harmonic mean", lambda o: o.nuts, _harmonic),
}
