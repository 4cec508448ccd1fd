"""The site, from pages, notebooks, experiments and docstrings: `python docs/build.py`."""

import re
from pathlib import Path
from typing import Any

import pyro_vae

ROOT = Path(__file__).resolve().parents[1]

project = "pyro_vae"
author = "The pyro_vae developers"
release = pyro_vae.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# the whole repository is the source, so that pages, notebooks and experiments link to each other as they lie
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "docs/**",
    "notebooks/*.ipynb",
    "experiments/README.md",
    "experiments/*/README.md",
    "pyro_vae/compiled/INVARIANTS.md",
]
exclude_patterns = ["docs/_build", "docs/templates", "**/.ipynb_checkpoints"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "pyro_vae"
html_copy_source = False
html_extra_path = ["root", "llms.txt"]
templates_path = [str(ROOT / "docs/templates")]
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
default_role = "code"  # a name between single backticks, as docstrings have it


#: Stands for a colon while napoleon looks for the types of attributes, which docstrings here do not have.
COLON = "\ue000"


def as_rst(app: Any, what: str, name: str, value: object, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: stars, bars and last underscores are no markup; tables stay as they are."""
    plain = []
    for before, line in zip(["", *lines], lines, strict=False):
        if in_table(line):
            plain += [f"    {line}"] if in_table(before) else ["::", "", f"    {line}"]
        elif line.lstrip().startswith((">>>", "...")):
            plain.append(line)
        else:
            plain.append("".join(escaped(part) for part in re.split(r"(`[^`]*`)", line)))
    if plain and what in ("attribute", "data", "property"):
        plain[0] = plain[0].replace(":", COLON)
    lines[:] = plain


def in_table(line: str) -> bool:
    """Whether it is a row of a table."""
    return line.strip().startswith("|") and line.strip().endswith("|")


def escaped(text: str) -> str:
    """Text outside of backticks without markup."""
    return text if text.startswith("`") else re.sub(r"([*|]|(?<=\w)_(?=\W|$))", r"\\\1", text)


def with_colons(app: Any, what: str, name: str, value: object, options: Any, lines: list[str]) -> None:
    """After napoleon."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def to_pages(app: Any, name: str, source: list[str]) -> None:
    """A folder is no page, and an experiment that has not been run has no picture."""
    source[0] = source[0].replace("](notebooks/)", "](docs/index.md)")
    if name.startswith("experiments/"):
        folder = (ROOT / name).parent
        for image, path in re.findall(r"(!\[[^\]]*\]\(([^)]+)\))", source[0]):
            if not (folder / path).exists():
                source[0] = source[0].replace(image, "*Not measured yet.*")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon, which makes markup
    app.connect("autodoc-process-docstring", with_colons, priority=600)
    app.connect("source-read", to_pages)
