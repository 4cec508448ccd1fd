"""What a run folder holds of its latest evaluation."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_vae.errors import InputError, one_line, shortened
from pyro_vae.storage.files import load_arrays, read_json, read_text, read_yaml
from pyro_vae.storage.identity import identity, options_in
from pyro_vae.storage.runs import Run

#: Results of two runs are compared only where these are equal.
SAME = ("data", "units", "protocol", "split", "num_data", "data_hash", "binarisation seed", "method")

#: What says to which result the numbers of each datum belong.
_LABELS = ("data_hash", "particles", "seed", "split", "format", "configuration", "parameters")

#: The method of results that name none, as all did before there were two.
_METHOD = "importance"


def _anew(folder: Path) -> str:
    """How to write both results of a run anew."""
    name = shlex.quote(str(folder))
    return f"write it anew with pyro-vae train --resume {name}, and then pyro-vae evaluate {name}"


class Result(NamedTuple):
    """What a run folder holds of its latest evaluation."""

    name: str
    config: dict[str, Any]
    parameters: int
    particles: int
    #: Of annealing; None where it was not used.
    temperatures: int | None
    #: By the names of `SAME`.
    facts: dict[str, Any]
    elbo: np.ndarray
    log_evidence: np.ndarray
    #: By the mean of log p(x); None where it has no such unit.
    bits_per_dim: float | None
    #: The lower bound of the mean, and its δ; None in results that were written before there was one.
    at_least: tuple[float, float] | None
    #: Data whose k̂ is above 0.7 or unknown; None where none was fitted.
    heavy: int | None
    #: How far the bounds on simulated data are apart, and the error of that; None where there are none.
    gap: tuple[float, float] | None


def read(folder: Path) -> Result:
    """The latest evaluation of a run: that of `pyro-vae evaluate`, or else of the end of training.

    Raises:
        InputError: where there is none, it is damaged, or it has no finite log p(x) of at least two data.
    """
    run = Run(folder)
    summary = _json(run.folder / "summary.json")
    if summary is None:
        raise InputError(
            f"expected summary.json in {folder}, found none: finish training with "
            f"pyro-vae train --resume {shlex.quote(str(folder))}"
        )
    evaluation = _json(run.folder / "evaluation.json")
    results = {"evaluation.json": evaluation, "summary.json": summary}
    content, arrays = _latest(run, {name: each for name, each in results.items() if each is not None})
    try:
        parameters, facts = int(summary["training"]["parameters"]), _facts(content, len(arrays["elbo"]))
        temperatures = int(content["log_evidence"]["temperatures"]) if facts["method"] == "annealed" else None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected the results of a run in {folder}, got some without {one_line(error)}: {_anew(folder)}"
        ) from error
    _check_configuration(run, content)
    bits, tails = content["log_evidence"].get("bits_per_dim"), content.get("pareto_k")
    simulated, at_least = (content["log_evidence"].get(name) for name in ("certificate", "at_least"))
    return Result(
        str(folder),
        _config(run),
        parameters,
        int(arrays["particles"]),
        temperatures,
        facts,
        arrays["elbo"],
        _finite(arrays["log_evidence"], folder),
        None if bits is None else float(bits),
        None if at_least is None else (float(at_least["bound"]), float(at_least["delta"])),
        None if tails is None else int(tails["above"]) + int(tails["unknown"]),
        None if simulated is None else (float(simulated["gap"]), float(simulated["standard_error"])),
    )


def _latest(run: Run, results: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The result that the numbers of each datum belong to, and these numbers."""
    for name, content in results.items():
        if not isinstance(content.get("log_evidence"), Mapping):
            reason = content.get("no_log_evidence")
            remedy = f"{reason}; leave it out" if reason else _anew(run.folder)
            raise InputError(f"expected log p(x) in {run.folder / name}, got none: {remedy}")
    arrays = _per_datum(run)
    for content in results.values():
        if _belongs(arrays, content):
            return content, arrays
    raise InputError(
        f"{run.folder / 'per_datum.npz'} belongs to another result than {' and '.join(results)}: "
        f"evaluate the run anew with pyro-vae evaluate {shlex.quote(str(run.folder))}"
    )


def _per_datum(run: Run) -> dict[str, np.ndarray]:
    path, vectors = run.folder / "per_datum.npz", ("elbo", "log_evidence")
    remedy = f"evaluate the run anew with pyro-vae evaluate {shlex.quote(str(run.folder))}"
    if not path.is_file():
        raise InputError(f"expected per_datum.npz in {run.folder}, found none: {remedy}")
    arrays = load_arrays(path, (*vectors, *_LABELS))
    shapes = {arrays[name].shape for name in vectors}
    if len(shapes) > 1 or any(arrays[name].ndim != 1 or arrays[name].dtype.kind != "f" for name in vectors):
        raise InputError(f"expected one number for each datum in {path}, got shapes {shapes}: {remedy}")
    return arrays


def _belongs(arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> bool:
    """Whether the numbers of each datum are those of a result: made alike, with the same mean."""
    found = {**content, **content["log_evidence"]}
    if any(str(arrays[name]) != str(found.get(name)) for name in _LABELS):
        return False
    if str(arrays.get("method", _METHOD)) != found.get("method", _METHOD):
        return False
    values, estimate = arrays["log_evidence"], found.get("estimate")
    if estimate is None:  # JSON's word for a mean that is not finite
        return not np.isfinite(values).all()
    return bool(np.isclose(values.mean(), estimate, rtol=1e-9, atol=0))


def _facts(content: Mapping[str, Any], num_data: int) -> dict[str, Any]:
    """What must be the same where runs are compared."""
    method = content["log_evidence"].get("method", _METHOD)
    facts = {"num_data": num_data, "binarisation seed": None, "method": method}
    # the training data are binarised anew at each evaluation
    if content["split"] == "train" and str(content["protocol"]).startswith("dynamic"):
        facts["binarisation seed"] = content["seed"]
    return {name: facts[name] if name in facts else content[name] for name in SAME}


def _finite(log_evidence: np.ndarray, folder: Path) -> np.ndarray:
    """`log_evidence`, refused where a mean or an interval of it means nothing."""
    if len(log_evidence) < 2:
        raise InputError(
            f"expected {folder} evaluated on at least 2 data, got {len(log_evidence)}: an interval needs more"
        )
    bad = int((~np.isfinite(log_evidence)).sum())
    if bad:
        raise InputError(
            f"expected finite log p(x) in {folder}, got {bad} of {len(log_evidence)} data where it is not: "
            "train the run anew"
        )
    return log_evidence


def _json(path: Path) -> dict[str, Any] | None:
    """The content of a result's file, None where there is none."""
    if not path.is_file():
        return None
    return _mapping(path, read_json, "JSON", "results", _anew(path.parent))


def _config(run: Run) -> dict[str, Any]:
    return _mapping(run.config, read_yaml, "YAML", "options", "train anew")


def _check_configuration(run: Run, content: Mapping[str, Any]) -> None:
    """Refuse results of another configuration than the one in the folder."""
    now = identity(options_in(_config(run)), "")["configuration"]
    if content["configuration"] != now:
        raise InputError(
            f"{run.config} was changed after the results in {run.folder} were made: put it "
            "back, or train anew"
        )


def _mapping(path: Path, parse: Callable[[str], Any], form: str, what: str, remedy: str) -> dict[str, Any]:
    """The content of a file of a run, refused where it is damaged or of another kind."""
    try:
        content = parse(read_text(path))
    except ValueError as error:
        raise InputError(
            f"expected {form} in {path}, cannot read it ({one_line(error)}): {remedy}"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"expected the {what} of a run in {path}, got {shortened(content)}: {remedy}")
    return content
