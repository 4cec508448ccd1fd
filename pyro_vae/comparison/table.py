"""A comparison, as a table for a person and as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

from pyro_vae.comparison.believing import DELTA, Belief
from pyro_vae.comparison.options import options_in_words
from pyro_vae.markup import Markup, table
from pyro_vae.tabular import formatted

#: Of the models, where the spread over seeds is known; else "higher" or "lower", of the trained parameters.
Verdict = Literal["reference", "better", "worse", "higher", "lower", "within noise"]

_WIDTH = 110


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One model of a `Comparison`: a run, or several that differ in their seed only.

    ELBO and log p(x) are means over the data, and over the seeds, in nats per datum.
    """

    #: The folder of its first run, as given, and how many there are.
    name: str
    #: The options in which the runs differ, as typed on the command line.
    options: dict[str, str]
    #: Number of trained parameters.
    parameters: int
    elbo: float
    log_evidence: float
    #: Of `log_evidence`, over the data; that over the seeds is not in it.
    standard_error: float
    #: Importance samples per datum, or annealed chains.
    particles: int
    #: Of annealing; None for importance sampling.
    temperatures: int | None
    #: Mean of log p(x) − log p(x) of the reference.
    difference: float
    #: Paired 95 % interval of `difference`, over the seeds where their spread is known.
    interval: tuple[float, float]
    #: "within noise" where the interval contains 0.
    verdict: Verdict
    #: The folders of its runs.
    members: tuple[str, ...]
    #: Mean log p(x) of each of them.
    of_members: tuple[float, ...]
    #: Standard deviation of these; None for one seed.
    seed_deviation: float | None
    #: By the mean of log p(x); None where the data have no such unit.
    bits_per_dim: float | None
    #: Seeds of either model that would settle it; 0 where it is, None where no number is known to.
    seeds_needed: int | None
    #: What of its log p(x) is certain.
    belief: Belief

    @property
    def draws(self) -> str:
        """Particles, or chains x temperatures, as in the table."""
        return str(self.particles) + (f"x{self.temperatures}" if self.temperatures else "")


def name_of(names: Sequence[str]) -> str:
    """What a model of these runs is called.

    >>> name_of(["runs/a"]), name_of(["runs/a", "runs/b", "runs/c"])
    ('runs/a', 'runs/a +2')
    """
    others = len(names) - 1
    return f"{names[0]} +{others}" if others else names[0]


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
        """One line per model, with every digit, and a column for each option in which the models differ."""
        options = list(dict.fromkeys(name for run in self.runs for name in run.options))
        draws = ("particles", "temperatures")
        numbers = ("parameters", "elbo", "log_evidence", "standard_error", *draws, "difference")
        more = ("seed_deviation", "bits_per_dim", "seeds_needed")
        common = {"reference": self.reference, "data_set": self.data}
        common |= {
            name: getattr(self, name)
            for name in ("split", "num_data", "units", "protocol", "data_hash", "method")
        }
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["run", *options, *numbers, "lower", "upper", "verdict", "seeds", *more, "at_least", *common]
        )
        for run in self.runs:
            chosen = [run.options.get(name, "") for name in options]
            found, others = ([getattr(run, name) for name in names] for names in (numbers, more))
            cells = [run.name, *chosen, *found, *run.interval, run.verdict, len(run.members), *others]
            cells.append(run.belief.at_least)
            writer.writerow([*cells, *common.values()])
        return text.getvalue()

    def markdown(self) -> str:
        """The table in Markdown."""
        return formatted(self._rows, "markdown")

    def latex(self) -> str:
        """The table in LaTeX, for the package booktabs."""
        return formatted(self._rows, "latex")

    def html(self) -> Markup:
        """The table in HTML, with what it says below."""
        options = {run.name: options_in_words(run.options) for run in self.runs}
        return table(self._rows, "Differences in log p(x)", options | self._notes())

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        rows = _aligned(self._rows)
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

    @property
    def _several(self) -> bool:
        """Whether there is a model of several seeds."""
        return any(len(run.members) > 1 for run in self.runs)

    @property
    def _has_bits(self) -> bool:
        return all(run.bits_per_dim is not None for run in self.runs)

    @property
    def _rows(self) -> list[list[str]]:
        """The heading, and a row for each model."""
        return [self._heading, *map(self._cells, self.runs)]

    @property
    def _heading(self) -> list[str]:
        """Names of the columns."""
        seeds, bits = ["seeds"] * self._several, ["bits/dim"] * self._has_bits
        numbers = ["parameters", *seeds, "ELBO", "log p(x)", *bits, self._drawn, "difference"]
        return [self.units, *numbers, "verdict"]

    def _cells(self, run: ComparedRun) -> list[str]:
        """A row of the table."""
        low, high = run.interval
        seeds = [str(len(run.members))] * self._several
        bits = [f"{run.bits_per_dim:.4f}"] if self._has_bits else []
        error = run.standard_error if run.seed_deviation is None else run.seed_deviation
        return [
            run.name,
            f"{run.parameters:,}",
            *seeds,
            f"{run.elbo:.3f}",
            f"{run.log_evidence:.3f} {'±' if run.seed_deviation is None else 'sd'} {error:.3f}",
            *bits,
            run.draws,
            "" if run.verdict == "reference" else f"{run.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
            run.verdict,
        ]

    def _notes(self) -> dict[str, str]:
        """What the differences are, and what was measured."""
        data = f"{self.num_data} {self.split} data of {self.data}"
        of = "over data and seeds" if self._several else "for these trained parameters"
        notes = {
            "difference": f"log p(x) − that of {self.reference}, mean of the same {data}, with a 95\xa0% "
            f"interval of each pair by itself, {of}",
            "protocol": f"{self.protocol}, hash {self.data_hash}",
        }
        if self._several:
            notes["log p(x)"] = "± standard error over the data; sd: standard deviation over the seeds"
            short = [f"{run.seeds_needed} for {run.name}" for run in self.runs if run.seeds_needed]
            if short:
                notes["seeds"] = f"that would settle such a difference, of each model: {', '.join(short)}"
        elif any(run.verdict in ("higher", "lower") for run in self.runs):
            notes["verdict"] = (
                "of one training each: another seed may turn it round; train each model from several seeds "
                "(--seed 1, 2, ...), which are then one row, and compare says which model is better"
            )
        sizes = {run.draws: run.particles * (run.temperatures or 1) for run in self.runs}
        draws = sorted(sizes, key=sizes.__getitem__)
        if len(draws) > 1:
            notes[self._drawn] = (
                f"{draws[0]} to {draws[-1]}: the fewer, the lower the estimate of log p(x) in expectation, "
                "so a part of the differences may be bias"
            )
        return notes | self._certain()

    def _certain(self) -> dict[str, str]:
        """Which side of the differences is certain, and what the other one rests on."""
        bounds = [(run.name, run.belief.at_least) for run in self.runs]
        known = [f"{bound:.3f} for {name}" for name, bound in bounds if bound is not None]
        lower = [run for run in self.runs if run.log_evidence < max(each.log_evidence for each in self.runs)]
        if len(known) < len(bounds) or not lower:
            return {}
        certified = f"log p(x) is at least {', '.join(known)}, all with probability {1 - DELTA:g}"
        return {
            "certified": f"{certified}, whatever the weights",
            "estimated": f"how far above that the lower ones are; {'; '.join(map(_rests, lower))}",
        }


def _rests(run: ComparedRun) -> str:
    """What speaks for or against an estimate's not being too low."""
    found = []
    if run.belief.heavy is not None:
        heavy, number = run.belief.heavy
        likely = ", whose estimates are likely too low" if heavy else ""
        found.append(f"k-hat is above 0.7 or unknown for {heavy} of {number} data{likely}")
    if run.belief.gap is not None:
        gap, error = run.belief.gap
        found.append(f"bounds on simulated data are {gap:.3f} ± {error:.3f} apart")
    return f"of {run.name}, {' and '.join(found) or 'nothing speaks for it (evaluate has --simulated 100)'}"


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
