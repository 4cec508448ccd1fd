"""What the README of an experiment shows, against its committed results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.markdown import insert


def assert_committed(folder: Path, tables: Mapping[str, str], numbers: Mapping[str, Any]) -> None:
    """README.md shows these tables, each in its place, and results/summary.json holds these numbers."""
    readme = (folder / "README.md").read_text()
    assert all(f"<!-- {name} -->\n\n{table}\n" in readme for name, table in tables.items())
    assert insert(readme, tables) == readme
    assert json.loads((folder / "results" / "summary.json").read_text()) == numbers
