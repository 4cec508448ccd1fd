"""The code in README and docs runs, and their lists are those of the package."""

import contextlib
import io
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import pyro_vae as pv
from pyro_vae import plots, testing
from pyro_vae.cli.messages import subclasses
from pyro_vae.cli.parser import PARTS, train_parser, with_defaults

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs/command_line.md"
GUIDES = [README, *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/how_to/*.md"))]


def code_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page", [each for each in GUIDES if code_of(each)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_blocks_run_in_order(
    page: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page by itself, in the folder of its user; README's first block means what the page says."""
    shutil.copytree(trained, tmp_path / "runs/mnist")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        for block in code_of(page):
            exec(compile(block, page.name, "exec"), namespace)
    if page == README:
        result = namespace["result"]
        assert isinstance(result, pv.LogEvidence)
        assert result.estimate.shape == result.standard_error.shape == (300,)
        assert -27 < result.mean < -22
        assert output.getvalue().startswith("log p(x) = -2") and "amortisation gap" in output.getvalue()


def test_a_first_screen_is_short() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 1500


def is_of_the_package(each: type) -> bool:
    """Those in examples of docstrings have its name as their module, and are not there."""
    ours = each.__module__.startswith("pyro_vae.")
    return ours and getattr(sys.modules[each.__module__], each.__name__, None) is each


def test_every_class_is_in_the_table() -> None:
    table = COMMANDS.read_text()
    for name, base, _, _ in PARTS:
        (row,) = (line for line in table.splitlines() if line.startswith(f"| `--{name}`"))
        listed = {word for word in re.findall(r"`(\w+)`", row)}
        known = {each.__name__ for each in subclasses(base) if is_of_the_package(each)}
        if name == "objective":  # options of fit beside it, and the two of Pyro's that are meant
            known |= {"Trace_ELBO", "TraceMeanField_ELBO"}
        assert listed == known


def test_command_lines_parse() -> None:
    text = "\n".join(page.read_text() for page in GUIDES)
    commands = re.findall(r"^    pyro-vae train (--.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert len(commands) >= 20
    for command in commands:
        if not re.search(r"\.help|--help|--resume|runs/\S+config", command):  # which need a class, or a run
            train_parser().parse_args(with_defaults(command.split()))


def test_every_public_name_is_in_the_reference_once() -> None:
    text = "\n".join(page.read_text() for page in ROOT.glob("docs/api/*.md"))
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted([*pv.__all__, *plots.__all__, *testing.__all__])


def test_the_index_for_programs_lists_every_page() -> None:
    listed = re.findall(r"\]\((\S+)\.html\)", (ROOT / "docs/llms.txt").read_text())
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    wanted = {str(page.relative_to(ROOT).with_suffix("")) for page in pages if page.stem != "index"}
    assert {*listed} == wanted | {"experiments/README"} and len(listed) == len({*listed})


PAGES = [
    *GUIDES,
    *sorted(ROOT.glob("docs/api/*.md")),
    *sorted(ROOT.glob("experiments/**/README.md")),
    *sorted(ROOT.glob("notebooks/*.ipynb")),
]


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
    named = set(re.findall(r'pip install -e "\.\[(\w+)\]"', " ".join(page.read_text() for page in GUIDES)))
    assert named == extras.keys() and "notebooks" in named
