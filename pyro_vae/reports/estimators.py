"""How log p(x) is estimated, and what is reported of the estimate."""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from pyro_vae.annealing import (
    AnnealedEvidence,
    AutoEvidence,
    BidirectionalGap,
    annealed_log_evidence,
    auto_log_evidence,
    bidirectional_gap,
)
from pyro_vae.batch import Batch
from pyro_vae.data import Split
from pyro_vae.importance import LogEvidence, log_evidence
from pyro_vae.importance.results import RELIABLE_K
from pyro_vae.proposals.choosing import can_be_fitted
from pyro_vae.randomness import own_randomness
from pyro_vae.vae import JointProgram

Method = Literal["importance", "local", "annealed", "auto"]
#: The results of the methods.
Result = LogEvidence | AnnealedEvidence | AutoEvidence

#: δ of the lower bound that is printed.
DELTA = 0.05


class Estimator(NamedTuple):
    """A method with its options; those of another one say nothing."""

    method: Method = "importance"
    #: Importance samples per datum, from the guide or from local proposals.
    particles: int = 1000
    #: Monte Carlo standard error for which each datum is drawn often enough, in nats.
    until_standard_error: float | None = None
    #: Annealed chains per datum.
    chains: int = 16
    #: Of the annealing; with `until_gap` at the most.
    temperatures: int = 1000
    start: Literal["prior", "guide"] = "prior"
    #: Data drawn from the model on which annealing is certified; none but with `until_gap` by default.
    simulated: int | None = None
    #: Seconds of annealing, by the method auto.
    budget: float = 60.0
    #: Nats within which annealing should be.
    until_gap: float | None = None

    def __call__(
        self,
        vae: JointProgram,
        x: Tensor | Batch,
        *,
        checkpoint: Path | None = None,
        progress: bool | None = None,
    ) -> Result:
        """Log p(x) of each datum; `checkpoint` is as with the estimators."""
        where: dict[str, Any] = {"checkpoint": checkpoint, "progress": progress}
        if self.method == "annealed":
            return annealed_log_evidence(
                vae.model,
                vae.guide,
                x,
                num_chains=self.chains,
                num_temperatures=self.temperatures,
                start=self.start,
                until_gap=self.until_gap,
                num_simulated=None if self.until_gap is None else self.simulated,
                **where,
            )
        if self.method == "auto":
            return auto_log_evidence(
                vae.model,
                vae.guide,
                x,
                num_particles=self.particles,
                budget=self.budget,
                until_gap=self.until_gap,
                **where,
            )
        return log_evidence(
            vae.model,
            vae.guide,
            x,
            num_particles=self.particles,
            until_standard_error=self.until_standard_error,
            proposal="local" if self.method == "local" else "guide",
            **where,
        )

    def certificate(
        self,
        vae: JointProgram,
        part: Split,
        seed: int,
        *,
        checkpoint: Path | None = None,
        progress: bool | None = None,
    ) -> dict[str, float | int]:
        """The bidirectional gap of annealing by these options, on data drawn like `part`, in nats."""
        found = self.bidirectional(vae, part, seed, checkpoint=checkpoint, progress=progress)
        bounds = {"lower": float(found.lower.mean()), "upper": float(found.upper.mean())}
        gap = {"gap": found.mean, "standard_error": found.mean_standard_error}
        return {**bounds, **gap, "num_data": len(found.gap)}

    def bidirectional(
        self,
        vae: JointProgram,
        part: Split,
        seed: int,
        *,
        checkpoint: Path | None = None,
        progress: bool | None = None,
    ) -> BidirectionalGap:
        """Bounds of log p(x) from both sides on `simulated` data drawn like `part`."""
        number = self.simulated or 0
        with own_randomness(seed, vae.device):
            return bidirectional_gap(
                vae.model,
                vae.guide,
                number,
                # like one datum, or like several where what is given differs
                like=vae.place(part.take(slice(0, number if part.given else 1))),
                num_chains=self.chains,
                num_temperatures=self.temperatures,
                start=self.start,
                checkpoint=checkpoint,
                progress=progress,
            )

    def options(self) -> dict[str, Any]:
        """Those of the method."""
        return {name: getattr(self, name) for name in ("method", *OPTIONS[self.method])}

    def evidence(self, result: Result) -> dict[str, Any]:
        """Mean log p(x), in nats per datum, with its errors and all that says how it was estimated."""
        return {
            "estimate": result.mean,
            "standard_error": result.mean_standard_error,
            "monte_carlo_error": result.mean_monte_carlo_error,
            "at_least": {"bound": result.certificate(DELTA), "delta": DELTA},
            "method": self.method,
            **_made_of(result),
            **{name: value for name, value in self.options().items() if name not in _SAID_ELSEWHERE},
            **_searched(result),
            "num_data": len(result.estimate),
        }


#: Options that a report names by other words.
_SAID_ELSEWHERE = ("particles", "simulated")

#: The options of each method.
OPTIONS: dict[Method, tuple[str, ...]] = {
    "importance": ("particles", "until_standard_error"),
    "local": ("particles", "until_standard_error"),
    "annealed": ("chains", "temperatures", "until_gap", "start", "simulated"),
    "auto": ("particles", "budget", "until_gap"),
}


def like(vae: JointProgram, part: Split) -> Batch:
    """Two data by which a method can be chosen, as the model takes them; no random numbers are used up."""
    with own_randomness(0, vae.device):
        return vae.place(part.take(slice(0, 2)))


#: Draws per datum from which a fit, which costs about as much as a thousand of them, pays.
ENOUGH = 500


def usual_method(vae: JointProgram, x: Batch, particles: int) -> Method:
    """`local` where a proposal can be fitted to a datum, and for 500 draws or more; else `importance`."""
    enough = particles >= ENOUGH
    return "local" if enough and can_be_fitted(vae.model, vae.guide, x) else "importance"


def _made_of(result: Result) -> dict[str, Any]:
    """The numbers of draws and chains."""
    if isinstance(result, LogEvidence):
        few, many = int(result.num_particles.min()), int(result.num_particles.max())
        return {"particles": many, **({"fewest_particles": few} if few < many else {})}
    if isinstance(result, AnnealedEvidence):
        return {"particles": result.num_chains, "acceptance": float(result.acceptance.mean())}
    annealed = int(result.annealed.sum())
    chains = {"chains": result.num_chains, "temperatures": result.num_temperatures} if annealed else {}
    return {"particles": result.num_particles, "annealed": annealed, **chains}


def _searched(result: Result) -> dict[str, Any]:
    """How annealing came to its temperatures, where it was asked to."""
    if not isinstance(result, AnnealedEvidence | AutoEvidence) or result.search is None:
        return {}
    search = result.search
    names = ("reached", "gap", "gap_error", "change", "attempts", "needed", "num_simulated", "gradients")
    rounds = {"rounds": [each._asdict() for each in search.rounds], "in_words": search.found}
    length = getattr(result, "barrier", None)
    barrier = {} if length is None else {"barrier": float(length.mean())}
    found = {name: getattr(search, name) for name in names}
    return {"temperatures": result.num_temperatures, "search": {**found, **barrier, **rounds}}


def tails(result: Result) -> dict[str, Any] | None:
    """Pareto k̂ of the weights over the data; None for annealed ones, too few for a fit."""
    if isinstance(result, AnnealedEvidence):
        return None
    drawn = result.pareto_k
    if isinstance(result, AutoEvidence):
        drawn = drawn[~result.annealed]
        if not len(drawn):
            return None
    known = drawn[~drawn.isnan()]
    above = int((known > RELIABLE_K).sum())
    return {
        "reliable_up_to": RELIABLE_K,
        "above": above,
        "share_above": above / len(drawn),
        "unknown": len(drawn) - len(known),
        "median": float(known.median()) if len(known) else math.nan,
        "largest": float(known.max()) if len(known) else math.nan,
    }


def arrays(result: Result) -> dict[str, np.ndarray]:
    """What is known of each datum, (B,) each."""
    found = {
        "log_evidence": result.estimate,
        "standard_error": result.standard_error,
        "effective_sample_size": result.effective_sample_size,
        "largest_share": result.largest_share,
    }
    more: tuple[str, ...] = (
        ("pareto_k", "num_particles") if isinstance(result, LogEvidence) else ("acceptance",)
    )
    if isinstance(result, AutoEvidence):
        more = ("pareto_k", "pilot_k", "annealed", "acceptance")
    found |= {name: getattr(result, name) for name in more}
    return {name: array.cpu().double().numpy() for name, array in found.items()}
