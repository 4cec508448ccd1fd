"""What the finished cells say: differences with their intervals, tables and pictures."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import stdtrit

import pyro_vae as pv
from experiments.markdown import markdown, spread
from experiments.swap.cells import (
    LEVELS,
    LIKELIHOOD,
    LIKELIHOODS,
    POSTERIOR,
    POSTERIORS,
    PRIOR,
    PRIORS,
    Record,
)
from experiments.swap.results import Results
from pyro_vae import plots

#: A mean difference with its interval.
Margin = tuple[float, float, float]


def difference(values: np.ndarray, reference: np.ndarray) -> Margin:
    """Mean difference of two kinds of model on the same data, with its 95 % interval over data and seeds.

    The variance is that of the paired differences over the B data, after the mean over seeds, plus those
    of the two means over their S seeds, by Student's t with the degrees of freedom of Welch (1947). With
    one seed, the interval holds for the trained parameters only.

    Args:
        values: (S, B).
        reference: (S, B), of the same data in the same order.
    """
    paired = values.mean(0) - reference.mean(0)
    parts = [(float(paired.var(ddof=1)) / len(paired), len(paired) - 1)]
    for seeds in (values.mean(1), reference.mean(1)):
        if len(seeds) > 1:
            parts.append((float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    mean = float(paired.mean())
    return mean, mean - half, mean + half


def per_datum(records: Sequence[Record]) -> np.ndarray:
    """Log p(x): (S, B)."""
    return np.array([record["per_datum"] for record in records])


def bits(records: Sequence[Record]) -> np.ndarray:
    """Bits per dimension of each datum: (S, B)."""
    width = records[0]["bin_width"] or 1.0
    return pv.bits_per_dim(torch.from_numpy(per_datum(records)), (1, 8, 8), bin_width=width).numpy()


class Grid:
    """Numbers by prior and posterior."""

    def __init__(self, results: Results) -> None:
        names = ((prior, posterior) for prior in PRIORS for posterior in POSTERIORS)
        found = {each: results.of("grid", *each, LIKELIHOOD) for each in names}
        self.records = {each: records for each, records in found.items() if records}

    def mean(self, prior: str, posterior: str, number: str = "log_evidence") -> float:
        """Over seeds; NaN where there are none."""
        found = [record[number] for record in self.records.get((prior, posterior), [])]
        return float(np.mean(found)) if found else math.nan

    def text(self, prior: str, posterior: str) -> str:
        """Mean over seeds ± their standard deviation."""
        return spread([record["log_evidence"] for record in self.records.get((prior, posterior), [])])

    def differs(self, prior: str, posterior: str) -> bool:
        """Whether the interval of the difference to the standard cell leaves out 0."""
        here, standard = (self.records.get(each) for each in ((prior, posterior), (PRIOR, POSTERIOR)))
        if not here or not standard or here is standard:
            return False
        _, low, high = difference(per_datum(here), per_datum(standard))
        return not low <= 0 <= high

    def by_prior(self, prior: str) -> Margin | None:
        """The difference to the standard normal prior, over those posteriors that both have."""
        return self._margin([((prior, posterior), (PRIOR, posterior)) for posterior in POSTERIORS])

    def by_posterior(self, posterior: str) -> Margin | None:
        """The difference to the diagonal normal posterior, over those priors that both have."""
        return self._margin([((prior, posterior), (prior, POSTERIOR)) for prior in PRIORS])

    def _margin(self, pairs: Iterable[tuple[tuple[str, str], tuple[str, str]]]) -> Margin | None:
        both = [pair for pair in pairs if all(each in self.records for each in pair)]
        if not both:
            return None
        if both[0][0] == both[0][1]:
            return 0.0, 0.0, 0.0
        ours, theirs = (
            np.mean([per_datum(self.records[pair[side]]) for pair in both], axis=0) for side in (0, 1)
        )
        return difference(ours, theirs)

    def table(self) -> str:
        """Log p(x), bold where it differs from the standard cell, with the mean differences."""
        rows = [["prior \\ posterior", *POSTERIORS, "difference to the standard normal prior"]]
        for prior in PRIORS:
            difference_to = margin(self.by_prior(prior), is_reference=prior == PRIOR)
            rows.append([prior, *(self._cell(prior, each) for each in POSTERIORS), difference_to])
        last = (margin(self.by_posterior(each), is_reference=each == POSTERIOR) for each in POSTERIORS)
        return markdown([*rows, ["difference to the diagonal normal posterior", *last, ""]])

    def _cell(self, prior: str, posterior: str) -> str:
        text = self.text(prior, posterior)
        return f"**{text}**" if self.differs(prior, posterior) else text

    def gaps(self) -> str:
        """Log p(x) − ELBO."""
        rows = [["prior \\ posterior", *POSTERIORS]]
        for prior in PRIORS:
            found = (self.mean(prior, each) - self.mean(prior, each, "elbo") for each in POSTERIORS)
            rows.append([prior, *(f"{gap:.2f}" if math.isfinite(gap) else "–" for gap in found)])
        return markdown(rows)

    def picture(self) -> Figure:
        """The table as a heat map."""
        values = np.array([[self.mean(prior, each) for each in POSTERIORS] for prior in PRIORS])
        texts = [[self.text(prior, each) for each in POSTERIORS] for prior in PRIORS]
        bold = np.array([[self.differs(prior, each) for each in POSTERIORS] for prior in PRIORS])
        label = "test log p(x) (nats per datum)"
        return plots.heat_map(values, list(PRIORS), list(POSTERIORS), texts, bold=bold, label=label)


def likelihood_table(results: Results) -> str:
    """All likelihoods, and in bits per dimension those of grey levels."""
    found = {name: results.of("likelihoods", PRIOR, POSTERIOR, name) for name in LIKELIHOODS}
    heading = ["likelihood", "data", "log p(x) or log density", "KL by seed", "bits per dim"]
    rows = [[*heading, f"difference to the {LEVELS}"]]
    for name, records in found.items():
        kls = ", ".join(f"{record['kl']:.1f}" for record in records)
        log_px = spread([record["log_evidence"] for record in records])
        rows.append([name, LIKELIHOODS[name][1], log_px, kls, *_in_bits(name, records, found[LEVELS])])
    return markdown(rows)


def _in_bits(name: str, records: Sequence[Record], reference: Sequence[Record]) -> tuple[str, str]:
    """Bits per dimension, and their difference to those of `reference`."""
    if not records or "bits_per_dim" not in records[0]:
        return "–", "–"
    sign = "≤ " if records[0]["bin_width"] else ""
    text = sign + spread([record["bits_per_dim"] for record in records], digits=3)
    if name == LEVELS:
        return text, "reference"
    return text, interval(*difference(bits(records), bits(reference)), digits=3) if reference else "–"


def likelihood_picture(results: Results) -> Figure:
    """Bits per dimension of each seed."""
    found = {name: results.of("likelihoods", PRIOR, POSTERIOR, name) for name in LIKELIHOODS}
    grey = {name: records for name, records in found.items() if records and "bits_per_dim" in records[0]}
    signs = {False: "probability of the levels", True: "bound from above, by a density of dequantised levels"}
    kinds = [signs[records[0]["bin_width"] is not None] for records in grey.values()]
    values = [[record["bits_per_dim"] for record in records] for records in grey.values()]
    return plots.points(list(grey), values, kinds, xlabel="test bits per dimension, each seed; line: mean")


def facts(results: Results) -> str:
    """How the cells were made."""
    records = list(results.records.values())
    hashes = {each["settings"]["binarization"]: each["data_hash"] for each in records}
    by_part = {each["cell"][0]: each["versions"] for each in records}
    versions = "; ".join(
        f"{part} by {', '.join(f'{name} {version}' for name, version in found.items())}"
        for part, found in by_part.items()
    )
    data = ", ".join(f"{name} `{hashed}`" for name, hashed in sorted(hashes.items()))
    minutes, machine = sum(each["cpu_seconds"] for each in records) / 60, records[0]["machine"]
    return (
        f"{len(records)} trainings with evaluation took {minutes:.1f} minutes of processor time, shared by "
        f"two processes ({machine}); {versions}. Test data: {data}."
    )


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """A difference with its interval."""
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")


def margin(found: Margin | None, *, is_reference: bool) -> str:
    """A difference with its interval, where there is one."""
    if found is None:
        return "–"
    return "reference" if is_reference else interval(*found)


def summary(results: Results) -> dict[str, float]:
    """The numbers of the answer: how far each kind of part moves log p(x)."""
    grid = Grid(results)
    priors = [found[0] for each in PRIORS if each != PRIOR and (found := grid.by_prior(each))]
    posteriors = [found[0] for each in POSTERIORS if each != POSTERIOR and (found := grid.by_posterior(each))]
    records = [results.of("likelihoods", PRIOR, POSTERIOR, name) for name in LIKELIHOODS]
    in_bits = [float(bits(each).mean()) for each in records if each and "bits_per_dim" in each[0]]
    ranges = {"prior": priors, "posterior": posteriors, "bits": in_bits}
    return {
        f"{name}_{word}": end(values)
        for name, values in ranges.items()
        for word, end in (("least", min), ("most", max))
        if values
    }


def sections(results: Results) -> dict[str, str]:
    """What README shows of the results, by the names of its places."""
    grid = Grid(results)
    return {
        "facts": facts(results),
        "grid": grid.table(),
        "gaps": grid.gaps(),
        "likelihoods": likelihood_table(results),
    }
