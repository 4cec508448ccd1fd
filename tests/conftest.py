"""Every test starts from an empty parameter store, with validation on, at a fixed seed."""

import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyro
import pytest
import torch

from pyro_vae.cli import entry, main
from tests.commands import SMALL, Run
from tests.pictures import draw_coarsely

os.fsync = lambda fd: None  # no test outlives a power cut
# the operations that fast graphs use are not those that happen to be faster on the machine at hand
os.environ["PYRO_VAE_FAST"] = "always"
# last bits depend on the number of threads, of tests as of the commands that they start
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYRO_VAE_TRACK"] = "none"  # also where TensorBoard is installed
# a process makes one parser, and here it gives hundreds of commands
entry._parser = cache(entry._parser)


def pytest_collection_finish() -> None:
    """What has been imported stays: no collection of garbage looks at it again, and fewer are made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def fresh_pyro() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def coarse_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands draw many pictures; in a test marked `fine_pictures` they are those of a user."""
    if request.node.get_closest_marker("fine_pictures") is None:
        draw_coarsely(monkeypatch.setattr)


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
        if str(getattr(module, "__file__", "")).startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--epochs", "3", *SMALL, "--out", str(folder)]) == 0
    return folder
