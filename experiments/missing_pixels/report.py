"""Tables of what was measured, and the few numbers of the answer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.markdown import markdown
from experiments.missing_pixels.setting import MODELS
from pyro_vae.comparison import paired_difference

Found = Mapping[str, Mapping[str, Any]]
#: Of parameters and training; the data, the holes and the draws of an evaluation are the same for all.
SEEDS = (0, 1)
_MEANS = "independent pixels with the training means"


def sections(records: Found) -> dict[str, str]:
    """The tables by name."""
    return {
        "likelihoods": _likelihoods(records),
        "imputations": _imputations(records),
        "differences": _differences(records),
        "annealed": _annealed(records),
        "facts": _facts(records),
    }


def _rows(records: Found) -> dict[str, tuple[str, str]]:
    """Label and seed of each record, in the order of the table."""
    found = {f"{name} {seed}": (MODELS[name].label, str(seed)) for name in MODELS for seed in SEEDS}
    return {**found, "means": (_MEANS, "–")}


def _likelihoods(records: Found) -> str:
    rows = [["model", "seed", "log p(x)", "log p(x_obs)", "log p(x_mis given x_obs)", "k̂ above 0.7"]]
    for name, (label, seed) in _rows(records).items():
        whole, observed = (np.array(records[name][each]) for each in ("log_px", "log_px_observed"))
        row = [label, seed, *(_with_error(each) for each in (whole, observed, whole - observed))]
        rows.append([*row, _unreliable(records[name])])
    return markdown(rows)


def _unreliable(record: Mapping[str, Any]) -> str:
    """Of how many images, of log p(x) and of log p(x_obs)."""
    if "above" not in record:
        return "exact"
    return f"{record['above']} and {record['above_observed']} of {len(record['log_px'])}"


def _imputations(records: Found) -> str:
    rows = [["model", "seed", "F1 of ink", "pixels that are right", "mean squared error"]]
    for name, (label, seed) in _rows(records).items():
        found = records[name]
        rows.append([label, seed, f"{found['f1']:.4f}", f"{found['accuracy']:.2%}", f"{found['mse']:.5f}"])
    return markdown(rows)


def _differences(records: Found) -> str:
    """Against the MVAE of the same seed, over the test images."""
    rows = [["difference to the MVAE of the same seed", "seed", "log p(x)", "log p(x_obs)"]]
    for name in ("miwae", "vae"):
        for seed in SEEDS:
            row = [MODELS[name].label, str(seed)]
            rows.append([*row, *(_difference(records, name, seed, each) for each in _NATS)])
    return markdown(rows)


_NATS = ("log_px", "log_px_observed")


def _difference(records: Found, name: str, seed: int, what: str) -> str:
    values, reference = (np.array(records[f"{each} {seed}"][what]) for each in (name, "mvae"))
    mean, (low, high) = paired_difference(values, reference)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")


def _annealed(records: Found) -> str:
    """Importance sampling and annealing on the same images, of the first seed."""
    heading = ["model", *(f"{label}, {how}" for label in ("log p(x)", "log p(x_obs)") for how in _METHODS)]
    rows = [heading]
    for name in MODELS:
        row = [MODELS[name].label]
        for what in _NATS:
            better = np.array(records[f"annealed {name}"][what])
            sampled = np.array(records[f"{name} {SEEDS[0]}"][what])[: len(better)]
            row += [f"{each:.2f}".replace("-", "−") for each in (sampled.mean(), better.mean())]
        rows.append(row)
    return markdown(rows)


_METHODS = ("importance sampling", "annealing")


def _facts(records: Found) -> str:
    record = records[f"mvae {SEEDS[0]}"]
    error = max(each.get("monte_carlo_error", 0.0) for each in records.values())
    versions = ", ".join(f"{name} {number}" for name, number in record["made"]["versions"].items())
    weighted, plain = (_seconds(records, name, "training") for name in ("miwae", "mvae"))
    return (
        f"Hash of the test data `{record['about']['hash']}`; {record['parameters']:,} parameters; training "
        f"takes {weighted} s of CPU with K = {MODELS['miwae'].num_particles} and {plain} s with the ELBO, "
        f"measuring one model {_seconds(records, 'mvae', 'measuring')} s; Monte Carlo error of a mean "
        f"log p(x) at most {error:.3f} nats; {record['made']['device']}; {versions}."
    )


def _seconds(records: Found, name: str, what: str) -> str:
    """The most of all seeds, since one that was interrupted has those of its last part."""
    return f"{max(records[f'{name} {seed}']['seconds'][what] for seed in SEEDS):.0f}"


def summary(records: Found) -> dict[str, Any]:
    """The numbers of the answer: means over the seeds, and those of the first seed by annealing."""
    found = {name: [records[f"{name} {seed}"] for seed in SEEDS] for name in MODELS}
    digits = {"log_px": 2, "log_px_observed": 2, "f1": 3, "accuracy": 4, "mse": 4}

    def means(of_seeds: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
        return {
            what: round(float(np.mean([each[what] for each in of_seeds])), digits[what]) for what in names
        }

    of_all = {name: means(each, digits) for name, each in {**found, "means": [records["means"]]}.items()}
    return of_all | {f"annealed {name}": means([records[f"annealed {name}"]], _NATS) for name in MODELS}


def _with_error(values: np.ndarray) -> str:
    """Mean and standard error over the images."""
    return f"{values.mean():.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}".replace("-", "−")
