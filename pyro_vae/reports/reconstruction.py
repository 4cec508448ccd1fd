"""The report of a program that has no p(x), as an `Autoencoder`: its error of reconstruction."""

from collections.abc import Mapping
from typing import Any


def errors(reason: str) -> dict[str, Any]:
    """What stands in the place of log p(x), in JSON: why there is none, and what the "ELBO" is then."""
    return {
        "log_evidence": None,
        "no_log_evidence": reason,
        "pareto_k": None,
        "units": "reconstruction error per datum, negated",
    }


def error_lines(content: Mapping[str, Any]) -> list[str]:
    """What stands in the place of ELBO and log p(x), in the table."""
    lines = [f"{'per datum':<15}{'error':>10}"]
    for name, part in content["elbo"].items():
        lines.append(f"{name:<15}{-part['elbo']:>10.3f}   {part['num_data']} data")
    return [*lines, f"{'log p(x)':<15}none: {content['no_log_evidence']}"]
