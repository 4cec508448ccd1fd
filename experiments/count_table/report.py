"""Tables of what was measured, and the few numbers of the answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.count_table.setting import MODELS
from experiments.markdown import markdown
from pyro_vae.comparison import paired_difference

Found = Mapping[str, Mapping[str, Any]]
#: Of parameters and training.
SEEDS = (0, 1)

#: What is compared: a name, the models, and the truth's difference of the same kind, by what it is given.
_PAIRS = (
    ("negative binomial less Poisson, p(x)", "negative binomial", "poisson", None),
    (
        "negative binomial less Poisson, p(x given e)",
        "negative binomial, exposure",
        "poisson, exposure",
        None,
    ),
    (
        "negative binomial, p(x given e) less p(x)",
        "negative binomial, exposure",
        "negative binomial",
        ("e", "–"),
    ),
    ("Poisson, p(x given e) less p(x)", "poisson, exposure", "poisson", ("e", "–")),
)
#: Models of which log p(x|n) is known, and where it is kept.
_GIVEN_TOTALS = {
    "poisson": "log_p_given_total",
    "negative binomial": "log_p_given_total",
    "multinomial": "log_p",
}


def sections(records: Found) -> dict[str, str]:
    """The tables by name."""
    return {
        "likelihoods": _likelihoods(records),
        "differences": _differences(records),
        "totals": _totals(records),
        "facts": _facts(records),
    }


def of(records: Found, name: str, seed: int, what: str = "log_p") -> np.ndarray:
    """Of one model: (B,)."""
    return np.array(records[f"{name} {seed}"][what])


def _likelihoods(records: Found) -> str:
    rows = [["likelihood", "given", "seed", "log p", "by the truth", "short of it by", "k̂ above 0.7"]]
    for name, model in MODELS.items():
        for seed in SEEDS:
            values, truth = of(records, name, seed), np.array(records["truth"][model.given])
            row = [model.label, model.given, str(seed), _number(values.mean()), _number(truth.mean())]
            unreliable = f"{records[f'{name} {seed}']['above']} of {len(values)}"
            rows.append([*row, _paired(truth, values), unreliable])
    return markdown(rows)


def _differences(records: Found) -> str:
    rows = [["difference", *(f"seed {seed}" for seed in SEEDS), "of the truth"]]
    for label, name, reference, truth in _PAIRS:
        found = [_paired(of(records, name, seed), of(records, reference, seed)) for seed in SEEDS]
        known = _paired(*(np.array(records["truth"][each]) for each in truth)) if truth else "–"
        rows.append([label, *found, known])
    return markdown(rows)


def _totals(records: Found) -> str:
    truth = np.array(records["truth"]["n"])
    rows = [["likelihood", "seed", "log p(x given n)", "short of the truth by"]]
    for name, what in _GIVEN_TOTALS.items():
        for seed in SEEDS:
            values = of(records, name, seed, what)
            rows.append([MODELS[name].label, str(seed), _number(values.mean()), _paired(truth, values)])
    return markdown([*rows, ["the truth", "–", _number(truth.mean()), "0"]])


def _facts(records: Found) -> str:
    record = records[f"poisson {SEEDS[0]}"]
    seconds = sum(each["seconds"] for each in records.values())
    error = max(each.get("monte_carlo_error", 0.0) for each in records.values())
    versions = ", ".join(f"{name} {number}" for name, number in record["made"]["versions"].items())
    return (
        f"Hash of the test data `{record['about']['hash']}`; {seconds / 60:.1f} minutes of CPU in all; Monte "
        f"Carlo error of a mean log p at most {error:.3f} nats; {record['made']['device']}; {versions}."
    )


def summary(records: Found) -> dict[str, Any]:
    """The numbers of the answer: nats short of the truth, means over the seeds."""

    def short(name: str, given: str, what: str = "log_p") -> float:
        truth = np.array(records["truth"][given])
        return round(float(np.mean([truth - of(records, name, seed, what) for seed in SEEDS])), 3)

    found = {name: short(name, model.given) for name, model in MODELS.items()}
    totals = {f"{name}, total": short(name, "n", what) for name, what in _GIVEN_TOTALS.items()}
    known = np.array(records["truth"]["e"]) - np.array(records["truth"]["–"])
    return {**found, **totals, "information": round(float(known.mean()), 3)}


def _paired(values: np.ndarray, reference: np.ndarray) -> str:
    mean, (low, high) = paired_difference(values, reference)
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
