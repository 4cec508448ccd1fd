"""A diagnosis in stages, each of which can be kept in a file."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.annealing import InformationBounds, RateDistortion
from pyro_vae.data import Dataset
from pyro_vae.diagnosis import Calibration, RandomCoverage, agreement, calibrate_and_cover
from pyro_vae.diagnosis import diagnose as account
from pyro_vae.diagnosis.diagnose import MOST_TRAIN
from pyro_vae.errors import InputError, count
from pyro_vae.programs import Latents
from pyro_vae.randomness import own_randomness
from pyro_vae.reports.estimators import Estimator, tails
from pyro_vae.reports.facts import circumstances, is_mass, part_of, units
from pyro_vae.reports.tables import belief, draws_in_words
from pyro_vae.vae import JointProgram


class _Evidence(NamedTuple):
    """What the account of nats must know of log p(x), (B,) each."""

    estimate: Tensor
    standard_error: Tensor
    pareto_k: Tensor | None


class Diagnosing:
    """The stages of a diagnosis, each starting at the same seed, and what they give together.

    What a stage returns consists of tensors on the CPU, numbers, strings, and lists, tuples and
    dictionaries of these.

    Args:
        vae: The model.
        data: Its data.
        split: The part to diagnose on.
        num_data: How many of it, by a fixed choice; None for all.
        seed: Of all random numbers.
        progress: Show progress bars; by default in a terminal and in a notebook.

    Raises:
        InputError: where the program has no log p(x) or a discrete latent; where there are fewer than 8 data.
    """

    def __init__(
        self,
        vae: JointProgram,
        data: Dataset,
        *,
        split: str,
        num_data: int | None,
        seed: int,
        progress: bool | None = None,
    ) -> None:
        self.vae, self.data, self.split, self.seed, self.progress = vae, data, split, seed, progress
        self.part = part_of(data, split, num_data)
        vae.check_evaluated(self.part.given)
        if len(self.part) < 8:
            raise InputError(f"expected 8 data at least to diagnose, got {len(self.part)}: give more")
        with own_randomness(seed, vae.device):
            self.x = vae.place(self.part.take())
            seen = split != "train" and len(data.train)
            # those of the split themselves would show no gap
            self.train = vae.place(part_of(data, "train", MOST_TRAIN).take()) if seen else None
            Latents(vae.model, vae.guide, self.x)

    def evidence(self, estimator: Estimator, checkpoint: Path) -> dict[str, Any]:
        """Log p(x), by any method."""
        with own_randomness(self.seed, self.vae.device):
            result = estimator(self.vae, self.x, checkpoint=checkpoint, progress=self.progress)
        found = [result.estimate, result.standard_error, getattr(result, "pareto_k", None)]
        return {
            "log_evidence": estimator.evidence(result),
            "pareto_k": tails(result),
            "per_datum": [None if each is None else each.cpu() for each in found],
            "rate_distortion": _curve(getattr(result, "rate_distortion", None)),
        }

    def simulated(self, estimator: Estimator, checkpoint: Path) -> dict[str, Any]:
        """Bounds on data drawn from the model: how far annealing may be off, and of I(x; z)."""
        found = estimator.bidirectional(
            self.vae, self.part, self.seed, checkpoint=checkpoint, progress=self.progress
        )
        information = found.information
        return {
            "gap": found.mean,
            "standard_error": found.mean_standard_error,
            "information": [information.lower.cpu(), information.upper.cpu()],
            "words": repr(information),
        }

    def nats(
        self, evidence: Mapping[str, Any], num_steps: int, simulated: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Where the nats go, with what `simulated` found where it was asked for."""
        with own_randomness(self.seed, self.vae.device):
            found = account(
                self.vae.model,
                self.vae.guide,
                self.x,
                train=self.train,
                evidence=_Evidence(*evidence["per_datum"]),
                bounds=None if simulated is None else InformationBounds(*simulated["information"]),
                num_steps=count("num_steps", num_steps),
                progress=self.progress,
            )
        kl, kl_error = found.units.kl, found.units.kl_error
        return {
            "content": found.content(),
            "table": repr(found).removesuffix(found.verdict).rstrip(),
            "waterfall": found.waterfall(),
            "units": {
                "names": list(found.units.names),
                "activity": found.units.activity.cpu(),
                "kl": None if kl is None else kl.cpu(),
                "kl_error": None if kl_error is None else kl_error.cpu(),
            },
        }

    def calibration(self) -> dict[str, Any]:
        """Ranks on simulated data, in the margins and by distances from points, or why there are none."""
        try:
            found, points = calibrate_and_cover(
                self.vae.model, self.vae.guide, self.x, seed=self.seed, progress=self.progress
            )
        except InputError as error:
            warnings.warn(f"no calibration on simulated data: {error}", stacklevel=2)
            return {"skipped": str(error)}
        return {**vars(found), "words": repr(found), "points": {**vars(points), "words": repr(points)}}

    def posteriors(self, num_data: int) -> dict[str, Any]:
        """Draws from q(z|x) and by NUTS, on the first data."""
        x = self.x[:num_data]
        found = agreement(self.vae.model, self.vae.guide, x, seed=self.seed, progress=self.progress)
        return {
            "num_data": len(x),
            "agrees": found.agrees,
            "converged": found.exact.converged,
            "words": repr(found),
            "exact": found.exact.u.cpu(),
            "guide": found.guide_u.cpu(),
            "names": list(found.exact.names),
        }

    def content(self, stages: Mapping[str, Mapping[str, Any]], seconds: float) -> dict[str, Any]:
        """What the stages `evidence`, `nats`, `calibration` and, where there is one, `posteriors` found."""
        evidence, nats = stages["evidence"], stages["nats"]
        exact = stages.get("posteriors")
        return {
            "data": self.data.name,
            "split": self.split,
            **nats["content"],
            "evidence": {**evidence["log_evidence"], "pareto_k": evidence["pareto_k"]},
            **_of_chains(stages),
            "calibration": _calibration(stages["calibration"]),
            "coverage": _coverage(stages["calibration"]),
            "posteriors": exact
            and {name: exact[name] for name in ("num_data", "agrees", "converged", "words")},
            "units": units(self.data, is_mass(self.vae, self.x), self.vae),
            **({"given": list(self.part.given)} if self.part.given else {}),
            "protocol": self.data.protocol,
            "data_hash": self.part.hash(),
            "seed": self.seed,
            "seconds": seconds,
            **circumstances(self.vae),
        }


def _curve(found: RateDistortion | None) -> dict[str, list[float]] | None:
    """Means over the data, as numbers."""
    if found is None:
        return None
    errors = dict(zip(("distortion_error", "rate_error"), found.mean_monte_carlo_errors, strict=True))
    means = {"betas": found.betas, "distortion": found.mean_distortion, "rate": found.mean_rate}
    return {name: values.tolist() for name, values in {**means, **errors}.items()}


def _of_chains(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What chains of annealing tell besides log p(x)."""
    found: dict[str, Any] = {}
    if curve := stages["evidence"]["rate_distortion"]:
        # an error of few chains is not known
        found["rate_distortion"] = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in curve.items()
        }
    if simulated := stages.get("simulated"):
        gap = {name: simulated[name] for name in ("gap", "standard_error")}
        found["certificate"] = {**gap, "num_data": len(simulated["information"][0])}
        found["model_information"] = simulated["words"]
    return found


def calibration_of(stage: Mapping[str, Any]) -> Calibration:
    """The result that a stage kept."""
    return Calibration(**{each.name: stage[each.name] for each in fields(Calibration)})


def _calibration(stage: Mapping[str, Any]) -> dict[str, Any]:
    if "skipped" in stage:
        return dict(stage)
    found = calibration_of(stage)
    p_values = found.p_value.tolist()
    quantities = {
        name: {"p_value": p, "verdict": verdict}
        for name, p, verdict in zip(found.names, p_values, found.verdicts, strict=True)
    }
    facts = {"num_data": len(found.ranks), "num_draws": found.num_draws, "calibrated": found.calibrated}
    return {**facts, "words": stage["words"], "quantities": quantities}


def coverage_of(stage: Mapping[str, Any]) -> RandomCoverage:
    """The result that the same stage kept, by distances from points."""
    return RandomCoverage(**{each.name: stage["points"][each.name] for each in fields(RandomCoverage)})


def _coverage(stage: Mapping[str, Any]) -> dict[str, Any]:
    if "skipped" in stage:
        return dict(stage)
    found = coverage_of(stage)
    points = {
        name: {"p_value": p, "verdict": verdict}
        for name, p, verdict in zip(found.names, found.p_value.tolist(), found.verdicts, strict=True)
    }
    facts = {"num_data": len(found.ranks), "num_draws": found.num_draws, "rejected": any(found.rejected)}
    return {**facts, "words": stage["points"]["words"], "points": points}


def _chain_rows(content: Mapping[str, Any]) -> dict[str, str]:
    """What chains of annealing tell besides log p(x), in words."""
    rows = {}
    if curve := content.get("rate_distortion"):
        rate, distortion = (content[name]["mean"] for name in ("rate", "distortion"))
        rows["rate-distortion"] = (
            f"p(z|x) has a rate of {curve['rate'][-1]:.2f} and a distortion of "
            f"{curve['distortion'][-1]:.2f}, q(z|x) {rate:.2f} and {distortion:.2f}"
        )
    if "certificate" in content:
        certificate = content["certificate"]
        rows["bounds"] = (
            f"{certificate['gap']:.3f} ± {certificate['standard_error']:.3f} nats apart on "
            f"{certificate['num_data']} simulated data"
        )
        rows["information"] = content["model_information"]
    return rows


#: The rows of a table of nats, by their names in the content.
_NATS = {
    "distortion": "distortion",
    "mutual_information": "mutual information",
    "marginal_kl": "marginal KL",
    "elbo": "ELBO",
    "amortisation": "amortisation gap",
    "approximation": "approximation gap",
    "log_evidence": "log p(x)",
    "prior_gap": "prior gap",
    "train_test_gap": "train-test gap",
}


def diagnosis_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """The table of nats for a document: a heading, and a row for each term."""
    rows = [["nats per datum", "mean", "standard error"]]
    for name, words in _NATS.items():
        if found := content.get(name):
            numbers = (found["mean"], found["standard_error"])
            rows.append([words, *("" if value is None else f"{value:.3f}" for value in numbers)])
    return rows


def diagnosis_table(content: Mapping[str, Any], table: str, folder: object) -> str:
    """What a person reads: the table of nats, what else was found, and last the verdict.

    Args:
        content: What `Diagnosing.content` gave.
        table: That of the stage `nats`.
        folder: Of the run.
    """
    found, calibration = content["evidence"], content["calibration"]
    rows = {"log p(x) by": f"{draws_in_words(found)} (Monte Carlo error {found['monte_carlo_error']:.3f})"}
    rows |= belief(found, found["pareto_k"], folder)
    rows |= _chain_rows(content)
    rows["calibration"] = calibration.get("words") or f"none: {calibration['skipped']}"
    if "words" in content["coverage"]:
        rows["coverage"] = content["coverage"]["words"]
    if content["posteriors"]:
        rows["posteriors"] = content["posteriors"]["words"]
    if content["units"] != "nats per datum":
        rows["units"] = content["units"]
    if "given" in content:
        rows["given"] = ", ".join(content["given"])
    rows["protocol"] = f"{content['protocol']}, hash {content['data_hash']}"
    rows["time"] = f"{content['seconds']:.1f} s on {content['device']}"
    rows["folder"] = str(folder)
    lines = [f"{name:<20}{text}" for name, text in rows.items()]
    return "\n".join([table, *lines, "", content["verdict"]])
