"""`pyro-vae report`."""

import csv
import io
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.errors import InputError, one_line, seed_number
from pyro_vae.pages.page import page
from pyro_vae.pages.subject import Subject
from pyro_vae.storage.files import load_arrays, read_json, read_text, read_yaml, write
from pyro_vae.storage.runs import Run, runs_in
from pyro_vae.training import Epoch

T = TypeVar("T")


def report(runs: list[Path], *, out: Path | None, seed: int, device: str) -> None:
    """One HTML page on a run, or on several side by side, that needs no other file and no network.

    Configuration, training curves, the split of the ELBO, log p(x) with its certificate and k-hat, samples,
    reconstructions, the latent plane with a point to drag over it, traversals and interpolations; and of a
    run that was diagnosed every nat, the calibration and the verdict. What is not there says why. A run takes
    some ten seconds.

    Args:
        runs: Folders of the runs, or of several seeds, as `train --seeds` makes it; those that differ in
            their seed only stand together.
        out: File of the page; by default report.html in the folder of the run, or of several in this one.
        seed: Of all draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    path = out or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    if path.suffix != ".html":
        raise InputError(f"--out expects a .html file, got {path}")
    seed_number(seed)
    subjects = [subject_of(folder, device) for run in runs for folder in runs_in(run)]
    write(path, page(subjects, seed=seed).encode())
    print(path)


class _Reading:
    """Reads what is there, and keeps why something is not."""

    def __init__(self) -> None:
        self.lacking: dict[str, str] = {}

    def __call__(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (InputError, OSError, ValueError) as error:
            self.lacking[name] = one_line(error)
            return None


def subject_of(folder: Path, device: str) -> Subject:
    """A run for a page, as far as it can be read.

    Raises:
        InputError: where the folder is none of a run, or its config.yaml is none.
    """
    run, reading = Run(folder), _Reading()
    config = read_yaml(read_text(run.config))
    if not isinstance(config, dict):
        raise InputError(f"expected the options of a run in {run.config}, got something else: train anew")
    opened = reading("vae", lambda: load(folder, device=device))
    data = None
    if opened is None:
        reading.lacking |= dict.fromkeys(("facts", "data"), reading.lacking["vae"])
    else:
        data = reading("data", opened.data)
    results = reading("results", lambda: _results(run, opened))
    return Subject(
        folder,
        config,
        None if opened is None else opened.vae,
        None if opened is None else opened.facts,
        data,
        reading("metrics", lambda: _metrics(run)),
        results,
        reading("per_datum", lambda: _per_datum(run, results)),
        reading("diagnosis", lambda: _diagnosis(run, opened)),
        reading.lacking,
    )


def _results(run: Run, opened: TrainedRun | None) -> dict[str, Any]:
    """evaluation.json, or else summary.json, of these parameters."""
    name = shlex.quote(str(run.folder))
    for file in ("evaluation.json", "summary.json"):
        if (run.folder / file).is_file():
            content = _content(run, file)
            if _belongs(content, opened):
                return content
    raise InputError(
        f"no results of these parameters: pyro-vae evaluate {name} makes them (seconds, as training did)"
    )


def _diagnosis(run: Run, opened: TrainedRun | None) -> dict[str, Any]:
    """diagnosis.json, of these parameters."""
    if opened is not None and opened.vae.no_evidence:
        raise InputError(f"there is nothing to diagnose: {opened.vae.no_evidence}")
    there = (run.folder / "diagnosis.json").is_file()
    if there:
        content = _content(run, "diagnosis.json")
        if _belongs(content, opened):
            return content
    why = "diagnosis.json is of other parameters" if there else "the run has not been diagnosed"
    raise InputError(
        f"{why}: pyro-vae diagnose {shlex.quote(str(run.folder))} does it (on one core about a minute for "
        "pictures of 8 × 8, two and a half for 28 × 28, 100 data and small networks)"
    )


def _content(run: Run, name: str) -> dict[str, Any]:
    content = read_json(read_text(run.folder / name))
    if not isinstance(content, dict):
        raise InputError(f"expected the results of a run in {run.folder / name}, got something else")
    return content


def _belongs(content: Mapping[str, Any], opened: TrainedRun | None) -> bool:
    """Whether results are of the parameters that are kept; what cannot be held against them is taken."""
    if opened is None:
        return True
    return all(content.get(name) == opened.identity[name] for name in ("configuration", "parameters"))


def _per_datum(run: Run, results: Mapping[str, Any] | None) -> Mapping[str, NDArray[Any]]:
    """The numbers of each datum, where they are those of the results."""
    if results is None:
        raise InputError("there are no results that it could belong to")
    labels = ("data_hash", "seed", "split", "configuration", "parameters")
    arrays = load_arrays(run.folder / "per_datum.npz", labels)
    if any(str(arrays[name]) != str(results.get(name)) for name in labels):
        raise InputError("per_datum.npz belongs to other results")
    return arrays


def _metrics(run: Run) -> dict[str, list[float]]:
    """The columns of metrics.csv, those of `Epoch`."""
    rows = list(csv.DictReader(io.StringIO(read_text(run.folder / "metrics.csv"))))
    if not rows or set(Epoch._fields) - rows[0].keys():
        raise InputError("metrics.csv has no epoch of a training")
    return {name: [float(row[name]) for row in rows] for name in Epoch._fields}
