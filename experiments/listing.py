"""Experiments in folders: what each asks, how it is run, and what its results answer.

    NAME/experiment.yaml    question, command, results (the files that it makes), answer
    NAME/README.md          protocol, tables, pictures
    NAME/results/           what it found: files and pictures, of which some are copied from run folders

In the answer `{file[key]:.2f}` stands for a number in results/file.json, or `{file[row][column]}` for one in
results/file.csv, the row named by its first column; so no number is written by hand.
"""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import yaml

from experiments.markdown import markdown
from pyro_vae.errors import InputError, one_line

_FIELDS = {"question", "command", "results", "answer"}


class Experiment(NamedTuple):
    """One experiment, as its folder has it."""

    #: Name of the folder.
    name: str
    #: What it asks.
    question: str
    #: How it is run, one command per line.
    command: str
    #: The results that are not there.
    missing: tuple[str, ...]
    #: What the results say; empty where some are missing.
    answer: str

    @property
    def status(self) -> str:
        """`complete`, or what is missing."""
        return f"missing: {', '.join(self.missing)}" if self.missing else "complete"


def read_experiments(folder: Path) -> list[Experiment]:
    """The experiments of a folder, by name.

    Raises:
        InputError: where there is none, or a file lacks a field or names a number that is not in the results.
    """
    files = sorted(folder.glob("*/experiment.yaml"))
    if not files:
        raise InputError(
            f"expected a folder of experiments (each with experiment.yaml), got {str(folder)!r}: "
            "name another with --folder"
        )
    return [_read(file) for file in files]


def _read(file: Path) -> Experiment:
    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{file} is no YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or set(content) != _FIELDS:
        got = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)
        raise InputError(f"{file} expects the fields {', '.join(sorted(_FIELDS))}, got {got}")
    folder = file.parent
    missing = tuple(name for name in content["results"] if not (folder / "results" / name).is_file())
    answer = "" if missing else _answer(content["answer"], folder / "results", content["results"], file)
    return Experiment(folder.name, content["question"], content["command"].strip(), missing, answer)


def _answer(text: str, folder: Path, names: Sequence[str], file: Path) -> str:
    """`text` with its numbers from the results, with true minus signs."""
    results = {Path(name).stem: _content(folder / name) for name in names if name.endswith((".json", ".csv"))}
    try:
        filled = text.format_map(results)
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"{file}: the answer names what is not in the results: {error!r}") from error
    return re.sub(r"(?<![\w–−-])-(?=\d)", "−", filled)


def _content(path: Path) -> Any:
    """What is in a file of results; rows of CSV by what stands in their first column."""
    text = path.read_text()
    if path.suffix == ".csv":
        rows = csv.DictReader(text.splitlines())
        return {next(iter(row.values())): {key: _number(word) for key, word in row.items()} for row in rows}
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is no JSON: {one_line(error)}") from error


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def listing(experiments: Sequence[Experiment]) -> str:
    """The experiments for the screen."""
    return "\n\n".join(_lines(each) for each in experiments)


def _lines(experiment: Experiment) -> str:
    parts = [f"{experiment.name}  ({experiment.status})"]
    for text in (experiment.question, experiment.answer):
        parts += [fill(text, 100, initial_indent="    ", subsequent_indent="    ")] if text else []
    return "\n".join(parts + [f"    $ {line}" for line in experiment.command.splitlines()])


def summary_table(experiments: Sequence[Experiment]) -> str:
    """The experiments as a table in Markdown, each with a link to its folder."""
    rows = [("experiment", "question", "answer", "status")]
    for each in experiments:
        rows.append(
            (f"[`{each.name}`]({each.name}/README.md)", each.question, each.answer or "–", each.status)
        )
    return markdown(rows)
