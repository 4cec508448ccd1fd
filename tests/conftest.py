"""Every test starts from an empty parameter store, with validation on, at a fixed seed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text

from pyro_vae.cli import main
from pyro_vae.plots import saving
from tests.commands import SMALL, Run

os.fsync = lambda fd: None  # no test outlives a power cut
# the operations that fast graphs use are not those that happen to be faster on the machine at hand
os.environ["PYRO_VAE_FAST"] = "always"
# last bits depend on the number of threads, of tests as of the commands that they start
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYRO_VAE_TRACK"] = "none"  # also where TensorBoard is installed


@pytest.fixture(autouse=True)
def fresh_pyro() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.enable_validation(True)
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


class Coarse(FigureCanvasAgg):
    """Draws what a picture shows, once and where it is, and keeps its words beside it: letters take long."""

    def print_figure(self, filename: Any, dpi: Any = None, **_: Any) -> None:  # type: ignore[override]
        self.figure.set_layout_engine("none")
        self.figure.set_dpi(dpi)
        words = [text.get_text() for text in self.figure.findobj(Text)]
        for axes in self.figure.axes:
            axes.axison = False
        for text in self.figure.findobj(lambda artist: isinstance(artist, Text | Legend)):
            text.set_visible(False)
        self.print_png(filename, metadata={"Words": "\n".join(words)})


@pytest.fixture(autouse=True)
def coarse_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands draw many pictures; in a test marked `fine_pictures` they are those of a user."""
    if request.node.get_closest_marker("fine_pictures") is None:
        monkeypatch.setattr(saving, "DPI", 40)
        monkeypatch.setattr(saving, "FigureCanvasAgg", Coarse)


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
