"""Tables and the answer's numbers, from the records alone; a number is named by its keys, with dots."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from experiments.markdown import markdown
from experiments.swap.report import difference

Record = Mapping[str, Any]

#: The two models, by the options that they are trained with.
OPTIONS = {
    "autoencoder": ("--program", "Autoencoder", "--program.loss", "cross_entropy"),
    "VAE": ("--program", "VAE"),
}
#: What was decoded, by its key.
SOURCES = {
    "standard": "z ~ N(0, I)",
    "fitted": "z ~ N(m′, S′)",
    "reconstructions": "codes of test images",
}


def sections(records: Mapping[str, Record]) -> dict[str, str]:
    """The tables by name."""
    return {
        "codes": _codes(records),
        "classes": _rows(records, ["", *OPTIONS], _CLASSES, digits=1, factor=100),
        "decoded": _decoded(records),
        "lines": _rows(records, ["% of draws", *OPTIONS], _LINES, digits=1, factor=100),
        "fit": _rows(records, ["nats per test image", *OPTIONS], _FIT),
        "evidence": _evidence(records),
        "facts": _facts(records),
    }


def of_kind(records: Mapping[str, Record], kind: str) -> list[Record]:
    """The records of one model, of all seeds."""
    return [record for name, record in records.items() if name.split()[0] == kind]


def numbers(records: Sequence[Record], path: str) -> np.ndarray:
    """One number of each record: (S,)."""
    return np.array([reduce(lambda part, key: part[key], path.split("."), each) for each in records], float)


def spread(records: Sequence[Record], path: str, *, digits: int = 2, factor: float = 1) -> str:
    """Mean ± standard deviation over seeds; empty where the records do not have it."""
    try:
        return _shown(factor * numbers(records, path), digits)
    except KeyError:
        return ""


def off_centre(records: Sequence[Record], part: str) -> np.ndarray:
    """How far the mean of the codes is from 0, in their standard deviations along the longest axis: (S,)."""
    return numbers(records, f"{part}.off_centre") / numbers(records, f"{part}.longest")


def _shown(found: np.ndarray, digits: int = 2) -> str:
    error = f" ± {found.std(ddof=1):.{digits}f}" if len(found) > 1 else ""
    return f"{found.mean():.{digits}f}{error}".replace("-", "−")


def _rows(
    records: Mapping[str, Record],
    heading: Sequence[str],
    wanted: Mapping[str, str],
    *,
    digits: int = 2,
    factor: float = 1,
) -> str:
    """A table with a column for each model."""
    rows = [list(heading)]
    for name, path in wanted.items():
        cells = [spread(of_kind(records, kind), path, digits=digits, factor=factor) for kind in OPTIONS]
        rows.append([name, *cells])
    return markdown(rows)


_SPREAD = {
    "distance of the mean from 0": "off_centre",
    "standard deviation along the longest axis": "longest",
    "along the shortest": "shortest",
    "KL(N(m, S) ‖ N(0, I)), nats": "divergence",
    "sliced 2-Wasserstein distance to N(0, I)": "distance",
    "the same after whitening": "shape_distance",
}


def _codes(records: Mapping[str, Record]) -> str:
    plain, vae = (of_kind(records, kind) for kind in OPTIONS)
    columns = [(plain, "codes"), (vae, "codes"), (vae, "cloud"), ([records["images"]], "normal")]
    names = ["autoencoder, codes", "VAE, means of q(z given x)", "VAE, draws of q(z given x)"]
    rows = [
        [name, *(spread(group, f"{part}.{key}") for group, part in columns)] for name, key in _SPREAD.items()
    ]
    relative = [
        "in standard deviations along the longest axis",
        *(_shown(off_centre(*each)) for each in columns),
    ]
    return markdown([["", *names, "draws of N(0, I)"], rows[0], relative, *rows[1:]])


_CLASSES = {
    "accuracy of the 10 nearest training codes, %": "neighbours",
    "variance within classes, %": "within",
}

_JUDGED = {
    "confident digit, %": ("confident", 100),
    "when thresholded, %": ("confident_sharp", 100),
    "kinds of digits": ("classes", 1),
    "pixels to the nearest image": ("pixels", 1),
    "in holes, %": ("holes", 100),
    "class kept, %": ("accuracy", 100),
}


def _decoded(records: Mapping[str, Record]) -> str:
    rows = [["decoded", *_JUDGED]]
    for source, name in SOURCES.items():
        for kind in OPTIONS:
            rows.append([f"{kind}, {name}", *_judged(of_kind(records, kind), source)])
    return markdown([*rows, ["test images themselves", *_judged([records["images"]], "test")]])


def _judged(records: Sequence[Record], source: str) -> list[str]:
    wanted = _JUDGED.values()
    return [spread(records, f"{source}.{key}", digits=1, factor=factor) for key, factor in wanted]


_LINES = {
    "confident digit at the ends": "line.ends",
    "in the middle": "line.middle",
    "over the nine steps between": "line.inner",
    "of these, of neither end's class": "line.inner_third",
}

_FIT = {
    "cross-entropy at the code": "fit.error",
    "at a draw of q(z given x)": "fit.error_drawn",
    "KL(q(z given x) ‖ p(z))": "fit.kl",
    "ELBO": "fit.elbo",
}


def _evidence(records: Mapping[str, Record]) -> str:
    number = of_kind(records, "VAE")[0]["evidence"]["num_grid"]
    heading = [f"log p(x) of {number} test images", "autoencoder, z ~ N(m′, S′)", "VAE"]
    nats = {
        "integrated over a grid, nats": "evidence.grid",
        "importance sampling, nats": "evidence.importance",
        "its largest shortfall on an image, nats": "evidence.shortfall",
    }
    shares = {
        "short by more than ½ nat, % of images": "evidence.short",
        "of which with a Pareto k̂ below 0.7, % of images": "evidence.short_unseen",
        "Pareto k̂ above 0.7, % of images": "evidence.tails",
    }
    rows = _rows(records, heading, shares, digits=1, factor=100).split("\n")[2:]
    return "\n".join([_rows(records, heading, nats), *rows])


def advantage(records: Mapping[str, Record]) -> tuple[float, float, float]:
    """Log p(x) of the autoencoder with a fitted normal less the VAE's, with its interval."""
    plain, vae = (np.array([each["evidence"]["each"] for each in of_kind(records, kind)]) for kind in OPTIONS)
    return difference(plain, vae)


def _facts(records: Mapping[str, Record]) -> str:
    plain, vae = (of_kind(records, kind) for kind in OPTIONS)
    about, made = plain[0]["about"], plain[0]["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    parameters = [
        f"{each[0]['training']['parameters']:,} of the {name}"
        for name, each in zip(OPTIONS, (plain, vae), strict=True)
    ]
    training = numbers([*plain, *vae], "training.seconds").sum() / 60
    measuring = sum(record["seconds"] for record in records.values()) / 60
    mean, low, high = (f"{number:+.2f}".replace("-", "−") for number in advantage(records))
    return (
        f"{about['data']}, {about['protocol']}, hash of the test data `{about['hash']}`; parameters: "
        f"{', '.join(parameters)}. {len(plain) + len(vae)} trainings took {training:.0f} minutes, measuring "
        f"{measuring:.0f}; {made['device']}, {versions}. {_grids(plain, vae)} The autoencoder's "
        f"log p(x) less the VAE's is {mean} nats, 95 % interval over images and seeds [{low}, {high}], which "
        "does not include the error of the grid."
    )


def _grids(plain: Sequence[Record], vae: Sequence[Record]) -> str:
    """What the grid leaves open: how far one half as fine is from it."""
    means = [
        np.abs(numbers(each, "evidence.grid") - numbers(each, "evidence.coarse")).max()
        for each in (plain, vae)
    ]
    furthest = [numbers(each, "evidence.coarse_furthest") for each in (plain, vae)]
    seeds = " and ".join(f"{each:.1f}" for each in furthest[0])
    return (
        f"The grid and one half as fine differ in the mean by at most {means[0]:.2f} nats for the "
        f"autoencoder and {means[1]:.4f} for the VAE, on a single image by at most {furthest[0].max():.1f} "
        f"({seeds} by seed) and {furthest[1].max():.2f}."
    )


_ANSWER = {
    "off_centre": ("cloud.off_centre", 1),
    "longest": ("cloud.longest", 1),
    "shortest": ("cloud.shortest", 1),
    "distance": ("cloud.distance", 1),
    "shape_distance": ("cloud.shape_distance", 1),
    "neighbours": ("neighbours", 100),
    "error": ("fit.error", 1),
    "line": ("line.inner", 100),
    "log_evidence": ("evidence.grid", 1),
    **{f"{source}": (f"{source}.confident", 100) for source in ("standard", "fitted")},
    **{f"{source}_classes": (f"{source}.classes", 1) for source in ("standard", "fitted")},
    **{f"{source}_holes": (f"{source}.holes", 100) for source in ("standard", "fitted")},
}


def summary(records: Mapping[str, Record]) -> dict[str, float]:
    """The numbers of the answer: means over seeds, shares in percent."""
    found = {"test_images": 100 * records["images"]["test"]["confident"]}
    for kind in OPTIONS:
        for name, (path, factor) in _ANSWER.items():
            found[f"{kind.lower()}_{name}"] = factor * numbers(of_kind(records, kind), path).mean()
        found[f"{kind.lower()}_off_centre_relative"] = off_centre(of_kind(records, kind), "cloud").mean()
    found["advantage"], found["advantage_low"], found["advantage_high"] = advantage(records)
    found["elbo"] = numbers(of_kind(records, "VAE"), "fit.elbo").mean()
    return {name: round(float(number), 4) for name, number in found.items()}
