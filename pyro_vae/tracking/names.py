"""Trackers by their short names."""

import os

from pyro_vae.errors import InputError
from pyro_vae.tracking.base import NoTracker, Tracker, is_installed
from pyro_vae.tracking.files import CsvTracker, TensorBoardTracker
from pyro_vae.tracking.services import MLflowTracker, WandbTracker

#: Each by the name of what it writes for.
NAMES: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MLflowTracker,
    "csv": CsvTracker,
    "none": NoTracker,
}

Track = str | Tracker | None


def tracker_of(track: Track) -> Tracker:
    """The tracker that is meant.

    Raises:
        InputError: where there is none of this name, or its library is not installed.

    >>> type(tracker_of("csv")).__name__, type(tracker_of(None)).__name__
    ('CsvTracker', 'NoTracker')
    """
    if isinstance(track, Tracker):
        return track
    if track is None:
        return NoTracker()
    if not isinstance(track, str) or track not in NAMES:
        raise InputError(
            f"track expects one of {', '.join(NAMES)}, or an object of a class that derives from "
            f"pyro_vae.Tracker, got {track!r}"
        )
    return NAMES[track]()


def usual_tracker() -> Tracker:
    """That of the environment variable PYRO_VAE_TRACK, or TensorBoard's where it is installed, or none."""
    if named := os.environ.get("PYRO_VAE_TRACK"):
        return tracker_of(named)
    return TensorBoardTracker() if is_installed("tensorboard") else NoTracker()
