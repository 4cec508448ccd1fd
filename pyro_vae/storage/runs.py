"""A run's folder: configuration, metrics, checkpoints, results. Knows no model.

    config.yaml     the configuration, reusable with --config
    metrics.csv     one row per epoch
    history.png     the same as a picture
    checkpoints/    last.pt, from which training goes on; best.pt, by validation ELBO; while a command is
                    interrupted evaluation/ or diagnosis/, from which it goes on
    summary.json    the final numbers, with all that is needed to compare them
    evaluation.json the same by `evaluate`, of the latest one
    per_datum.npz   ELBO and log p(x) of each datum, of the latest evaluation
    diagnosis.json  where the nats go, by `diagnose`
    report.html     all that is known of the run on one page, by `report`
    samples.csv     of a table, rows drawn from the model
    codes.csv       of a table, the held-out rows with mean and standard deviation of their codes
    tracking/       what a tracker keeps of the training, as the event files of TensorBoard
    figures/        pictures
    export/         encoder and decoder by `export`

Runs that were trained together, by `--seeds`, are the folders seed-0, seed-1, … of one that is no run itself.

Every file is written under a temporary name, flushed and renamed, so a kill leaves the old or the
new one, never half of one.
"""

import csv
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count as numbers
from pathlib import Path
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.storage.files import TEMPORARY, write, write_arrays
from pyro_vae.storage.locks import locked

#: All that a run writes into its folder.
OWNED = (
    "summary.json",
    "evaluation.json",
    "diagnosis.json",
    "per_datum.npz",
    "metrics.csv",
    "history.png",
    "report.html",
    "samples.csv",
    "codes.csv",
    "figures",
    "export",
    "tracking",
    "checkpoints",
    "config.yaml",  # last, so that the folder stays one of a run until all is gone
)


class Run:
    """The folder of one run.

    Args:
        folder: Where it is.

    Raises:
        InputError: where `folder` has no config.yaml.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.config.is_file():
            raise InputError(
                f"expected the folder of a run (with config.yaml), got {self.folder}: "
                "make one with pyro-vae train --out FOLDER"
            )
        for name in OWNED:
            if (self.folder / name).is_symlink():  # through which one would read, or write, elsewhere
                raise InputError(
                    f"expected files of its own in the run {self.folder}, got {name} as a link: put "
                    "there what it points to"
                )

    @classmethod
    @contextmanager
    def written(cls, folder: Path | None, name: str = "run") -> Iterator[Path]:
        """Hold the folder of a run as the only one that trains in it; made where it does not exist.

        What a killed writer left half written is removed. A folder in which nothing is written does not stay.

        Args:
            folder: The folder; None for the first of runs/NAME-1, runs/NAME-2, … that does not exist, however
                many look for one at once.
            name: Of it.

        Raises:
            InputError: where another process trains in it, or it cannot be made.
        """
        parent = Path("runs") if folder is None else folder
        missing = [each for each in (parent, *parent.parents) if not each.exists()]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if folder is None:
                folder = _reserved(parent, name)
                missing.insert(0, folder)
        except OSError as error:
            raise InputError(
                f"cannot write the output folder {parent} ({error.strerror}): choose another with --out"
            ) from error
        try:
            with locked(folder):
                for place in (folder, folder / "checkpoints", folder / "figures"):
                    for left in place.glob(f"*{TEMPORARY}"):
                        left.unlink(missing_ok=True)
                yield folder
        finally:
            with suppress(OSError):  # of one in which something is
                for each in missing:
                    each.rmdir()

    @classmethod
    def create(cls, folder: str | Path, config: str, *, overwrite: bool = False) -> "Run":
        """A new run folder holding `config` as config.yaml.

        Raises:
            InputError: where the folder exists and `overwrite` is not given, or cannot be written.
        """
        folder = Path(folder)
        try:
            if folder.exists() and any_entry(folder):
                cls._clear(folder, overwrite)
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            (folder / "figures").mkdir(exist_ok=True)
            write(folder / "config.yaml", config.encode())
        except OSError as error:
            raise InputError(
                f"cannot write the output folder {folder} ({error.strerror}): choose another with --out"
            ) from error
        return cls(folder)

    @classmethod
    def _clear(cls, folder: Path, overwrite: bool) -> None:
        """Remove what a run has written, and nothing else, where that is allowed."""
        if not overwrite:
            raise InputError(
                f"the output folder {folder} exists: choose another with --out, or give --overwrite true"
            )
        written = {"checkpoints", "metrics.csv", "summary.json"} & {path.name for path in folder.iterdir()}
        if not (folder / "config.yaml").is_file() or not written:
            raise InputError(f"{folder} is not the folder of a run, so it is not overwritten: remove it")
        for name in OWNED:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def figures(self) -> Path:
        """The folder of pictures."""
        return self.folder / "figures"

    def write_metrics(self, fields: Iterable[str], rows: Iterable[Iterable[float]]) -> None:
        """metrics.csv anew, from all rows, with every digit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows(rows)
        write(self.folder / "metrics.csv", text.getvalue().encode())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`content` as NAME in the folder; numbers that are not finite become null."""
        text = json.dumps(_finite(content), indent=2, allow_nan=False)
        write(self.folder / name, (text + "\n").encode())

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """`arrays` (arrays, numbers and strings) as NAME, an .npz, in the folder."""
        write_arrays(self.folder / name, arrays)


def of_seed(folder: Path, seed: int) -> Path:
    """The folder of a run of a seed, among those of others in a folder."""
    return folder / f"seed-{seed}"


def seeds_in(folder: Path) -> list[int]:
    """The seeds whose runs lie in a folder that is no run itself."""
    if not folder.is_dir() or (folder / "config.yaml").exists():
        return []
    names = (path.parent.name for path in folder.glob("seed-*/config.yaml"))
    numbers = (name.removeprefix("seed-") for name in names)
    return sorted(int(number) for number in numbers if number.isdecimal())


def runs_in(folder: Path) -> list[Path]:
    """The runs that lie in a folder of several seeds; of any other the folder itself."""
    return [of_seed(folder, seed) for seed in seeds_in(folder)] or [folder]


def _reserved(parent: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, … in a folder that was not there, made by this call."""
    for number in numbers(1):
        with suppress(FileExistsError):
            (parent / f"{name}-{number}").mkdir()
            break
    return parent / f"{name}-{number}"


def any_entry(folder: Path) -> bool:
    """Whether `folder` is a file or a folder with something in it."""
    return not folder.is_dir() or any(folder.iterdir())


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
