"""Tables and summary of the measurements in a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.from_bayes_to_elbo.figures import ratios_of
from experiments.markdown import markdown

Records = Mapping[str, Mapping[str, Any]]

_ESTIMATORS = {
    "reparameterised": "reparameterised",
    "score": "score function",
    "baseline": "score function, less the ELBO",
    "best_baseline": "score function, less the best constant",
}


def sections(records: Records) -> dict[str, str]:
    """The tables by name."""
    return {
        "identity": _identity(records),
        "sampled": _sampled(records),
        "gradients": _gradients(records),
        "encoder": _encoder(records),
        "moves": _moves(records),
    }


def summary(records: Records) -> dict[str, float]:
    """The numbers of the answer, means over seeds where nothing else is said."""
    identities = _of(records, "identity 2")
    gradients = _of(records, "gradients")
    found = {
        "residual": max(each["residual"] for each in _of(records, "identity")),
        "log_evidence": _mean(np.mean(each["log_evidence"]) for each in identities),
        "elbo": _mean(np.mean(each["elbo"]) for each in identities),
        "kl": _mean(np.mean(each["kl"]) for each in identities),
    }
    for name in ("score", "baseline", "best_baseline"):
        found[f"datum_{name}"] = _mean(np.median(_ratio(each, name)) for each in gradients)
    for name in dict.fromkeys(_group(each) for each in records if each.startswith(("encoder", "untrained"))):
        for estimator in ("score", "baseline"):
            ratios = [ratios_of(each)[estimator] for each in _of(records, name)]
            found[f"{name.replace(' ', '_')}_{estimator}"] = _mean(ratios)
    for name in _of(records, "moves")[0]["log_evidence"]:
        found[name] = _mean(np.mean(each["log_evidence"][name]) for each in _of(records, "moves"))
    return found


def _of(records: Records, prefix: str) -> list[Mapping[str, Any]]:
    return [record for name, record in records.items() if name.startswith(f"{prefix} ")]


def _group(name: str) -> str:
    """Without the seed."""
    return name.rpartition(" ")[0]


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def _identity(records: Records) -> str:
    rows = [
        [
            "latent dimensions, seed",
            "data",
            "log p(x)",
            "ELBO",
            "KL(q ‖ p)",
            "largest error of log p = ELBO + KL",
            "of doubling h: log p(x)",
            "ELBO",
            "posterior mass at the border",
        ]
    ]
    for name, record in records.items():
        if name.startswith("identity"):
            means = [f"{np.mean(record[key]):.6f}" for key in ("log_evidence", "elbo", "kl")]
            keys = ("residual", "halving_evidence", "halving_elbo", "border")
            small = [f"{record[key]:.0e}" for key in keys]
            dims, seed = name.split()[1:]
            rows.append([f"{dims}, seed {seed}", str(len(record["kl"])), *means, *small])
    return _minus(markdown(rows))


def _sampled(records: Records) -> str:
    rows = [
        [
            "estimate",
            "pairs of datum and seed",
            "mean error, nats",
            "its Monte Carlo error",
            "r.m.s. of error / Monte Carlo error",
        ]
    ]
    found = _of(records, "identity 2")

    def joined(key: str) -> np.ndarray:
        return np.concatenate([np.array(each[key], dtype=float) for each in found])

    k = joined("pareto_k")
    groups = {
        "`pv.elbo`": ("sampled_elbo", np.ones(len(k), dtype=bool)),
        "`pv.log_evidence`, k̂ at most 0.7": ("sampled_evidence", k <= 0.7),
        "`pv.log_evidence`, k̂ above 0.7": ("sampled_evidence", ~(k <= 0.7)),
    }
    for name, (key, chosen) in groups.items():
        if chosen.any():
            error, spread = joined(key)[chosen], joined(f"{key}_error")[chosen]
            rooted = np.sqrt((spread**2).sum()) / len(spread)
            scaled = np.sqrt(np.mean((error / spread) ** 2))
            rows.append([name, str(chosen.sum()), f"{error.mean():+.5f}", f"{rooted:.5f}", f"{scaled:.2f}"])
    return _minus(markdown(rows))


def _gradients(records: Records) -> str:
    found = _of(records, "gradients")
    rows = [["estimator, K = 1", "by m: median [10 %, 90 %]", "by log s: median [10 %, 90 %]"]]
    for name, label in _ESTIMATORS.items():
        ratios = np.concatenate([_ratio(each, name) for each in found], axis=1)
        rows.append([label, *(_range(each) for each in ratios)])
    scores = [np.array(each["z"]) for record in found for each in record["drawn"]]
    number = sum(len(each) for each in scores)
    rooted = np.sqrt(np.mean(np.concatenate(scores) ** 2))
    difference = max(each["difference"] for each in found)
    return (
        f"{markdown(rows)}\n\nThe two means, integrated, differ by {difference:.0e} at most. "
        f"Drawn by Pyro for one datum of each seed, with each estimator and K = "
        f"{', '.join(str(each) for each in found[0]['about']['num_particles'])}, {number} means of draws are "
        f"{rooted:.2f} standard errors away from the integral (root mean square; 1 where there is no bias)."
    )


def _ratio(record: Mapping[str, Any], name: str) -> np.ndarray:
    """Variances over those of the reparameterised estimator: (2, B)."""
    variances = record["variances"]
    return np.array(variances[name]) / np.array(variances["reparameterised"])


def _range(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{_short(middle)} [{_short(low)}, {_short(high)}]"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _encoder(records: Records) -> str:
    rows = [
        ["model", "score function", "less the ELBO", "variance at K = 1 over K = 10", "bias, standard errors"]
    ]
    names = [name for name in records if name.startswith(("encoder", "untrained"))]
    for group in dict.fromkeys(map(_group, names)):
        found = _of(records, group)
        ratios = [[_short(ratios_of(each)[name]) for each in found] for name in ("score", "baseline")]
        kind, dims = group.split()
        trained = "" if kind == "encoder" else ", not trained"
        cells = [", ".join(each) for each in ratios]
        rows.append([f"{dims} latent dimensions{trained}", *cells, _scaling(found), _biases(found)])
    return _minus(markdown(rows))


def _scaling(found: list[Mapping[str, Any]]) -> str:
    """How much smaller the variance is with more draws, over all estimators and seeds."""
    falls = []
    for record in found:
        by = {(each["estimator"], each["num_particles"]): each["variance"] for each in record["drawn"]}
        last = max(number for _, number in by)
        falls += [by[name, 1] / by[name, last] for name, number in by if number == last > 1]
    return f"{min(falls):.1f} to {max(falls):.1f}" if falls else "–"


def _biases(found: list[Mapping[str, Any]]) -> str:
    scores = [each["z"] for record in found for each in record["drawn"] if "z" in each]
    return f"{min(scores):.1f} to {max(scores):+.1f}" if scores else "–"


def _moves(records: Records) -> str:
    found = _of(records, "moves")
    seeds = [name.split()[1] for name in records if name.startswith("moves ")]
    rows = [["images", "log p(x), nats", *(f"seed {each}" for each in seeds)]]
    for name in found[0]["log_evidence"]:
        means = [float(np.mean(each["log_evidence"][name])) for each in found]
        rows.append([name, f"{np.mean(means):.2f}", *(f"{mean:.2f}" for mean in means)])
    change, slope, widest = (_mean(each[key] for each in found) for key in ("change", "slope", "widest"))
    return _minus(
        f"{markdown(rows)}\n\nA unit of z moves the mean image by {slope:.2f} at most (Euclidean length over "
        f"64 pixels in [0, 1], median over the data of the Jacobian's largest singular value); a step of 0.1 "
        f"in a random direction by {change:.2f} per unit, and a deviation of q(z|x) by at most {widest:.2f}."
    )


def _minus(text: str) -> str:
    """With true minus signs before numbers."""
    return text.replace("| -", "| −").replace(", -", ", −")
