"""Every nat between the data and log p(x), and what it says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pyro_vae.annealing import InformationBounds
from pyro_vae.diagnosis.local import LocalOptimum
from pyro_vae.diagnosis.means import Mean
from pyro_vae.diagnosis.prior import PriorGap
from pyro_vae.diagnosis.rate import Information
from pyro_vae.diagnosis.units import Units
from pyro_vae.markup import table

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

    >>> from pyro_vae import Digits, assemble, diagnose
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = diagnose(vae.model, vae.guide, data.test.batch()[:10], num_steps=5, num_particles=20)
    >>> parts = found.distortion.mean + found.mutual_information.mean + found.marginal_kl.mean
    >>> abs(found.elbo.mean + parts) < 1e-3
    True
    >>> found.per_datum()["elbo"].shape
    torch.Size([10])
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
        return waterfall_of(
            {
                name: (value.mean, value.standard_error)
                for name, value in vars(self).items()
                if isinstance(value, Mean)
            }
        )

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

    def _rows(self) -> list[tuple[str, str, Mean]]:
        """Name, meaning and value of each term."""
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
        return [(name, what, found) for name, what, found in rows if found is not None]

    def _repr_html_(self) -> str:
        """The table of nats, and the verdict."""
        rows = [[name, repr(found), what] for name, what, found in self._rows()]
        caption = f"means of {self.num_data} data ± standard error over data"
        notes = {"latent units": repr(self.units), "verdict": self.verdict}
        return table([[UNITS, "mean", "what it is"], *rows], caption, notes)

    def __repr__(self) -> str:
        lines = [
            f"{name:<20}{found.mean:>10.3f} ± {found.standard_error:<8.3f}{what}"
            for name, what, found in self._rows()
        ]
        heading = f"{UNITS}, means of {self.num_data} data ± standard error over data"
        return "\n".join([heading, *lines, f"{self.units!r}", self.verdict])


def waterfall_of(found: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The same, of means and standard errors by the names in a `Diagnosis`."""

    def signed(label: str, name: str) -> tuple[str, float, float]:
        mean, error = found[name]
        return label, -mean if label[0] == "−" else mean, error

    steps = [
        signed("− distortion", "distortion"),
        signed("− mutual information", "mutual_information"),
        signed("− marginal KL", "marginal_kl"),
        signed("+ amortisation gap", "amortisation"),
        signed("+ approximation gap", "approximation"),
    ]
    totals = [(3, "ELBO", *found["elbo"]), (5, "log p(x)", *found["log_evidence"])]
    gap, marginal = found["prior_gap"][0], found["marginal_kl"][0]
    saved = None
    if min(gap, marginal) > 0:
        # both are estimates, and the part marked is no longer than the bar
        saved = (2, min(gap, marginal), f"saved by a better prior: {gap:.2f} at least")
    return {"steps": steps, "totals": totals, "saved": saved, "units": UNITS}


def _numbers(found: Mean) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in vars(found).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
