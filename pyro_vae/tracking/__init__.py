"""Where a training is watched: TensorBoard, Weights & Biases, MLflow, a CSV file, a class of one's own."""

from pyro_vae.tracking.base import NoTracker, Tracker
from pyro_vae.tracking.files import CsvTracker, TensorBoardTracker
from pyro_vae.tracking.names import NAMES, Track, tracker_of, usual_tracker
from pyro_vae.tracking.services import MLflowTracker, WandbTracker
from pyro_vae.tracking.tracking import Tracking

__all__ = [
    "NAMES",
    "CsvTracker",
    "MLflowTracker",
    "NoTracker",
    "TensorBoardTracker",
    "Track",
    "Tracker",
    "Tracking",
    "WandbTracker",
    "tracker_of",
    "usual_tracker",
]
