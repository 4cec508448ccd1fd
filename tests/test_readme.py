"""README's code runs, and its lists are those of the package."""

import contextlib
import io
import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import pyro_vae as pv
from pyro_vae.cli.messages import subclasses
from pyro_vae.cli.parser import PARTS, train_parser, with_defaults

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run_in_order(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path / "runs/mnist")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 11
    namespace: dict[str, object] = {"__name__": "readme"}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        for block in blocks:
            exec(compile(block, "README.md", "exec"), namespace)
    result = namespace["result"]
    assert isinstance(result, pv.LogEvidence)
    assert result.estimate.shape == result.standard_error.shape == (300,)
    assert -25 < result.mean < -22
    assert output.getvalue().startswith("log p(x) = -2")


def test_every_class_is_in_the_table() -> None:
    table = README.read_text()
    for name, base, _, _ in PARTS:
        (row,) = (line for line in table.splitlines() if line.startswith(f"| `--{name}`"))
        listed = {word for word in re.findall(r"`(\w+)`", row)}
        known = {each.__name__ for each in subclasses(base) if each.__module__.startswith("pyro_vae.")}
        if name == "objective":  # options of fit beside it, and the two of Pyro's that are meant
            known |= {"Trace_ELBO", "TraceMeanField_ELBO"}
        assert listed == known


def test_command_lines_parse() -> None:
    commands = re.findall(r"^    pyro-vae train (--.*?)(?:  +#.*)?$", README.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        if ".help" not in command and "--help" not in command and "--resume" not in command:
            train_parser().parse_args(with_defaults(command.split()))


def test_every_public_name_is_documented() -> None:
    for name in pv.__all__:
        text = getattr(pv, name).__doc__
        assert text and len(text) > 20, name


ROOT = README.parent
PAGES = [README, *sorted(ROOT.glob("experiments/**/README.md")), *sorted(ROOT.glob("notebooks/*.ipynb"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r'pip install -e "\.\[(\w+)\]"', README.read_text()))
    assert named == extras.keys() and "notebooks" in named
