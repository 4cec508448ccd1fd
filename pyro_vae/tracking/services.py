"""Trackers that speak to a service, or to its files: Weights & Biases, MLflow."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vae.errors import shortened
from pyro_vae.storage.files import read_json, read_text, write
from pyro_vae.tracking.base import Tracker, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WandbTracker(Tracker):
    """A run of Weights & Biases; its id is kept in `folder`, by which a training goes on in the same run.

    What wandb reads from the environment holds: WANDB_MODE=offline keeps all in `folder` until `wandb sync`.

    Args:
        project: In which the run is.
        entity: User or team; by default that of wandb.
        name: Of the run; by default that of the run's folder.
    """

    def __init__(
        self, *, project: str = "pyro_vae", entity: str | None = None, name: str | None = None
    ) -> None:
        require("wandb")
        self.project, self.entity, self.name = project, entity, name

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin a run, or go on with it."""
        import wandb

        known = _kept(self.folder, "wandb.json").get("id")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.name or _name_of(self.folder),
            id=known,
            resume="allow" if known else None,
            config=dict(config),
            dir=None if self.folder is None else str(self.folder),
            reinit="create_new",  # trainings of several seeds are under way at once
        )
        _keep(self.folder, "wandb.json", {"id": self._run.id})

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """One point of each curve, and each picture."""
        import wandb

        pictures = {name: wandb.Image(figure) for name, figure in figures.items()}
        self._run.log({**scalars, **pictures}, step=step)

    def end(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflowTracker(Tracker):
    """A run of MLflow; its id is kept in `folder`, by which a training goes on in the same run.

    Args:
        experiment: In which the run is; made where there is none.
        uri: Of the tracking server, or of local files, as sqlite:///mlflow.db; by default that of MLflow, as
            MLFLOW_TRACKING_URI.
        name: Of the run; by default that of the run's folder.
    """

    watched_by = "mlflow ui"

    def __init__(
        self, *, experiment: str = "pyro_vae", uri: str | None = None, name: str | None = None
    ) -> None:
        require("mlflow")
        self.experiment, self.uri, self.name = experiment, uri, name

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin a run, or go on with it."""
        from mlflow import MlflowClient

        self._client = MlflowClient(self.uri)
        known = _kept(self.folder, "mlflow.json").get("id")
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id: str = known
            return
        made = self._client.create_run(self._experiment_id(), run_name=self.name or _name_of(self.folder))
        self._id = made.info.run_id
        _keep(self.folder, "mlflow.json", {"id": self._id})
        for name, value in config.items():
            self._client.log_param(self._id, name, shortened(value) if isinstance(value, list) else value)

    def _experiment_id(self) -> str:
        """That of the experiment, which another training may just be making."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except MlflowException:
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """One point of each curve, and each picture."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(
            self._id, metrics=[Metric(name, value, now, step) for name, value in scalars.items()]
        )
        for name, figure in figures.items():
            self._client.log_figure(self._id, figure, f"{name}.png")

    def end(self) -> None:
        """Finish the run."""
        self._client.set_terminated(self._id)


def _name_of(folder: Path | None) -> str | None:
    """A run's own name, of whose folder this is one."""
    return None if folder is None else folder.resolve().parent.name


def _kept(folder: Path | None, name: str) -> dict[str, str]:
    """What an earlier start has kept; nothing where there was none."""
    path = None if folder is None else folder / name
    return dict(read_json(read_text(path))) if path is not None and path.exists() else {}


def _keep(folder: Path | None, name: str, content: Mapping[str, str]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name, (json.dumps(content) + "\n").encode())
