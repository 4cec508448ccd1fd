"""A tracker at work, whose faults end no training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vae.errors import InputError, one_line, warn
from pyro_vae.ranks import here
from pyro_vae.tracking.base import NoTracker, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tracking:
    """Calls a tracker, and after its first error never again.

    Args:
        tracker: Its folder becomes `tracking` in `folder`.
        folder: Of the checkpoints of the training, or of its run; None for none.

    Raises:
        InputError: where the tracker must have a folder and there is none.
    """

    def __init__(self, tracker: Tracker, folder: Path | None) -> None:
        #: None once it has ended or failed, and on all ranks but the first.
        self._tracker: Tracker | None = tracker if here().first else None
        if isinstance(tracker, NoTracker):
            self._tracker = None
        self._started = False
        if folder is not None:
            tracker.folder = folder / "tracking"
        if tracker.needs_folder and tracker.folder is None:
            raise InputError(
                f"{type(tracker).__name__} writes into the folder of the checkpoints, got none: give "
                "checkpoints=FOLDER, or set its folder"
            )

    def watched_by(self, folder: str) -> str:
        """A command by which what is in a folder is watched; empty for none."""
        return "" if self._tracker is None else self._tracker.watched_by.format(folder=folder)

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin."""
        self._call(lambda tracker: tracker.start(config))
        self._started = True

    def log(
        self, step: int, scalars: Mapping[str, float], figures: "Mapping[str, Figure] | None" = None
    ) -> None:
        """Take something down."""
        self._call(lambda tracker: tracker.log(step, scalars, figures or {}))

    def after_epoch(self, _: object, history: Any) -> None:
        """A callback of `fit`: the fields of the last epoch, except what is not known of it (NaN)."""
        epoch = history.epochs[-1]._asdict()
        step = epoch.pop("step")
        self.log(step, {name: value for name, value in epoch.items() if value == value})

    def end(self) -> None:
        """Close it, where it has begun."""
        if self._started:
            self._call(lambda tracker: tracker.end())
        self._tracker = None

    def _call(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # of whatever library, network or disc
            name, self._tracker = type(self._tracker).__name__, None
            warn(
                f"{name} has failed, and the training goes on without it: "
                f"{type(error).__name__}: {one_line(error)}"
            )
