"""Tables and pictures of what was measured."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from experiments.benchmarks.cases import CASES, SMOKE, Case, Kind, case_flops
from experiments.benchmarks.race import Row
from experiments.benchmarks.registry import FLOOR, GROUPS, VARIANTS, Variant, reference
from experiments.benchmarks.summary import (
    TARGETS,
    Spread,
    fastest,
    floor,
    measured,
    median,
    ratio,
    spread,
)
from experiments.markdown import markdown
from pyro_vae import plots

Records = Mapping[str, Row]


def case_of(name: str) -> Case:
    return {**CASES, **SMOKE}[name]


def of_kind(records: Records, kind: Kind) -> dict[str, Row]:
    """The records of one kind, in the order of the cases."""
    return {
        name: records[name] for name in (*CASES, *SMOKE) if name in records and case_of(name).kind == kind
    }


def sections(records: Records, device: str) -> dict[str, str]:
    """What README shows, by the names of its places."""
    found = {
        "facts": facts(records),
        "overview": overview(of_kind(records, "steps")),
        "targets": targets(records) if device == "cpu" else "",
        "steps": "\n\n".join(detail(name, each) for name, each in of_kind(records, "steps").items()),
        "evidence": "\n\n".join(detail(name, each) for name, each in of_kind(records, "evidence").items()),
        "particles": "\n\n".join(particles(each) for each in of_kind(records, "particles").values()),
    }
    return {f"{name} {device}": section for name, section in found.items() if section}


def overview(records: Records) -> str:
    """The ratio of each variant in each case, with peak memory beside it."""
    if not records:
        return ""
    rows = [
        ["ratio of step time to PyTorch eager (peak memory)", *(each["title"] for each in records.values())]
    ]
    for variant in VARIANTS["steps"]:
        cells = [_cell(record, variant) for record in records.values()]
        if any(cell != "–" for cell in cells):
            rows.append([variant, *cells])
    return markdown(rows)


def _cell(record: Row, variant: str) -> str:
    row = measured(record).get(variant)
    if row is None:
        return "–"
    found = ratio(row["seconds"], record["rows"][reference("steps")]["seconds"])
    memory = f" ({megabytes(row)} MB)" if "memory" in row and not variant.startswith("products") else ""
    return f"{found.median:.2f}{memory}"


def detail(name: str, record: Row) -> str:
    """All that was measured in one case."""
    case = case_of(name)
    unit, value = ("ms per step", "loss per datum")
    if case.kind == "evidence":
        unit, value = f"s per 1000 data (scaled from {case.batch})", "mean log p(x)"
    rows = [["", unit, "ratio to PyTorch eager", "× floor", "peak MB", "start-up s", value]]
    variants = VARIANTS[case.kind]
    rows += [
        [variant, *_detail_row(record, variant, case)] for variant in variants if variant in record["rows"]
    ]
    lines = [f"**{record['title']}**", markdown(rows), _caption(record, case, variants)]
    return "\n\n".join([*lines, *_absences(record)])


def _detail_row(record: Row, variant: str, case: Case) -> list[str]:
    row = measured(record).get(variant)
    if row is None:
        return ["–"] * 6
    scale = 1e3 if case.kind == "steps" else 1000 / case.batch
    least = floor(record, VARIANTS[case.kind])
    trained = row.get("value")
    return [
        quartiles(spread([each * scale for each in row["seconds"]])),
        quartiles(ratio(row["seconds"], record["rows"][reference(case.kind)]["seconds"])),
        number(median(record, variant) / least),
        megabytes(row),
        f"{row['startup']:.1f}",
        "" if trained is None else f"{trained:.2f}".replace("-", "−"),
    ]


def _caption(record: Row, case: Case, variants: Mapping[str, Variant]) -> str:
    """What the numbers are of."""
    work = case_flops(case) / 1e9
    text = (
        f"Medians [quartiles] of {record['rounds']} rounds of {record['steps_per_turn']} "
        f"{'steps' if case.kind == 'steps' else 'estimates'} each. Matrix products: {work:.3g} GFLOP"
    )
    names = [name for name in measured(record) if variants[name].group == FLOOR]
    rates = [f"{number(work / median(record, name))} GFLOP/s ({name.split(', ')[1]})" for name in names]
    return f"{text}{', measured at ' if rates else ''}{' and '.join(rates)}."


def _absences(record: Row) -> list[str]:
    """Which variants have no numbers, and why."""
    reasons = [
        f"{name} ({row.get('left_out') or 'failed: ' + row['failed']})"
        for name, row in record["rows"].items()
        if "left_out" in row or "failed" in row
    ]
    return [f"Left out: {'; '.join(reasons)}."] if reasons else []


def particles(record: Row) -> str:
    """Time and memory of log p(x) of one datum by the number of draws."""
    rows = [["draws of one datum", "ms", "peak MB", "mean log p(x)"]]
    for name, row in measured(record).items():
        times = quartiles(spread([each * 1e3 for each in row["seconds"]]))
        rows.append([name, times, megabytes(row), f"{row['value']:.2f}".replace("-", "−")])
    return "\n\n".join([markdown(rows), *_absences(record)])


def targets(records: Records) -> str:
    """What was aimed at, and what was reached."""
    rows = [
        ["time of pyro_vae over that of", "case", "at most", "`fit` by default", "fastest of its variants"]
    ]
    for target in TARGETS:
        record = records.get(target.case)
        if record is None:
            continue
        best = fastest(record, target.variants)
        default = "pyro_vae fit auto" if target.variants is VARIANTS["steps"] else "pyro_vae log_evidence"
        cells = [_reached(target.reached(record, name), target.limit) for name in (default, best)]
        if best:
            cells[1] += f" ({best.removeprefix('pyro_vae ')})"
        rows.append([target.reference, record["title"], f"{target.limit:.2f}", *cells])
    return markdown(rows) if len(rows) > 1 else ""


def _reached(found: float, limit: float) -> str:
    if not math.isfinite(found):
        return "–"
    return f"{found:.2f}, {'met' if found <= limit else 'missed'}"


def facts(records: Records) -> str:
    """Where and when, once for each machine and day."""
    texts: dict[str, list[str]] = {}
    for name, record in records.items():
        where = record["circumstances"]
        versions = ", ".join(f"{key} {value}" for key, value in where["versions"].items() if value)
        place = f"{where['gpu']}, " if where["gpu"] else ""
        text = (
            f"{place}{where['cpu']}, {where['cores']} cores, {where['threads']} threads; "
            f"python {where['python']}, {versions}; data: {where['data']}; {where['date'][:10]}"
        )
        texts.setdefault(text, []).append(name)
    if len(texts) == 1:
        return f"{next(iter(texts))}."
    return "\n\n".join(f"{', '.join(names)}: {text}." for text, names in texts.items())


def quartiles(found: Spread) -> str:
    return f"{number(found.median)} [{number(found.low)}, {number(found.high)}]"


def number(value: float) -> str:
    """Three digits."""
    if not math.isfinite(value):
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 4)}f}"


def megabytes(row: Row) -> str:
    return f"{row['memory'] / 1e6:.0f}" if "memory" in row else "–"


def picture(records: Records, kind: Kind) -> Figure | None:
    """Ratios to the reference, a panel for each case; None where nothing was measured."""
    variants, first = VARIANTS[kind], reference(kind)
    shown = [name for name in variants if any(name in measured(each) for each in records.values())]
    if not shown:
        return None
    panels = {record["title"]: [_bar(record, name, first) for name in shown] for record in records.values()}
    what = "step" if kind == "steps" else "log p(x)"
    return plots.ratios(
        shown,
        [variants[name].group for name in shown],
        panels,
        order=GROUPS,
        xlabel=f"time per {what} over that of {first}: median and quartiles, log scale",
    )


def _bar(record: Row, variant: str, first: str) -> Spread | None:
    rows = measured(record)
    return ratio(rows[variant]["seconds"], rows[first]["seconds"]) if variant in rows else None
