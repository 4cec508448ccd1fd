"""Every nat between the data and log p(x), and what it says."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pyro_vae.annealing import InformationBounds
from pyro_vae.diagnosis.local import LocalOptimum
from pyro_vae.diagnosis.means import Mean
from pyro_vae.diagnosis.prior import PriorGap
from pyro_vae.diagnosis.rate import Information
from pyro_vae.diagnosis.units import Units

#: Unit of every number.
UNITS = "nats per datum"


class Evidence(Protocol):
    """An estimate of log p(x) for each datum, with its Monte Carlo standard error: (B,) each."""

    @property
    def estimate(self) -> Tensor:
        """Log p̂(x)."""

    @property
    def standard_error(self) -> Tensor:
        """Of it."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Where the nats go: means over the data with their errors; its repr is a table with a verdict.

    elbo = −distortion − mutual_information − marginal_kl and log_evidence = elbo + amortisation +
    approximation hold exactly, term by term.
    """

    #: −E_q[log p(x|z)].
    distortion: Mean
    #: KL(q(z|x) ‖ p(z)), the KL of the ELBO.
    rate: Mean
    #: The rate's part that tells the data apart: of those given, at most the logarithm of their number, or
    #: the lower one of `bounds` where these hold more.
    mutual_information: Mean
    #: The rest of the rate, KL(q(z) ‖ p(z)), q(z) being the mean of q(z|x) over the data given.
    marginal_kl: Mean
    #: ELBO of the guide.
    elbo: Mean
    #: What the best member of the guide's own family for each datum gains over the guide.
    amortisation: Mean
    #: log p(x) − ELBO of that member.
    approximation: Mean
    #: log p(x).
    log_evidence: Mean
    #: What a prior fitted to other data's codes saves of the rate, a lower bound.
    prior_gap: Mean
    #: ELBO of the training data − ELBO of these; None where no training data were given.
    train_test_gap: Mean | None
    #: The parts in full, per datum or per unit.
    local: LocalOptimum
    information: Information
    prior: PriorGap
    units: Units
    evidence: Evidence
    #: Posterior collapse in words; empty where there is none.
    collapse: str
    #: The part that loses most: "encoder", "posterior", "prior", two of them joined by " or " where they
    #: are within noise, or "none".
    largest: str
    #: What follows, in sentences.
    verdict: str
    #: Of the model's mutual information, where they were given.
    bounds: InformationBounds | None = None

    @property
    def num_data(self) -> int:
        """B."""
        return len(self.local.gap)

    def per_datum(self) -> dict[str, Tensor]:
        """What is known of each datum, (B,) each, with Monte Carlo standard errors of what varies most."""
        amortised, log_px = self.local.amortised, self.evidence.estimate
        return {
            "distortion": -amortised.reconstruction,
            "rate": amortised.kl,
            "mutual_information": self.information.information,
            "elbo": amortised.elbo,
            "elbo_error": self.local.errors.amortised,
            "amortisation": self.local.gap,
            "amortisation_error": self.local.errors.gap,
            "approximation": log_px.to(self.local.elbo) - self.local.elbo,
            "log_evidence": log_px,
            "log_evidence_error": self.evidence.standard_error,
            "prior_gap": self.prior.gap,
        }

    def waterfall(self) -> dict[str, Any]:
        """The arguments of `pyro_vae.plots.waterfall`: every nat from distortion to log p(x)."""
        losses = [
            ("− distortion", self.distortion),
            ("− mutual information", self.mutual_information),
            ("− marginal KL", self.marginal_kl),
        ]
        gains = [("+ amortisation gap", self.amortisation), ("+ approximation gap", self.approximation)]
        steps = [(label, -found.mean, found.standard_error) for label, found in losses]
        steps += [(label, found.mean, found.standard_error) for label, found in gains]
        ends = [(3, "ELBO", self.elbo), (5, "log p(x)", self.log_evidence)]
        totals = [(place, label, found.mean, found.standard_error) for place, label, found in ends]
        saved = None
        if min(self.prior_gap.mean, self.marginal_kl.mean) > 0:
            # both are estimates, and the part marked is no longer than the bar
            size = min(self.prior_gap.mean, self.marginal_kl.mean)
            saved = (2, size, f"saved by a better prior: {self.prior_gap.mean:.2f} at least")
        return {"steps": steps, "totals": totals, "saved": saved, "units": UNITS}

    def content(self) -> dict[str, Any]:
        """All means, their errors, units and words for JSON; None where a number is not finite."""
        found: dict[str, Any] = {
            name: _numbers(value) for name, value in vars(self).items() if isinstance(value, Mean)
        }
        units = self.units
        found["latent_units"] = {
            "names": list(units.names),
            "activity": [_finite(value) for value in units.activity.tolist()],
            "active": units.active.tolist(),
            "kl": None if units.kl is None else [_finite(value) for value in units.kl.tolist()],
        }
        if self.bounds is not None:
            ends = {"lower": self.bounds.mean_lower, "upper": self.bounds.mean_upper}
            used = self.information.exceeded_by(self.bounds, self.rate.mean)
            found["information_bounds"] = {**ends, "num_data": len(self.bounds.lower), "used": used}
        facts = {"units": UNITS, "num_data": self.num_data, "whole_family": self.local.whole}
        words = {"largest": self.largest, "collapse": self.collapse, "verdict": self.verdict}
        return {**found, **facts, **words}

    def _kind_of_information(self) -> str:
        limit = f"at most {self.information.limit:.2f}"
        if self.bounds is None or not self.information.exceeded_by(self.bounds, self.rate.mean):
            return f"I, {limit}"
        return f"I of the model's data, at most {self.bounds.mean_upper:.2f}; of these {limit}"

    def __repr__(self) -> str:
        whole = "" if self.local.whole else ", at least"
        rows: list[tuple[str, str, Mean | None]] = [
            ("distortion", "−E log p(x|z)", self.distortion),
            ("mutual information", self._kind_of_information(), self.mutual_information),
            ("marginal KL", "KL(q(z) ‖ p(z)), the rest of the rate", self.marginal_kl),
            ("ELBO", "minus these three", self.elbo),
            ("amortisation gap", f"encoder{whole}", self.amortisation),
            ("approximation gap", "family of the posterior", self.approximation),
            ("log p(x)", "ELBO plus both gaps", self.log_evidence),
            ("prior gap", "what a prior fitted to other codes saves, at least", self.prior_gap),
            ("train-test gap", "of the ELBO", self.train_test_gap),
        ]
        lines = [
            f"{name:<20}{found.mean:>10.3f} ± {found.standard_error:<8.3f}{what}"
            for name, what, found in rows
            if found is not None
        ]
        heading = f"{UNITS}, means of {self.num_data} data ± standard error over data"
        return "\n".join([heading, *lines, f"{self.units!r}", self.verdict])


def _numbers(found: Mean) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in vars(found).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
