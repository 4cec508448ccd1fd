"""Progress bars are seen in terminals and notebooks; a history is short in both."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.progress import in_notebook, is_watched, progress_bar
from tests.commands import Run

X = torch.from_numpy(np.random.RandomState(0).rand(40, 1, 3, 3) > 0.5).float()


def small() -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(pv.Dataset(X), latent_dim=2, network=pv.MLP((4,)))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What IPython looks like from inside the kernel of a notebook."""
    shell = SimpleNamespace(kernel=object(), config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def shown(capfd: pytest.CaptureFixture[str], **options: Any) -> str:
    capfd.readouterr()
    pv.fit(small(), X, epochs=2, batch_size=20, **options)
    return capfd.readouterr().err


def test_nothing_is_shown_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    assert shown(capfd) == ""
    assert "4/4" in shown(capfd, progress=True)


def test_a_terminal_shows_a_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert is_watched()
    assert "4/4" in shown(capfd)
    assert shown(capfd, progress=False) == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert shown(capfd) == ""
    monkeypatch.setattr(sys, "stderr", None)  # as of pythonw
    assert not is_watched()


def test_what_takes_long_is_a_plain_line_now_and_then_where_nobody_sees_a_bar(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pyro_vae.progress.time.monotonic", lambda: clock[0])
    with progress_bar(total=1000, desc="counting", unit="sheep") as bar:
        for number in range(1000):
            clock[0] += 1.0
            if bar.update():
                bar.set_postfix_str(f"at {number + 1}", refresh=False)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[0].startswith(
        "counting: 30/1000 sheep, 00:00 so far, 00:00 left, at 30"
    )
    with progress_bar(False, total=1000) as bar:
        clock[0] += 1000.0
        assert bar.update() is None
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress_bar(total=2) as bar:
        clock[0] += 1000.0
        assert not bar.update() and not bar.update()
    with progress_bar(iterable=[1, 2, 3]) as bar:
        assert list(bar) == [1, 2, 3]
    assert capfd.readouterr().err == ""


def test_lines_of_a_loop_and_of_writing(capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("pyro_vae.progress.Lines.seconds", 0.0)
    monkeypatch.setattr("pyro_vae.progress.Lines.share", 0.0)
    with progress_bar(iterable=[1, 2, 3], unit="blocks") as bar:
        assert list(bar) == [1, 2, 3]
    assert re.findall(r"\d/3 blocks", capfd.readouterr().err) == ["1/3 blocks", "2/3 blocks"]
    assert re.findall(r"training: \d/4 steps.* epoch ./2, ELBO -", shown(capfd))


@pytest.mark.usefixtures("notebook")
def test_a_notebook_shows_a_bar_though_its_kernel_has_no_terminal() -> None:
    assert in_notebook() and is_watched()
    with progress_bar(total=3) as bar:
        assert not bar.disable
    with progress_bar(False, total=3) as bar:
        assert bar.disable


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in (SimpleNamespace(config={}), None):
        module: Any = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", module)
        assert not in_notebook()


def test_a_kernel_shows_a_bar_and_a_table() -> None:
    """In a real kernel, as Jupyter starts it."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = (
        "import torch, pyro_vae as pv\n"
        "x = (torch.rand(40, 1, 3, 3) > 0.5).float()\n"
        "vae = pv.assemble(pv.Dataset(x), latent_dim=2, network=pv.MLP((4,)))\n"
        "pv.fit(vae, x, epochs=3, batch_size=20)"
    )
    cell = nbformat.v4.new_code_cell(source)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=300).execute()
    texts = [str(output.get("data", output.get("text", ""))) for output in cell.outputs]
    assert any("6/6" in text or "6 [" in text or "widget-view" in text for text in texts)
    assert "<table>" in texts[-1] and "History(3 epochs, 6 steps" in texts[-1]


def test_drawing_a_plane_shows_a_bar_and_takes_a_part_at_a_time(
    pyro_vae: Run, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert pyro_vae("traverse", trained, "--num", 7)[0] == 0
    whole = (trained / "figures" / "plane.png").read_bytes()
    monkeypatch.setattr("pyro_vae.pages.looking._VALUES_AT_ONCE", 10 * 2**12)  # 10 pictures
    monkeypatch.setattr("pyro_vae.progress.is_watched", lambda: True)
    monkeypatch.setattr("pyro_vae.progress._SECONDS", 0.0)
    status, _, err = pyro_vae("traverse", trained, "--num", 7)
    assert status == 0
    assert "49/49" in err
    assert (trained / "figures" / "plane.png").read_bytes() == whole
    assert "300/300" in pyro_vae("scatter", trained)[2]


# the history


def history(number: int, best: int, valid: bool = True) -> pv.History:
    epochs = [
        pv.Epoch(e, 13 * e, -40.0 + e, -41.0 + e if valid else float("nan"), -30.0, 5.0, 1e-3, 1.0, 0.1)
        for e in range(1, number + 1)
    ]
    return pv.History(epochs, best, "budget")


def test_a_history_is_one_line() -> None:
    assert repr(history(1000, 7)) == (
        "History(1000 epochs, 13000 steps, best epoch 7 with a validation ELBO of -34.000, ended by budget)"
    )
    assert repr(history(1, 0, valid=False)) == (
        "History(1 epoch, 13 steps, last training ELBO -39.000, ended by budget)"
    )
    assert repr(pv.History()) == "History(no epochs)"


@pytest.mark.parametrize(
    ("number", "best", "rows"),
    [
        (1000, 7, ["first", "best", "last"]),
        (1000, 1000, ["first", "best and last"]),
        (1000, 0, ["first", "last"]),
        (1000, 1, ["best and first", "last"]),
        (1, 1, ["best, first and last"]),
        (1, 0, ["first and last"]),
    ],
)
def test_its_table_has_a_few_rows(number: int, best: int, rows: list[str]) -> None:
    html = history(number, best)._repr_html_()
    assert re.findall('<th scope="row">([^<]*)</th>', html) == rows
    cells = re.findall("<td[^>]*>([^<]*)</td>", html)
    assert cells[-7:-4] == [f"{number:,}", f"{13 * number:,}", f"{-40.0 + number:.5g}"]
    assert html.count("<caption>") == 1


def test_an_empty_history_has_an_empty_table() -> None:
    assert "no epochs" in pv.History()._repr_html_()
