"""What a tracker has taken down is what the history says, and no fault of a tracker ends a training."""

import csv
import errno
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import pyro_vae as pv
from pyro_vae.errors import InputError
from pyro_vae.storage.runs import Run as Folder
from pyro_vae.tracking import Tracking, base, tracking, usual_tracker
from tests.commands import SMALL, Run

#: Options of a training on the command line that takes no time.
FEW = (*SMALL, "--num_data", "10")
DATA = pv.Dataset(torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).round())
FIELDS = [name for name in pv.Epoch._fields if name != "step"]

Curves = dict[str, list[tuple[int, float]]]


def fitted(**options: Any) -> pv.History:
    torch.manual_seed(1)
    vae = pv.assemble(DATA, latent_dim=2, network=pv.MLP((4,)))
    return pv.fit(vae, DATA, **{"epochs": 3, "batch_size": 20, **options})


def curves(history: pv.History) -> Curves:
    """What is to be found: each field by step, except what is not known of it."""
    steps = [int(step) for step in history.column("step")]
    found = {name: list(zip(steps, map(float, history.column(name)), strict=True)) for name in FIELDS}
    return {name: points for name, points in found.items() if not np.isnan(points[0][1])}


def metrics(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def in_csv(folder: Path) -> Curves:
    rows = list(csv.DictReader((folder / "scalars.csv").read_text().splitlines()))
    names = [name for name in rows[0] if name != "step"]
    return {n: [(int(row["step"]), float(row[n])) for row in rows if row[n]] for n in names}


def in_tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0, "images": 0})
    events.Reload()
    return {
        name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]
    }


def in_wandb(folder: Path) -> Curves:
    from wandb.proto import wandb_internal_pb2

    found: Curves = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for content in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            for item in record.history.item:
                name = ".".join(item.nested_key) or item.key
                if not name.startswith("_"):
                    point = record.history.step.num, json.loads(item.value_json)
                    found.setdefault(name, []).append(point)
    return found


def records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: parts with their sum, length and kind, in blocks of 32 KiB."""
    place, record = 7, b""  # after the mark of the file
    while place + 7 <= len(content):
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
        place += 7 + length
        if 32768 - place % 32768 < 7:
            place += -place % 32768


def in_mlflow(folder: Path) -> Curves:
    from mlflow import MlflowClient

    client, run = MlflowClient(), json.loads((folder / "mlflow.json").read_text())["id"]
    found = client.get_run(run)
    assert found.info.status == "FINISHED" and found.data.params["batch_size"] == "20"
    histories = {name: client.get_metric_history(run, name) for name in found.data.metrics}
    return {name: [(each.step, each.value) for each in points] for name, points in histories.items()}


READ = {"csv": in_csv, "tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize("name", READ)
def test_what_is_read_back_is_the_history_also_of_a_training_that_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "csv":
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    fitted(epochs=2, track=name, checkpoints="run")
    history = fitted(epochs=3, track=name, checkpoints="run", resume=True)
    found, expected = READ[name](tmp_path / "run/tracking"), curves(history)
    if name == "tensorboard":
        expected = {key: [(s, float(np.float32(v))) for s, v in points] for key, points in expected.items()}
    assert found == expected
    assert len(found["train_elbo"]) == 3 and "valid_elbo" not in found  # there are no such data


class Noted(pv.Tracker):
    """Keeps all calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, config: Mapping[str, Any]) -> None:
        self.calls.append(("start", config["epochs"], config["program"]))

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, Any]) -> None:
        self.calls.append((step, scalars["train_elbo"]))

    def end(self) -> None:
        self.calls.append("end")


class Full(Noted):
    """A disc that is full after the first epoch."""

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, Any]) -> None:
        if step > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().log(step, scalars, figures)


def test_a_tracker_of_ones_own_and_a_training_without_it_are_equal() -> None:
    noted = Noted()
    history = fitted(track=noted)
    steps = zip(history.column("step"), history.column("train_elbo"), strict=True)
    assert noted.calls == [("start", 3, "VAE"), *steps, "end"]
    assert history.column("train_elbo") == fitted().column("train_elbo")


def test_a_tracker_that_fails_is_one_warning_and_the_training_goes_on() -> None:
    full = Full()
    with pytest.warns(UserWarning, match="Full has failed, and the training goes on without it") as said:
        history = fitted(track=full)
    assert len(said) == 1 and "No space left on device" in str(said[0].message)
    assert len(full.calls) == 2  # start, and the first epoch
    assert history.column("train_elbo") == fitted().column("train_elbo")


@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_a_folder_that_cannot_be_written_ends_no_training(name: str, tmp_path: Path) -> None:
    if name != "csv":
        pytest.importorskip(name)
    (tmp_path / "tracking").write_text("a file where the folder was to be")
    with pytest.warns(UserWarning, match="has failed, and the training goes on"):
        assert len(fitted(track=name, checkpoints=tmp_path).epochs) == 3


def test_it_is_closed_where_a_training_is_interrupted() -> None:
    noted = Noted()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(track=noted, callbacks=[interrupt])
    assert len(noted.calls) == 3 and noted.calls[-1] == "end"


def several(**options: Any) -> list[pv.Fitted]:
    def make(hidden: int = 4) -> pv.VAE:
        return pv.assemble(DATA, latent_dim=2, network=pv.MLP((hidden,)))

    return pv.fit_many(make, DATA, **{"epochs": 2, "batch_size": 20, **options})


def test_each_of_several_members_is_tracked_by_itself(tmp_path: Path) -> None:
    trackers: list[Noted] = []

    class Kept(Noted):
        def __init__(self) -> None:
            super().__init__()
            trackers.append(self)

        def start(self, config: Mapping[str, Any]) -> None:
            self.calls.append((config["program"], config["seed"], config["kl_weight"], config["hidden"]))

    each = [{"kl_weight": 0.5, "hidden": 4}, {"hidden": 4}]
    members = several(seeds=2, each=each, track=Kept)
    assert len(trackers) == 4
    for tracker, member in zip(trackers, members, strict=True):
        steps = zip(member.history.column("step"), member.history.column("train_elbo"), strict=True)
        about = ("VAE", member.seed, member.choices.get("kl_weight", 1.0), 4)
        assert tracker.calls == [about, *steps, "end"]
    assert members[0].history.column("train_elbo") != members[1].history.column("train_elbo")

    members = several(seeds=2, track="csv", checkpoints=tmp_path)
    for member in members:
        found = in_csv(tmp_path / f"seed-{member.seed}/tracking")
        assert found == curves(member.history)
    with pytest.raises(InputError, match="holds the checkpoints of a training"):
        several(seeds=2, track="csv", checkpoints=tmp_path)
    assert in_csv(tmp_path / "seed-0/tracking") == curves(members[0].history)


def test_members_that_fail_end_their_trackers() -> None:
    noted: list[Noted] = []

    def make() -> Noted:
        noted.append(Noted())
        return noted[-1]

    def interrupt(_: object, history: pv.History) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        several(seeds=2, track=make, callbacks=[interrupt])
    assert [each.calls[-1] for each in noted] == ["end", "end"]


def test_one_tracker_for_several_members_is_refused() -> None:
    with pytest.raises(InputError, match="track expects what makes a tracker for each member, got a Noted"):
        several(track=Noted())
    with pytest.raises(InputError, match="track expects one of tensorboard, "):
        several(track="comet")
    with pytest.raises(InputError, match="CsvTracker writes into the folder of the checkpoints, got none"):
        several(track="csv")


def test_only_the_first_rank_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "here", lambda: SimpleNamespace(first=False))
    noted = Noted()
    one = Tracking(noted, None)
    one.start({"epochs": 1, "program": ""})
    one.log(1, {"train_elbo": 0.0})
    one.end()
    assert noted.calls == []


def test_what_cannot_be_a_tracker_is_refused() -> None:
    with pytest.raises(InputError, match=r"track expects one of tensorboard, wandb, mlflow, csv, none, or"):
        fitted(track="comet")
    with pytest.raises(
        InputError, match=r"CsvTracker writes into the folder of the checkpoints, got none: g"
    ):
        fitted(track="csv")


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_such_library").mkdir()  # a folder of the name is no library
    assert not base.is_installed("no_such_library") and base.is_installed("json")
    monkeypatch.setattr(base, "is_installed", lambda _: False)
    monkeypatch.setattr("pyro_vae.tracking.names.is_installed", lambda _: False)
    with pytest.raises(InputError, match=r'wandb is not installed|pip install -e "\.\[wandb\]"'):
        fitted(track="wandb")
    monkeypatch.delenv("PYRO_VAE_TRACK")
    assert type(usual_tracker()).__name__ == "NoTracker"


OWN = """
import pyro_vae as pv

class Mine(pv.Tracker):
    def __init__(self, word: str = "none"):
        self.word = word
    def start(self, config):
        print("start", self.word, config["seed"], self.folder.name)
    def log(self, step, scalars, figures):
        print("logged", step, *(name for name in scalars if name.startswith("test")), *figures)
    def end(self):
        print("end")
"""


def test_a_class_of_ones_own_on_the_command_line_and_when_a_run_goes_on(pyro_vae: Run) -> None:
    Path("mine.py").write_text(OWN)
    words = ("train", "--epochs", "1", *FEW, "--out", "run")
    status, out, err = pyro_vae(*words, "--track", "mine.Mine", "--track.word", "hello")
    assert status == 0, err
    assert [line for line in out.splitlines() if line.startswith(("start", "logged", "end"))] == [
        "start hello 0 tracking",
        "logged 13",
        "logged 13 test_elbo test_reconstruction test_kl test_log_evidence test_standard_error history "
        "samples reconstructions",
        "end",
    ]
    status, out, err = pyro_vae("train", "--resume", "run", "--epochs", "2")
    assert status == 0 and "start hello 0" in out and "logged 26" in out, err
    status, out, err = pyro_vae("train", "--resume", "run", "--epochs", "3", "--track", "csv")
    assert status == 0 and "start hello" not in out, err
    found = in_csv(Path("run/tracking"))
    epochs = metrics(Path("run"))
    assert found["valid_elbo"] == [(39, float(epochs[-1]["valid_elbo"]))]
    assert pyro_vae("sample", "run")[0] == 0


def test_how_it_is_tracked_is_no_part_of_what_a_run_is(pyro_vae: Run) -> None:
    found = []
    for name in ("csv", "none"):
        status, _, err = pyro_vae("train", "--epochs", "1", *FEW, "--out", name, "--track", name)
        assert (status, err) == (0, "")
        found.append(json.loads(Path(name, "summary.json").read_text()))
    assert found[0]["configuration"] == found[1]["configuration"]
    assert found[0]["parameters"] == found[1]["parameters"]
    assert not Path("none/tracking").exists()


def test_tensorboard_is_the_usual_one_where_it_is_installed(
    pyro_vae: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("PYRO_VAE_TRACK", "csv")
    assert type(usual_tracker()).__name__ == "CsvTracker"
    monkeypatch.delenv("PYRO_VAE_TRACK")
    status, _, err = pyro_vae("train", "--epochs", "1", *FEW, "--out", "a run")
    assert (status, err) == (0, "pyro-vae: note: to watch the training: tensorboard --logdir 'a run'\n")
    summary, found = (
        json.loads(Path("a run/summary.json").read_text()),
        in_tensorboard(Path("a run/tracking")),
    )
    assert found["test_log_evidence"] == [(13, float(np.float32(summary["log_evidence"]["estimate"])))]
    assert "track" not in Path("a run/config.yaml").read_text()  # so that it is bound to no library
    status, _, err = pyro_vae("train", "--epochs", "1", *FEW, "--out", "a run", "--overwrite", "true")
    assert status == 0 and len(list(Path("a run/tracking").iterdir())) == 1


def test_each_of_several_seeds_has_its_own(pyro_vae: Run) -> None:
    status, _, err = pyro_vae(
        "train", "--epochs", "2", *FEW, "--seeds", "2", "--out", "two", "--track", "csv"
    )
    assert status == 0, err
    for seed in (0, 1):
        run = Path(f"two/seed-{seed}")
        rows = metrics(run)
        assert in_csv(run / "tracking")["valid_elbo"] == [
            (int(row["step"]), float(row["valid_elbo"])) for row in rows
        ]
    assert in_csv(Path("two/seed-0/tracking")) != in_csv(Path("two/seed-1/tracking"))


def test_each_trial_of_a_sweep_has_its_own(pyro_vae: Run) -> None:
    pytest.importorskip("optuna")
    train = {"epochs": 1, "network.hidden_dims": [8], "latent_dim": 2, "particles": 10, "num_data": 20}
    study = {
        "study": "s",
        "sampler": "grid",
        "train": {**train, "track": "csv"},
        "search": {"prior": ["StandardNormalPrior", "LaplacePrior"]},
    }
    Path("study.yaml").write_text(yaml.safe_dump(study))
    status, _, err = pyro_vae("sweep", "study.yaml")
    assert status == 0, err
    for trial in (0, 1):
        run = Folder(f"sweeps/s/trial-00{trial}/seed-0")
        found = in_csv(run.folder / "tracking")
        assert len(found["valid_elbo"]) == 1 and len(found["test_log_evidence"]) == 1
