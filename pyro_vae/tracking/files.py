"""Trackers that write into the run's folder: TensorBoard, and a CSV file."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyro_vae.storage.files import read_text, write
from pyro_vae.tracking.base import Tracker, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoardTracker(Tracker):
    """Event files of TensorBoard, in `folder`; numbers are kept in float32, as TensorBoard does.

    A training that goes on adds a file to those that are there, which TensorBoard shows as one run.
    """

    watched_by = "tensorboard --logdir {folder}"
    needs_folder = True

    def __init__(self) -> None:
        require("tensorboard")

    def start(self, config: Mapping[str, Any]) -> None:
        """Open an event file, and keep the configuration as a text."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder))
        lines = [f"| {name} | {value} |" for name, value in config.items()]
        self._writer.add_text("config", "\n".join(["| option | value |", "|---|---|", *lines]))

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """One point of each curve, and each picture."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        for name, figure in figures.items():
            self._writer.add_figure(name, figure, step, close=False)
        self._writer.flush()  # so that who watches sees it, and an error is of this call

    def end(self) -> None:
        """Close the file."""
        self._writer.close()


class CsvTracker(Tracker):
    """scalars.csv in `folder`, a row for each step with every digit, and pictures as PNG beside it.

    >>> import tempfile
    >>> tracker = CsvTracker()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tracker.folder = Path(folder)
    ...     tracker.start({"epochs": 2})
    ...     tracker.log(13, {"epoch": 1, "train_elbo": -43.5}, {})
    ...     tracker.log(26, {"epoch": 2, "train_elbo": -31.25}, {})
    ...     tracker.end()
    ...     print((tracker.folder / "scalars.csv").read_text(), end="")
    step,epoch,train_elbo
    13,1,-43.5
    26,2,-31.25
    """

    needs_folder = True
    _NAME: ClassVar[str] = "scalars.csv"

    def start(self, config: Mapping[str, Any]) -> None:
        """Read the rows that are there."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = _rows(self.folder / self._NAME)

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """Write the file anew, with what is new of this step."""
        assert self.folder is not None
        self._rows.setdefault(step, {}).update({name: repr(value) for name, value in scalars.items()})
        columns = ["step", *dict.fromkeys(name for row in self._rows.values() for name in row)]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **self._rows[step]} for step in sorted(self._rows))
        write(self.folder / self._NAME, text.getvalue().encode())
        if figures:
            from pyro_vae.plots import save  # slow to import

            for name, figure in figures.items():
                save(figure, self.folder / f"{name}.png")

    def end(self) -> None:
        """Nothing is open."""


def _rows(path: Path) -> dict[int, dict[str, str]]:
    """What a file holds, by step; nothing where there is none."""
    if not path.exists():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path)))
    return {int(row.pop("step")): {name: value for name, value in row.items() if value} for row in rows}
