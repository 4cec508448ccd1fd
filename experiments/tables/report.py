"""Tables, answer and picture, from the records alone."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from experiments.markdown import markdown
from pyro_vae import plots

Record = Mapping[str, Any]


def of_table(records: Mapping[str, Record], table: str) -> list[Record]:
    """All splits of a table."""
    return [record for record in records.values() if record["table"] == table]


def tables(records: Mapping[str, Record]) -> list[str]:
    """Their names, in order."""
    return list(dict.fromkeys(record["table"] for record in records.values()))


def methods(records: list[Record]) -> list[str]:
    """Those that all splits have."""
    return [name for name in records[0]["log_p"] if all(name in record["log_p"] for record in records)]


def means(records: list[Record], method: str) -> np.ndarray:
    """The mean log p of the test rows of each split."""
    return np.array([np.mean(record["log_p"][method]) for record in records])


def interval(records: list[Record], method: str) -> tuple[float, float, float]:
    """The VAE's log p less the method's: mean over splits, and its 95 % interval by Student's t."""
    found = means(records, "VAE") - means(records, method)
    if len(found) < 2:
        return float(found.mean()), float(found.mean()), float(found.mean())
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    return float(found.mean()), float(found.mean()) - half, float(found.mean()) + half


def verdict(records: list[Record], method: str) -> str:
    """Of the VAE: better, worse, or within noise."""
    _, low, high = interval(records, method)
    return "within noise" if low <= 0 <= high else "better" if low > 0 else "worse"


def sections(records: Mapping[str, Record]) -> dict[str, str]:
    """The tables by name."""
    return {"log_p": _log_p(records), "chosen": _chosen(records), "facts": _facts(records)}


def _log_p(records: Mapping[str, Record]) -> str:
    rows = [["table", "method", "test log p(x), nats per row", "VAE less it, 95 % interval", "the VAE is"]]
    for table in tables(records):
        splits = of_table(records, table)
        for number, method in enumerate(methods(splits)):
            found = means(splits, method)
            spread = f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else ""
            cells = ["", ""]
            if method != "VAE":
                mean, low, high = interval(splits, method)
                cells = [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", verdict(splits, method)]
            rows.append([table if number == 0 else "", method, f"{found.mean():.2f}{spread}", *cells])
    return markdown(rows).replace("-", "−").replace("|−−−", "|---")


def _chosen(records: Mapping[str, Record]) -> str:
    rows = [["table", "method", "chosen on validation data, of how many splits"]]
    for table in tables(records):
        splits = of_table(records, table)
        for method in ("VAE", "Gaussian mixture", "kernel density"):
            if method in splits[0]["chosen"]:
                counts = Counter(record["chosen"][method] for record in splits)
                words = "; ".join(f"{name}: {number}" for name, number in counts.most_common())
                rows.append([table, method, words])
    return markdown(rows)


def _facts(records: Mapping[str, Record]) -> str:
    lines = []
    for table in tables(records):
        splits = of_table(records, table)
        kinds = Counter(kind for _, kind in splits[0]["columns"])
        columns = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        train, valid, test = splits[0]["sizes"]
        error = np.mean([record["monte_carlo_error"] for record in splits])
        above = 100 * np.mean([record["share_above"] for record in splits])
        lines.append(
            f"`{table}`: {columns}; {train} / {valid} / {test} rows, {len(splits)} splits; Monte Carlo error "
            f"of the VAE's mean {error:.3f}, k̂ above 0.7 for {above:.0f} % of the rows"
        )
    total = sum(record["seconds"] for record in records.values())
    return (
        ".\n".join(lines) + f".\nAll took {total / 60:.0f} minutes on a CPU, one thread, beside other work."
    )


def summary(records: Mapping[str, Record]) -> dict[str, Any]:
    """The numbers of the answer."""
    found: dict[str, Any] = {}
    for table in tables(records):
        splits = of_table(records, table)
        others = [method for method in methods(splits) if method != "VAE"]
        best = max(others, key=lambda method: float(means(splits, method).mean()))
        mean, low, high = interval(splits, best)
        found[table] = {
            "vae": float(means(splits, "VAE").mean()),
            "best": best,
            "best_log_p": float(means(splits, best).mean()),
            "difference": mean,
            "low": low,
            "high": high,
            "verdict": verdict(splits, best),
        }
    return found


def picture(records: Mapping[str, Record]) -> Figure:
    """The VAE's log p(x) less that of each other method, with intervals over splits."""
    rows: list[tuple[str, tuple[float, float, float], str]] = []
    for table in tables(records):
        splits = of_table(records, table)
        for method in methods(splits):
            if method != "VAE":
                rows.append((f"{table}, {method}", interval(splits, method), verdict(splits, method)))
    labels, intervals, verdicts = zip(*rows, strict=True)
    figure = plots.differences(
        labels,
        [mean for mean, _, _ in intervals],
        [(low, high) for _, low, high in intervals],
        verdicts,
        reference="each method",
        units="nats per row, 95 % over splits",
    )
    figure.axes[0].set_xlabel(
        "log p(x) of the VAE less that of the other method (nats per row, 95 % over splits)"
    )
    return figure
