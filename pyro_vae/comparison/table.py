"""A comparison, as a table for a person and as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

from pyro_vae.comparison.options import options_in_words

Verdict = Literal["reference", "better", "worse", "within noise"]

_WIDTH = 110


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run of a `Comparison`; ELBO and log p(x) are means over the data, in nats per datum."""

    #: Its folder, as given.
    name: str
    #: The options in which the runs differ, as typed on the command line.
    options: dict[str, str]
    #: Number of trained parameters.
    parameters: int
    elbo: float
    log_evidence: float
    #: Of `log_evidence`, over the data.
    standard_error: float
    #: Importance samples per datum, or annealed chains.
    particles: int
    #: Of annealing; None for importance sampling.
    temperatures: int | None
    #: Mean of log p(x) − log p(x) of the reference.
    difference: float
    #: Paired 95 % interval of `difference`.
    interval: tuple[float, float]
    #: "within noise" where the interval contains 0.
    verdict: Verdict

    @property
    def draws(self) -> str:
        """Particles, or chains x temperatures, as in the table."""
        return str(self.particles) + (f"x{self.temperatures}" if self.temperatures else "")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs evaluated on the same data, and their paired differences to one of them; its repr is a table."""

    #: In the order given.
    runs: tuple[ComparedRun, ...]
    #: Name of the run that the others are compared with.
    reference: str
    #: Name of the data set.
    data: str
    split: str
    num_data: int
    units: str
    protocol: str
    data_hash: str
    #: "importance", "local", "annealed" or "auto".
    method: str

    def csv(self) -> str:
        """One line per run, with every digit, and a column for each option in which the runs differ."""
        options = list(dict.fromkeys(name for run in self.runs for name in run.options))
        draws = ("particles", "temperatures")
        numbers = ("parameters", "elbo", "log_evidence", "standard_error", *draws, "difference")
        common = {"reference": self.reference, "data_set": self.data}
        common |= {
            name: getattr(self, name)
            for name in ("split", "num_data", "units", "protocol", "data_hash", "method")
        }
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["run", *options, *numbers, "lower", "upper", "verdict", *common])
        for run in self.runs:
            chosen = [run.options.get(name, "") for name in options]
            found = [getattr(run, name) for name in numbers]
            writer.writerow([run.name, *chosen, *found, *run.interval, run.verdict, *common.values()])
        return text.getvalue()

    def __repr__(self) -> str:
        heading = (self.units, "parameters", "ELBO", "log p(x)", self._drawn, "difference", "verdict")
        rows = _aligned([heading, *(_cells(run) for run in self.runs)])
        # \xa0 keeps an option and its value in one line
        options = {run.name: re.sub("(?<!,) ", "\xa0", options_in_words(run.options)) for run in self.runs}
        notes = self._notes()
        indent = min(max(map(len, [*options, *notes])), 24) + 2
        blocks = [[_entry(name, text, indent) for name, text in each.items()] for each in (options, notes)]
        return "\n".join([*rows, "", *blocks[0], "", *blocks[1]])

    @property
    def _drawn(self) -> str:
        """What the column of draws holds."""
        return "annealed" if self.method == "annealed" else "particles"

    def _notes(self) -> dict[str, str]:
        """What the differences are, and what was measured."""
        data = f"{self.num_data} {self.split} data of {self.data}"
        notes = {
            "difference": f"log p(x) − that of {self.reference}, mean of the same {data}, with a 95\xa0% "
            "interval of each pair by itself, for these trained parameters",
            "protocol": f"{self.protocol}, hash {self.data_hash}",
        }
        sizes = {run.draws: run.particles * (run.temperatures or 1) for run in self.runs}
        draws = sorted(sizes, key=sizes.__getitem__)
        if len(draws) > 1:
            notes[self._drawn] = (
                f"{draws[0]} to {draws[-1]}: the fewer, the lower the estimate of log p(x) in expectation, "
                "so a part of the differences may be bias"
            )
        return notes


def _cells(run: ComparedRun) -> tuple[str, ...]:
    """A row of the table."""
    low, high = run.interval
    return (
        run.name,
        f"{run.parameters:,}",
        f"{run.elbo:.3f}",
        f"{run.log_evidence:.3f} ± {run.standard_error:.3f}",
        run.draws,
        "" if run.verdict == "reference" else f"{run.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
        run.verdict,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, names to the left, numbers to the right; a long name has its own line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], max(_WIDTH - sum(widths[1:]) - 2 * len(widths[1:]), 14))
    lines = []
    for name, *numbers, verdict in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=False)]
        own_line = [name, ""] if len(name) > widths[0] else [name]
        last = "  ".join([f"{own_line[-1]:<{widths[0]}}", *cells, verdict])
        lines += [*own_line[:-1], last.rstrip()]
    return lines


def _entry(name: str, text: str, indent: int) -> str:
    """A name and its text, wrapped; a long name has its own line."""
    lines = wrap(text, _WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    lines = [line.replace("\xa0", " ") for line in lines]
    first = [f"{name:<{indent}}{lines[0]}"] if len(name) < indent - 1 else [name, " " * indent + lines[0]]
    return "\n".join([*first, *(" " * indent + line for line in lines[1:])])
