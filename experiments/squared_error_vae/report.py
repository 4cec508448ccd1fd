"""Tables of what was measured, and the few numbers of the answer."""

from collections.abc import Mapping
from typing import Any

from experiments.markdown import markdown
from experiments.squared_error_vae.losses import LOSSES, constant
from experiments.squared_error_vae.measures import linear_active
from experiments.squared_error_vae.variants import VARIANTS

Found = Mapping[str, Any]
_SIZES = (100, 784, 10)


def sections(records: Found) -> dict[str, str]:
    """The tables by name."""
    return {
        "losses": _losses(),
        "results": _results(records),
        "collapse": _collapse(records),
        "facts": _facts(records),
    }


def models(records: Found) -> Found:
    """The records of trained models."""
    return {name: records[name] for name in VARIANTS}


def _losses() -> str:
    rows = [["loss of a batch", "s", "for B = 100, D = 784, L = 10", "left out of it: D/2 log(2π s²)"]]
    for loss, formula in zip(LOSSES, _FORMULAS, strict=True):
        scale = loss.scale(*_SIZES)
        left_out = f"{constant(scale, _SIZES[1]):,.1f} nats".replace("-", "−")
        rows.append([f"`{loss.text}`", formula, f"{scale:.4g}", left_out])
    return markdown(rows)


_FORMULAS = ("1", "√(1/2)", "√(β/2), β = 4", "√(1/2B)", "√(D/2)", "√(D/2L)", "√(BD/2)")


def _results(records: Found) -> str:
    heading = ["scale", "s", "ELBO", "KL", "active units", "RMSE", "log p(x)", "k̂ above 0.7"]
    rows = [[*heading, "bits per dim", "ELBO, had only s been set to the RMSE"]]
    for name, found in models(records).items():
        scale = f"{found['scale']:.4g}" + (" (geometric mean)" if name == "per-pixel" else "")
        row = [VARIANTS[name].label, scale, _number(found["elbo"]), _number(_nats(found["kl"]))]
        row += [f"{found['active']} of {found['of']}", f"{found['rmse']:.4f}"]
        row.append(f"{_number(found['log_evidence'])} ± {found['standard_error']:.2f}")
        row += [f"{found['unreliable']} of {found['data']}", f"≤ {found['bits_per_dim']:.3f}"]
        rows.append([*row, "–" if name == "per-pixel" else _number(found["best_elbo"])])
    return markdown(rows)


def _collapse(records: Found) -> str:
    """Active units beside those of a linear VAE, and how far samples are apart."""
    variances = records["data"]["variances"]
    linear = f"a linear VAE of {next(iter(models(records).values()))['of']} dimensions would use"
    heading = ["scale", "s²", "active units", linear, "spread of samples"]
    rows = [[*heading, "their mean from the mean image"]]
    for name, found in models(records).items():
        if name == "per-pixel":
            continue
        theory = min(linear_active(variances, found["scale"]), found["of"])
        row = [VARIANTS[name].label, f"{found['scale'] ** 2:.4g}", str(found["active"]), str(theory)]
        rows.append([*row, f"{found['spread']:.4f}", f"{found['to_mean_image']:.4f}"])
    return markdown(rows)


def _facts(records: Found) -> str:
    found = models(records)
    first = next(iter(found.values()))
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    seconds = sum(each["seconds"] for each in found.values())
    sizes = ", ".join(f"{number:,}" for number in first["about"]["sizes"])
    where = f"{first['about']['data']} ({sizes} data for training, validation and test), {first['protocol']}"
    return f"{where}; {seconds / 60:.0f} minutes of training in all; {versions}."


def summary(records: Found) -> dict[str, Any]:
    """The numbers of the answer."""
    names = ("scale", "elbo", "active", "rmse", "log_evidence", "bits_per_dim", "spread")
    found = models(records)
    return {
        **{
            name: {"kl": _nats(each["kl"]), **{key: each[key] for key in names}}
            for name, each in found.items()
        },
        "largest_variance": records["data"]["variances"][0],
    }


def _nats(value: float) -> float:
    """To two digits, without the sign of a zero, which a sampled KL can have."""
    return round(value, 2) + 0.0


def _number(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")
