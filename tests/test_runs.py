"""A run's folder: never overwritten silently, never half written."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.storage.checkpoints import load_checkpoint, load_parameters, save_checkpoint
from pyro_vae.storage.files import load_arrays, write
from pyro_vae.storage.runs import Run


def test_a_new_run_has_its_configuration(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a" / "b", "seed: 1\n")
    assert run.config.read_text() == "seed: 1\n"
    assert run.checkpoints.is_dir() and run.figures.is_dir()
    assert Run(run.folder).config == run.config


def test_an_existing_run_is_kept_unless_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "old")
    (tmp_path / "a" / "checkpoints" / "best.pt").write_text("old")
    with pytest.raises(
        InputError, match=r"the output folder .*a exists: choose another with --out, or give --over"
    ):
        Run.create(tmp_path / "a", "new")
    assert (tmp_path / "a" / "config.yaml").read_text() == "old"
    run = Run.create(tmp_path / "a", "new", overwrite=True)
    assert run.config.read_text() == "new"
    assert list(run.checkpoints.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Run.create(tmp_path, "x").folder == tmp_path


def test_overwriting_removes_only_what_a_run_writes(tmp_path: Path) -> None:
    Run.create(tmp_path, "old")
    for name in ("summary.json", "evaluation.json", "diagnosis.json", "per_datum.npz", "notes.txt"):
        (tmp_path / name).write_text("old")
    Run.create(tmp_path, "new", overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "figures",
        "notes.txt",
    ]


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml"])
def test_what_is_not_a_run_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("work of years")
    with pytest.raises(InputError, match="is not the folder of a run, so it is not overwritten"):
        Run.create(tmp_path, "x", overwrite=True)
    assert (tmp_path / name).read_text() == "work of years"


def test_a_folder_without_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the folder of a run \(with config.yaml\), got"):
        Run(tmp_path)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"cannot write the output folder .*\(Not a directory\): choose another"
    ):
        Run.create(tmp_path / "file" / "run", "x")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    write(path, b"old")

    def power_cut(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", power_cut)
        with pytest.raises(KeyboardInterrupt):
            write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_metrics_keep_every_digit(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x")
    run.write_metrics(["a", "b"], [[1, 0.1 + 0.2], [2, float("nan")]])
    assert (tmp_path / "metrics.csv").read_text() == "a,b\n1,0.30000000000000004\n2,nan\n"


def test_json_is_strict(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x")
    run.write_json("summary.json", {"a": {"b": float("nan"), "c": 1.5}, "d": float("inf")})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"a": {"b": None, "c": 1.5}, "d": None}


def test_arrays_round_trip(tmp_path: Path) -> None:
    run, path = Run.create(tmp_path, "x"), tmp_path / "a.npz"
    run.write_arrays("a.npz", {"values": np.array([1.5, -np.inf]), "number": 3, "name": "test"})
    loaded = load_arrays(path, ("values", "number"))
    assert loaded["values"].tolist() == [1.5, -np.inf]
    assert (loaded["number"].item(), loaded["name"].item()) == (3, "test")
    with pytest.raises(
        InputError, match=r"expected .*a.npz with more, got none of it: evaluate the run anew"
    ):
        load_arrays(path, ("values", "more"))


def test_damaged_arrays_are_one_clear_line(tmp_path: Path) -> None:
    path, good = tmp_path / "a.npz", io.BytesIO()
    np.savez(good, values=np.arange(100.0))
    objects, single = io.BytesIO(), io.BytesIO()
    np.savez(objects, values=np.array([print], dtype=object))
    np.save(single, np.arange(3))
    flipped = bytearray(good.getvalue())
    flipped[300] ^= 1
    contents = (b"", b"text", good.getvalue()[:300], flipped, objects.getvalue(), single.getvalue())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"expected arrays in .*a.npz, got a file that is trunc.*: eval"):
            load_arrays(path, ())


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.randn(3)}, "epoch": 3, "name": "x", "rows": [[1.5, 2]]}
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded["model"]["weight"], state["model"]["weight"])
    assert {**loaded, "model": 0} == {**state, "model": 0}
    with pytest.raises(InputError, match=r"expected a checkpoint at .*none.pt, found none"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"expected a checkpoint at .*c.pt with optimiser, got none of it"):
        load_checkpoint(tmp_path / "c.pt", ("model", "optimiser"))


def test_parameters_of_another_model_change_nothing(tmp_path: Path) -> None:
    model, path = torch.nn.Linear(2, 3), tmp_path / "c.pt"
    before = model.weight.clone()
    for given, text in [
        (torch.nn.Linear(2, 4).state_dict(), r"weight expects \(3, 2\), got \(4, 2\)"),
        ({"weight": torch.zeros(3, 2)}, r"bias expects \(3,\), got nothing"),
        ({**model.state_dict(), "more": torch.zeros(1)}, r"more expects nothing, got \(1,\)"),
    ]:
        with pytest.raises(InputError, match="c.pt was made for another model: " + text):
            load_parameters(model, {"model": given}, path)
        assert torch.equal(model.weight, before)
