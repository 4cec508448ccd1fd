"""A run from elsewhere runs nothing, belongs together, and says so where it is damaged."""

import io
import multiprocessing
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import pyro_vae as pv
from pyro_vae.storage.checkpoints import load_checkpoint, save_checkpoint
from pyro_vae.storage.locks import locked
from tests.commands import SMALL, Run

OWN = """
import pathlib
pathlib.Path("imported").touch()
from pyro_vae import StandardNormalPrior
class Own(StandardNormalPrior):
    pass
def make():
    pathlib.Path("called").touch()
"""


@pytest.fixture
def run(trained: Path, tmp_path: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a small run in the current folder, and no consent from before."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(trained, "run")
    yield Path("run")
    for name in ("own", "own_inside"):
        sys.modules.pop(name, None)


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change config.yaml."""
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one value."""

    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def refused(pyro_vae: Run, *command: object) -> str:
    """The one line of a command that is refused."""
    status, out, err = pyro_vae(*command)
    lines = [line for line in err.splitlines() if not line.startswith("pyro-vae: note: ")]
    assert (status, out) == (2, ""), (status, out, err)
    assert len(lines) == 1 and lines[0].startswith("pyro-vae: error: "), err
    return lines[0].removeprefix("pyro-vae: error: ")


TOUCH = {"command": "touch called", "args": ["touch", "called"], "cmd": "touch called", "shell": True}
SHELL = ("os.system", "subprocess.getoutput", "subprocess.Popen", "torch.os.system", "pyro_vae.cli.main")


@pytest.mark.parametrize("name", SHELL)
@pytest.mark.parametrize(
    "keys",
    [
        ("optimiser",),
        ("schedule",),
        ("network", "init_args", "activation"),
        ("prior",),
        ("objective",),
        ("data",),
    ],
)
def test_a_received_run_calls_nothing(run: Path, pyro_vae: Run, name: str, keys: tuple[str, ...]) -> None:
    for value in (name, {"class_path": name, "init_args": dict([*TOUCH.items()][:1])}):
        edit(run, put(*keys, value=value))
        for command in (("sample", run), ("train", "--config", run / "config.yaml", "--epochs", 1)):
            assert refused(pyro_vae, *command)
    assert not Path("called").exists()


@pytest.mark.parametrize("name", ["antigravity.X", "pip.__main__.main", "pyro_vae.cli.Own"])
def test_modules_outside_of_a_model_are_not_imported(run: Path, pyro_vae: Run, name: str) -> None:
    before = set(sys.modules)
    edit(run, put("prior", value={"class_path": name}))
    assert "is not part of a model" in refused(pyro_vae, "sample", run)
    assert name.rpartition(".")[0] not in set(sys.modules) - before


@pytest.mark.parametrize("name", ["this.d", "idlelib.idle.X", "torch.hub.load", "torch.utils.bottleneck.X"])
def test_other_modules_are_not_imported_without_consent(run: Path, pyro_vae: Run, name: str) -> None:
    before = set(sys.modules)
    edit(run, put("prior", value={"class_path": name}))
    assert f"allow it by --trust {name.split('.')[0]}" in refused(pyro_vae, "sample", run)
    assert name.rpartition(".")[0] not in set(sys.modules) - before


def test_a_module_of_ones_own_needs_consent(run: Path, pyro_vae: Run) -> None:
    Path("own.py").write_text(OWN)
    edit(run, put("prior", value={"class_path": "own.Own"}))
    line = refused(pyro_vae, "sample", run)
    assert "own.Own" in line and line.endswith("read it, and allow it by --trust own")
    assert not Path("imported").exists()
    with pytest.raises(pv.InputError, match=r"--trust own"):
        pv.load(run)
    # with consent it goes further, and finds that the parameters belong to another configuration
    assert "was made with --prior 'pyro_vae.StandardNormalPrior', and" in refused(
        pyro_vae, "sample", run, "--trust", "own"
    )
    assert Path("imported").exists()
    edit(run, put("prior", value={"class_path": "own.make"}))
    refused(pyro_vae, "sample", run, "--trust", "own")
    assert not Path("called").exists()


def test_to_train_by_ones_own_module_is_consent_in_this_folder(run: Path, pyro_vae: Run) -> None:
    Path("own.py").write_text(OWN)
    assert pyro_vae("train", "--prior", "own.Own", "--epochs", 1, *SMALL, "--out", "mine")[0] == 0
    del sys.modules["own"]
    assert pyro_vae("sample", "mine")[0] == 0
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    del sys.modules["own"]
    assert "--trust own" in refused(pyro_vae, "sample", "../mine")


def test_a_function_of_ones_own_is_taken_by_consent(run: Path, pyro_vae: Run) -> None:
    Path("own.py").write_text(OWN + "def weight(step: int) -> float:\n    return min(1.0, step / 20)\n")
    assert pyro_vae("train", "--kl_weight", "own.weight", "--epochs", 2, *SMALL, "--out", "mine")[0] == 0
    assert pyro_vae("train", "--resume", "mine", "--epochs", 3)[0] == 0
    edit(run, put("kl_weight", value="torch.nn.functional.relu"))
    assert "expected the name of a class of a part" in refused(pyro_vae, "sample", run)


def test_a_module_inside_a_run_is_never_imported(run: Path, pyro_vae: Run) -> None:
    (run / "own_inside.py").write_text(OWN)
    edit(run, put("prior", value={"class_path": "own_inside.Own"}))
    os.chdir(run)
    assert "--trust own_inside" in refused(pyro_vae, "sample", ".")
    assert "lies inside the folder of the run" in refused(pyro_vae, "sample", ".", "--trust", "own_inside")
    assert not Path("imported").exists()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "expected at most 100000 values, 50 deep, got more"),
        ("[" * 5000, "nested at most 50 deep"),
        ("a: " + "[" * 60 + "]" * 60, "50 deep"),
        ("seed: 0\nseed: 1", "'seed' stands there twice"),
        ("x" * (2**22 + 1), "at most 4 MiB"),
        ("overwrite: true\nout: /", "expected --out on the command line"),
        ("\x00", "cannot read"),
        ("seed: !!python/object/apply:os.system ['touch called']", "could not determine a constructor"),
    ],
)
def test_reading_is_bounded(run: Path, pyro_vae: Run, text: str, expected: str) -> None:
    (run / "config.yaml").write_text(text)
    assert expected in refused(pyro_vae, "sample", run)
    assert not Path("called").exists()


def test_links_in_a_run_are_refused(run: Path, pyro_vae: Run) -> None:
    Path("elsewhere").mkdir()
    shutil.rmtree(run / "figures")
    (run / "figures").symlink_to(Path("elsewhere").absolute())
    assert "got figures as a link" in refused(pyro_vae, "sample", run)
    assert not list(Path("elsewhere").iterdir())


CHANGES = {
    "prior": put("prior", value={"class_path": "pyro_vae.LaplacePrior"}),
    "network.activation": put("network", "init_args", "activation", value="torch.nn.ReLU"),
    "likelihood": put("likelihood", value={"class_path": "pyro_vae.ContinuousBernoulliLikelihood"}),
    "data.form": put("data", "init_args", "form", value="Threshold"),
    "seed": put("seed", value=1),
    "optimiser.lr": put("optimiser", "init_args", "lr", value=0.01),
    "keep": put("keep", value="last"),
}


@pytest.mark.parametrize("option", CHANGES)
def test_a_checkpoint_belongs_to_its_configuration(run: Path, pyro_vae: Run, option: str) -> None:
    edit(run, CHANGES[option])
    for command in ("sample", "evaluate"):
        line = refused(pyro_vae, command, run)
        assert f" was made with --{option} " in line and "run/config.yaml says " in line
    assert f" was made with --{option} " in refused(pyro_vae, "train", "--resume", run)
    shutil.copytree(run, "again")
    with pytest.raises(pv.InputError, match=r"changed after the results"):
        pv.compare([run, "again"])


def test_a_checkpoint_of_another_run_is_refused(run: Path, pyro_vae: Run) -> None:
    assert pyro_vae("train", "--epochs", 1, *SMALL, "--prior", "LaplacePrior", "--out", "other")[0] == 0
    shutil.copy("other/checkpoints/best.pt", run / "checkpoints/best.pt")
    assert "was made with --prior 'pyro_vae.LaplacePrior'" in refused(pyro_vae, "evaluate", run)
    shutil.copy("other/per_datum.npz", run / "per_datum.npz")
    shutil.copytree(run, "again")
    with pytest.raises(pv.InputError, match=r"belongs to another result"):
        pv.compare([run, Path("again")])


def test_parameters_of_another_model_are_refused_in_python(tmp_path: Path) -> None:
    data = pv.Digits()
    torch.manual_seed(0)
    pv.fit(pv.assemble(data, network=pv.MLP((8,))), data, epochs=1, checkpoints=tmp_path)
    relu = pv.assemble(data, network=pv.MLP((8,), activation=torch.nn.ReLU))
    with pytest.raises(pv.InputError, match=r"the class of .*layers.2 is Tanh there, got ReLU"):
        pv.fit(relu, data, epochs=2, checkpoints=tmp_path, resume=True)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint with a right checksum and another content."""
    state = load_checkpoint(path)
    change(state)
    save_checkpoint(path, state)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "NaN": (lambda state: state["model"]["prior.x"].fill_(np.nan), ""),
    **{
        f"{key} is {value!r}": (put(key, value=value), "")
        for key in ("model", "settings", "about", "description", "epoch")
        for value in (None, 3.5, [1], "x")
    },
    "no model": (lambda state: state.pop("model"), "with model, got none of it"),
    "facts": (lambda state: state["about"].update(data={"name": 1}), "expected facts about data"),
    "a parameter of no numbers": (
        lambda state: state["model"].update({next(iter(state["model"])): "x"}),
        "is damaged in its model",
    ),
    "complex parameters": (
        lambda state: state["model"].update(
            {name: value.to(torch.complex64) for name, value in state["model"].items()}
        ),
        "is of torch.complex64",
    ),
}
del WRONG["NaN"]


@pytest.mark.parametrize("what", WRONG)
def test_a_checkpoint_of_another_structure_is_refused(run: Path, pyro_vae: Run, what: str) -> None:
    change, expected = WRONG[what]
    rewritten(run / "checkpoints/best.pt", change)
    assert expected in refused(pyro_vae, "sample", run)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("format", 2, "expected a checkpoint of format 1"), ("epoch", 7, "was changed after it was written")],
)
def test_a_checkpoint_that_another_program_wrote_is_refused(
    run: Path, pyro_vae: Run, key: str, value: int, expected: str
) -> None:
    path = run / "checkpoints/best.pt"
    state = torch.load(path, weights_only=True)
    state[key] = value
    torch.save(state, path)
    assert expected in refused(pyro_vae, "sample", run)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(run: Path, pyro_vae: Run, value: float) -> None:
    rewritten(
        run / "checkpoints/best.pt",
        lambda state: next(iter(state["model"].values())).view(-1)[:1].fill_(value),
    )
    assert "is not finite" in refused(pyro_vae, "evaluate", run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in (
            "model",
            "best",
            "optimiser",
            "schedule",
            "random_state",
            "step",
            "epochs",
            "best_epoch",
            "ended_by",
        )
        for value in (17.5, "x", [[1]], {"a": 1}, -1)
        if (key, value) not in [("optimiser", {"a": 1}), ("schedule", {"a": 1})]
    ]
    + [
        ("optimiser", {"state": {}, "param_groups": []}),
        ("random_state", [torch.zeros(3, dtype=torch.uint8)]),
    ],
)
def test_a_training_does_not_go_on_from_what_is_damaged(
    run: Path, pyro_vae: Run, key: str, value: Any
) -> None:
    rewritten(run / "checkpoints/last.pt", put(key, value=value))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "damaged" in refused(pyro_vae, "train", "--resume", run, "--epochs", 4)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_every_flipped_bit_is_noticed(run: Path, pyro_vae: Run) -> None:
    """In what the archive's entries hold, by their checksums; elsewhere nothing changes."""
    path = run / "checkpoints/best.pt"
    content = path.read_bytes()
    expected = {name: value.clone() for name, value in torch.load(path)["model"].items()}
    random = np.random.RandomState(0)
    noticed = 0
    for place in random.randint(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randint(8)
        path.write_bytes(damaged)
        try:
            found = pv.load(run).vae.state_dict()
        except pv.InputError:
            noticed += 1
        else:
            assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert noticed > 20


def test_archives_that_unpack_to_more_are_refused(run: Path, pyro_vae: Run) -> None:
    path = run / "checkpoints/best.pt"
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry.filename))
    path.write_bytes(buffer.getvalue())
    assert "truncated or corrupt" in refused(pyro_vae, "sample", run)


def test_there_is_one_writer(run: Path, pyro_vae: Run) -> None:
    with locked(run):
        for command in (
            ("train", "--resume", run, "--epochs", 5),
            ("train", "--epochs", 1, *SMALL, "--out", run, "--overwrite", "true"),
            ("evaluate", run, "--particles", 10),
        ):
            assert "another process is writing into run" in refused(pyro_vae, *command)
    with locked(run, shared=True):
        assert pyro_vae("evaluate", run, "--particles", 10)[0] == 0
    vae, data = pv.load(run).vae, pv.Digits()
    with locked(run / "checkpoints"), pytest.raises(pv.InputError, match=r"another process is writing into"):
        pv.fit(vae, data, epochs=1, checkpoints=run / "checkpoints", resume=True)


def _reserve(number: int) -> str:
    from pyro_vae.storage.runs import Run as Folder

    with Folder.written(None, "Digits") as folder:
        (folder / f"of {number}").touch()
        return str(folder)


def test_any_number_of_trainings_start_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        folders = pool.map(_reserve, range(12), chunksize=1)
    assert sorted(folders) == sorted(f"runs/Digits-{number}" for number in range(1, 13))
    assert all(len(list(Path(folder).iterdir())) == 1 for folder in folders)


def test_a_training_goes_on_for_longer(pyro_vae: Run) -> None:
    assert pyro_vae("train", "--epochs", 5, *SMALL, "--out", "whole")[0] == 0
    assert pyro_vae("train", "--epochs", 2, *SMALL, "--out", "run")[0] == 0
    assert pyro_vae("train", "--resume", "run", "--epochs", 5)[0] == 0
    whole, longer = (torch.load(f"{name}/checkpoints/last.pt") for name in ("whole", "run"))
    assert all(torch.equal(whole["model"][name], longer["model"][name]) for name in whole["model"])
    assert yaml.safe_load(Path("run/config.yaml").read_text())["epochs"] == 5
    assert pyro_vae("train", "--resume", "run", "--steps", 70)[0] == 0
    assert pv.load("run").history.epochs[-1].step == 70


def test_a_budget_that_is_used_up_changes_nothing(run: Path, pyro_vae: Run) -> None:
    before = (run / "config.yaml").read_text()
    line = refused(pyro_vae, "train", "--resume", run, "--epochs", 2)
    assert line == "run has trained 3 epochs, got --epochs 2: give more"
    assert "run has trained 39 steps, got --steps 7: give more" in refused(
        pyro_vae, "train", "--resume", run, "--steps", 7
    )
    status, _, err = pyro_vae("train", "--resume", run)
    assert status == 0 and "the training had ended by budget: to go on, give more --epochs" in err
    assert (run / "config.yaml").read_text() == before
    for budget in (("--steps", 50), ("--epochs", 5)):
        status, _, err = pyro_vae("train", "--resume", run, *budget)
        assert status == 0, err
    content = yaml.safe_load((run / "config.yaml").read_text())
    assert (content["epochs"], content.get("steps")) == (5, None)


def test_a_run_is_used_without_its_data_and_elsewhere(run: Path, pyro_vae: Run, tmp_path: Path) -> None:
    values = (np.random.RandomState(0).rand(60, 8, 8) * 255).astype(np.uint8)
    np.save("own.npy", values)
    options = ("--data", "ArrayFile", "--data.path", "own.npy", "--data.form", "Dynamic")
    prior = ("--prior", "VampPrior", "--prior.components", 3, "--batch_size", 20)
    assert pyro_vae("train", *options, *prior, "--epochs", 1, *SMALL, "--out", "mine")[0] == 0
    before = pv.load("mine")
    expected = before.vae.sample(2, mean=True).shape
    Path("own.npy").rename("moved.npy")
    Path("mine").rename("yours")
    opened = pv.load("yours")
    assert opened.vae.sample(2, mean=True).shape == expected
    assert repr(opened) == "TrainedRun('yours', VAE of ArrayFile)"
    assert len(opened.history.epochs) == 1 and opened.summary is not None
    assert opened.config["prior.components"] == 3
    with pytest.raises(pv.InputError, match=r"expected the file .*own.npy, found none"):
        opened.data()
    for command in (
        ("sample",),
        ("traverse", "--num", 3),
        ("interpolate", "--draws", "true", "--out", "a/b.png"),
    ):
        assert pyro_vae(command[0], "yours", *command[1:])[0] == 0
    assert Path("a/b.png").exists()
    assert "own.npy" in refused(pyro_vae, "evaluate", "yours")
    status, out, _ = pyro_vae("score", "yours", "moved.npy", "--particles", 30)
    rows = [line.split(",") for line in out.splitlines()]
    assert status == 0 and rows[0] == ["datum", "log_evidence", "standard_error", "pareto_k", "elbo"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(60)]
    x = opened.facts.test(values, "x").batch()
    torch.manual_seed(0)
    assert float(rows[1][1]) == pytest.approx(
        float(pv.log_evidence(opened.vae.model, opened.vae.guide, x, num_particles=30).estimate[0])
    )


def test_codes_of_a_file_are_those_of_the_model(run: Path, pyro_vae: Run) -> None:
    values = np.random.RandomState(0).randint(0, 17, (5, 8, 8)).astype(np.uint8)
    np.save("new.npy", values)
    assert pyro_vae("encode", run, "new.npy", "--out", "codes.npz")[0] == 0
    opened = pv.load(run)
    qz = opened.vae.posterior(opened.facts.test(values, "x").batch())
    with np.load("codes.npz") as found:
        for axis in range(2):
            assert np.allclose(found[f"mean_{axis}"], qz.mean[:, axis].detach())
            assert np.allclose(found[f"scale_{axis}"], qz.stddev[:, axis].detach())
    np.save("wide.npy", np.zeros((5, 8, 9), dtype=np.uint8))
    assert "expected data of shape (1, 8, 8) as in training, got (1, 8, 9)" in refused(
        pyro_vae, "encode", run, "wide.npy"
    )
    np.save("real.npy", np.zeros((5, 8, 8)))
    assert refused(pyro_vae, "score", run, "none.npy").startswith("expected the file none.npy, found none")
    assert "--out expects a .csv or an .npz file" in refused(
        pyro_vae, "score", run, "new.npy", "--out", "x.txt"
    )


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11 of its own file
def test_exported_networks_take_any_number_of_data(run: Path, pyro_vae: Run) -> None:
    status, _, err = pyro_vae("export", run, "--out", "model.pt2")
    assert status == 2 and not Path("model.pt2").exists()
    assert (
        "--out expects the folder of encoder.pt2, decoder.pt2 and test.npz, got model.pt2: give model" in err
    )
    assert pyro_vae("export", run, "--out", "out")[0] == 0
    vae = pv.load(run).vae
    encoder, decoder = (torch.export.load(f"out/{name}.pt2").module() for name in ("encoder", "decoder"))
    for number in (1, 2, 7):
        x = (torch.rand(number, 1, 8, 8) < 0.5).float()
        mean, scale = encoder(x)
        expected = vae.codes(x)
        assert torch.allclose(mean, expected[0], atol=1e-5) and torch.allclose(scale, expected[1], atol=1e-5)
        assert torch.allclose(decoder(mean), vae.decode(mean), atol=1e-5)
    with np.load("out/test.npz") as found:
        assert np.allclose(encoder(torch.from_numpy(found["x"]))[0].detach(), found["mean"], atol=1e-5)


def test_new_data_are_evaluated_as_those_of_the_training(run: Path, pyro_vae: Run) -> None:
    np.save("new.npy", pv.Digits(form=pv.Levels()).test.values.numpy())
    options = (
        "--data",
        "ArrayFile",
        "--data.path",
        "new.npy",
        "--data.form",
        "Dynamic",
        "--data.maximum",
        16,
    )
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    status, out, err = pyro_vae("evaluate", run, *options, "--particles", 20)
    assert status == 0 and "300 all data" in out, err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    line = refused(pyro_vae, "evaluate", run, "--data", "ArrayFile", "--data.path", "none.npy")
    assert line.startswith("expected the file none.npy, found none")
    line = refused(pyro_vae, "evaluate", run, "--data", "ArrayFile", "--data.path", "new.npy")
    assert "expected data with levels 2 as in training, got 256" in line or "got 17" in line


def test_evaluate_in_python_gives_what_the_command_prints(run: Path, pyro_vae: Run) -> None:
    _, out, _ = pyro_vae("evaluate", run, "--particles", 20, "--num_data", 10)
    found = pv.evaluate(pv.load(run), particles=20, num_data=10)
    lines = [line for line in out.splitlines() if line.startswith(("test", "log p(x)", "k-hat"))]
    assert lines == [
        line for line in str(found).splitlines() if line.startswith(("test", "log p(x)", "k-hat"))
    ]


def test_numbers_beyond_any_use_are_refused_before_training(pyro_vae: Run) -> None:
    line = refused(pyro_vae, "train", "--particles", 99999999999)
    assert line == "particles expects at most 1,000,000,000 draws of each datum, got 99,999,999,999"
    assert not Path("runs").exists()


def test_what_nobody_foresaw_is_one_line(run: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of\nsomething")

    monkeypatch.setattr("pyro_vae.vae.VAE.sample", fails)
    assert refused(pyro_vae, "sample", run).startswith(
        "ZeroDivisionError: of something (test_received_runs.py, line "
    )
    monkeypatch.setenv("PYRO_VAE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        pyro_vae("sample", run)


def test_no_memory_is_one_line(run: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("pyro_vae.vae.VAE.sample", fails)
    assert refused(pyro_vae, "sample", run).startswith("out of memory: ")


def test_names_are_printed_without_control_characters(pyro_vae: Run) -> None:
    assert "\x1b" not in refused(pyro_vae, "sample", "\x1b[31mrun")


def test_a_folder_that_is_gone_is_one_line(pyro_vae: Run, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert refused(pyro_vae, "train", "--epochs", 1)
    finally:
        os.chdir(tmp_path)
