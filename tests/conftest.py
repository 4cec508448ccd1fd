"""Every test starts from an empty parameter store, with validation on, at a fixed seed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

from pyro_vae.cli import main
from pyro_vae.plots import saving
from tests.commands import SMALL, Run

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start


@pytest.fixture(autouse=True)
def fresh_pyro() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def coarse_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands draw many pictures; a test marked `fine_pictures` looks at their size."""
    if request.node.get_closest_marker("fine_pictures") is None:
        monkeypatch.setattr(saving, "DPI", 40)


@pytest.fixture
def float64() -> Iterator[None]:
    """Float64 as the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def pyro_vae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """The command, run in an empty folder: status, standard output, standard error.

    Modules that it imported from there are forgotten afterwards: the next test's may share their names.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    yield run
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--epochs", "3", *SMALL, "--out", str(folder)]) == 0
    return folder
