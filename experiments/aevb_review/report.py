"""Tables of what was measured, and the few numbers of the answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.aevb_review.measures import GROUPS, constant_density
from experiments.aevb_review.variants import VARIANTS
from experiments.markdown import markdown

Found = Mapping[str, Any]
_EPOCHS = (1, 3, 5, 7, 10, 15, 20, 28, 29, 30, 50, 70, 100)
_BOUNDS = (-3, -6, -10, -20)


def sections(records: Found) -> dict[str, str]:
    """The tables by name."""
    records = {name: records[name] for name in VARIANTS}
    return {
        "results": _results(records),
        "groups": _groups(records),
        "scales": _scales(records),
        "unusual": _unusual(records),
        "integrated": _integrated(records),
        "growth": _growth(records),
        "bounds": _bounds(records),
        "draws": _draws(records),
        "facts": _facts(records),
    }


def _results(records: Found) -> str:
    heading = ["likelihood", "epochs (best)", "ELBO", "KL", "log p(x)", "k̂ above 0.7", "bits per dim", "RMSE"]
    rows = [heading]
    for name, found in records.items():
        bits, part = found["bits_per_dim"], found["integrated"]
        epochs = f"{found['training']['epochs']} ({found['training']['best_epoch']})"
        row = [VARIANTS[name].label, epochs, _number(found["elbo"]["test"]), f"{found['kl']:.2f}"]
        row.append(f"{_number(found['log_evidence'])} ± {found['standard_error']:.2f}")
        row.append(f"{part['unreliable']} of {part['data']}")
        row += ["–" if bits is None else f"≤ {bits:.3f}", f"{found['rmse']:.4f}"]
        rows.append(row)
    return markdown(rows)


def _integrated(records: Found) -> str:
    """Importance sampling against the integral, by the diagnosis of importance sampling."""
    heading = ["likelihood", "log p(x), integrated", "sampled", "k̂ up to 0.7: data", "mean distance"]
    rows = [[*heading, "k̂ above 0.7: data", "mean distance", "largest"]]
    for name, found in records.items():
        part = found["integrated"]
        k = np.array(part["pareto_k"], dtype=float)
        distance = np.abs(np.array(part["estimate"]) - np.array(part["sampled"]))
        good, poor = distance[k <= 0.7], distance[~(k <= 0.7)]
        row = [VARIANTS[name].label, *(_number(float(np.mean(part[each]))) for each in _ESTIMATES)]
        row += [str(len(good)), _number(good.mean(), 3) if len(good) else "–", str(len(poor))]
        rows.append([*row, *(_number(each(poor), 3) if len(poor) else "–" for each in (np.mean, np.max))])
    change = max(found["integrated"]["change"] for found in records.values())
    number = len(next(iter(records.values()))["integrated"]["estimate"])
    return (
        f"The first {number} of these data, in nats; the last division of the squares changed no integral by "
        f"more than {change:.0e}.\n\n{markdown(rows)}"
    )


_ESTIMATES = ("estimate", "sampled")


def _draws(records: Found) -> str:
    """One draw of z per datum and step against several."""
    names = ("dequantised", "dequantised-5")
    length = min(len(records[name]["curves"]["train_elbo"]) for name in names)
    rows = [["draws of z", *(f"validation ELBO, epoch {each}" for each in range(1, length + 1))]]
    for name, number in zip(names, ("L = 1", "L = 5"), strict=True):
        values = records[name]["curves"]["valid_elbo"][:length]
        rows.append([number, *(_number(each, 1) for each in values)])
    return markdown(rows)


def _groups(records: Found) -> str:
    """Nats of log density by group of pixels."""
    pixels = next(iter(records.values()))["density"]["pixels"]
    rows = [["pixels that change in", "pixels", *(VARIANTS[name].short for name in records)]]
    for index, group in enumerate(GROUPS):
        parts = (_number(found["density"]["nats"][index], 1) for found in records.values())
        rows.append(["none of the training data" if index == 0 else group, str(pixels[index]), *parts])
    total = (_number(sum(found["density"]["nats"]), 1) for found in records.values())
    rows.append(["all", str(sum(pixels)), *total])
    for last, name in enumerate(_SHARES):
        rows.append(
            [name, str(sum(pixels[: last + 1])), *(f"{share(each, last):.0%}" for each in records.values())]
        )
    return markdown(rows)


_SHARES = ("share of the first row", "share of the first two", "share of the first three")


def share(found: Found, last: int) -> float:
    """Of the log density, what comes from the groups of pixels up to this one."""
    nats = found["density"]["nats"]
    return sum(nats[: last + 1]) / sum(nats)


def _scales(records: Found) -> str:
    heading = ["likelihood", "smallest log s", "s", "at row, column", "mean log s: constant pixels"]
    rows = [[*heading, *(group for group in list(GROUPS)[1:])]]
    for name, found in records.items():
        smallest, row, column = found["density"]["smallest"]
        means = ("–" if each is None else _number(each) for each in found["density"]["log_scale"])
        scale = f"{np.exp(smallest):.2e}"
        rows.append([VARIANTS[name].label, _number(smallest), scale, f"{row}, {column}", *means])
    return markdown(rows)


def _unusual(records: Found) -> str:
    heading = ["likelihood", "mean", "median", "mean of those with such a pixel", "of the others"]
    rows = [[*heading, "three lowest (such pixels)"]]
    for name, found in records.items():
        part = found["density"]["unusual"]
        means = ("–" if part[each] is None else _number(part[each], 1) for each in _MEANS)
        lowest = zip(part["lowest"], part["lowest_unusual"], strict=True)
        rows.append([VARIANTS[name].label, *means, ", ".join(f"{_number(a, 0)} ({b})" for a, b in lowest)])
    first = next(iter(records.values()))["density"]["unusual"]
    text = (
        f"{first['number']:,} of {first['data']:,} test images have a pixel with another level than the one "
        "that it has in all, or all but 0.1 %, of the training images."
    )
    return f"{text}\n\n{markdown(rows)}"


_MEANS = ("mean", "median", "with", "without")


def _growth(records: Found) -> str:
    """ELBO of training and validation at some epochs."""
    length = max(len(found["curves"]["train_elbo"]) for found in records.values())
    epochs = [epoch for epoch in _EPOCHS if epoch <= length]
    rows = [["likelihood", "ELBO", *(f"epoch {epoch}" for epoch in epochs)]]
    for name, found in records.items():
        for kind in ("train", "valid"):
            values = found["curves"][f"{kind}_elbo"]
            texts = (_number(values[epoch - 1], 1) if epoch <= len(values) else "" for epoch in epochs)
            rows.append([VARIANTS[name].label if kind == "train" else "", kind, *texts])
    return markdown(rows)


def _bounds(records: Found) -> str:
    """What the constant pixels alone would give at a lower bound of log s."""
    pixels = next(iter(records.values()))["density"]["pixels"][0]
    rows = [["lower bound of log s", "nats per constant pixel", f"nats of all {pixels}"]]
    for bound in _BOUNDS:
        each = constant_density(bound)
        rows.append([_number(bound, 0), _number(each), _number(pixels * each, 0)])
    return markdown(rows)


def _facts(records: Found) -> str:
    first = next(iter(records.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    seconds = sum(sum(found["curves"]["seconds"]) for found in records.values())
    sizes = ", ".join(f"{number:,}" for number in first["about"]["sizes"])
    where = f"{first['about']['data']} ({sizes} data for training, validation and test)"
    return f"{where}; {seconds / 60:.0f} minutes of training in all; {versions}."


def summary(records: Found) -> dict[str, Any]:
    """The numbers of the answer."""
    wide, bounded = records["unbounded-30"], records["bounded"]
    spread = records["dequantised"]
    return {
        "constant_pixels": wide["density"]["pixels"][0],
        "pixels": sum(wide["density"]["pixels"]),
        "rare_pixels": sum(wide["density"]["pixels"][:3]),
        "share": share(wide, 2),
        "train_first": wide["curves"]["train_elbo"][0],
        "train_best": max(wide["curves"]["train_elbo"]),
        "train_worst": min(wide["curves"]["train_elbo"][1:], default=0.0),
        "patience_best_epoch": records["unbounded"]["training"]["best_epoch"],
        "rmse": {name: found["rmse"] for name, found in records.items()},
        "log_evidence": {name: found["log_evidence"] for name, found in records.items()},
        "bounded_share": share(bounded, 2),
        "unusual": wide["density"]["unusual"]["number"],
        "with_unusual": wide["density"]["unusual"]["with"],
        "without_unusual": wide["density"]["unusual"]["without"],
        "bits_per_dim": spread["bits_per_dim"],
    }


def _number(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")
