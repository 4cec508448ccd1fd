"""Tables, the numbers of the answer, and the picture, from the records."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.markdown import markdown, spread
from pyro_vae import plots

#: Title, kind of record, and its scores.
WAYS = (
    ("classifier alone", "alone", "classifier"),
    ("q(y|x)", "semi-supervised", "classifier"),
    ("p(y|x)", "semi-supervised", "posterior"),
)
_SCORES = ("accuracy", "expected_calibration_error", "negative_log_likelihood", "brier_score")


def _of(found: Mapping[str, Any], kind: str, num: int) -> list[Mapping[str, Any]]:
    """The records of one kind and number of labels, over seeds."""
    return [record for name, record in found.items() if name.startswith(f"{kind} {num} ")]


def _labels(found: Mapping[str, Any]) -> list[int]:
    numbers: list[int] = next(iter(found.values()))["about"]["sizes"]["labels"]
    return numbers


def sections(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables by name."""
    return {"scores": _scores(found), "evidence": _evidence(found), "facts": _facts(found)}


def _scores(found: Mapping[str, Any]) -> str:
    heading = ("labels", "probabilities", "accuracy, %", "expected calibration error, %")
    rows: list[Sequence[str]] = [(*heading, "−log probability of the label, nats", "Brier score")]
    for num in _labels(found):
        for title, kind, scores in WAYS:
            records = [record[scores] for record in _of(found, kind, num)]
            columns = [[each[name] for each in records] for name in _SCORES]
            cells = [
                spread([factor * value for value in column])
                for column, factor in zip(columns, (100, 100, 1, 1), strict=True)
            ]
            rows.append((str(num), title, *cells))
    return markdown(rows)


def _evidence(found: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = [("labels", "ELBO", "log p(x)", "k̂ above 0.7, % of data and classes")]
    for num in _labels(found):
        records = _of(found, "semi-supervised", num)
        columns = [[each[name] for each in records] for name in ("elbo", "log_evidence", "unreliable")]
        cells = [
            spread([factor * value for value in column])
            for column, factor in zip(columns, (1, 1, 100), strict=True)
        ]
        rows.append((str(num), *cells))
    return markdown(rows)


def _facts(found: Mapping[str, Any]) -> str:
    about = next(iter(found.values()))["about"]
    semi = [record for name, record in found.items() if name.startswith("semi")]
    made = semi[0]["made"]
    total = sum(record["seconds"] for record in found.values()) / 60
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    epochs = ", ".join(str(record["best_epoch"]) for record in semi)
    return (
        f"{about['data']}, {about['protocol']}, hash of the test data `{about['hash']}`; all trainings and "
        f"measurements took {total:.0f} minutes, on {made['device']} beside other work, {versions}. Best "
        f"epochs by the validation ELBO, without labels: {epochs} of {about['sizes']['epochs']}."
    )


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """The few numbers of the answer."""
    numbers = {}
    for num in _labels(found):
        for name, (_, kind, scores) in zip(("alone", "q", "p"), WAYS, strict=True):
            records = [record[scores] for record in _of(found, kind, num)]
            numbers[f"{name}_{num}"] = 100 * statistics.mean(each["accuracy"] for each in records)
            error = statistics.mean(each["expected_calibration_error"] for each in records)
            numbers[f"{name}_{num}_ece"] = 100 * error
        records = _of(found, "semi-supervised", num)
        numbers[f"evidence_{num}"] = statistics.mean(each["log_evidence"] for each in records)
    return {name: round(number, 3) for name, number in numbers.items()}


def picture(found: Mapping[str, Any]) -> Figure:
    """Reliability, pooled over seeds."""
    panels = {
        f"{num} labels": {
            title: _pooled([record[scores]["bins"] for record in _of(found, kind, num)])
            for title, kind, scores in WAYS
        }
        for num in _labels(found)
    }
    return plots.reliability(panels)


def _pooled(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """The bins of several tables as those of all their data."""
    counts = [sum(each) for each in zip(*(table["counts"] for table in tables), strict=True)]
    pooled: dict[str, list[float | None]] = {"counts": list(counts)}
    for name in ("confidences", "accuracies"):
        rows = zip(*(zip(table["counts"], table[name], strict=True) for table in tables), strict=True)
        sums = [sum(number * (value or 0) for number, value in row) for row in rows]
        pooled[name] = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    return pooled
