"""What an experiment has measured so far, in one file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import pyro_vae as pv
from experiments.markdown import insert
from pyro_vae.storage.files import write


class Records:
    """Finished measurements by name, one line of JSON each, written anew and atomically with each of them.

    Args:
        path: The file; where it exists, its measurements are finished already.
        about: What all were measured on; a file about something else is refused.

    Raises:
        InputError: where the file was measured on something else.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        self.found = finished(path) if path.exists() else {}
        for record in self.found.values():
            if record["about"] != self.about:
                raise pv.InputError(
                    f"{path} was measured on {record['about']}, got {self.about}: choose another folder with "
                    "--out"
                )

    def add(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep one more."""
        self.found[name] = {"name": name, "about": self.about, **content}
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in self.found.values())
        write(self.path, text.encode())


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """The measurements in a file of `Records`, by name."""
    return {each["name"]: each for each in map(json.loads, path.read_text().splitlines())}


def config_hash(path: Path) -> str:
    """16 hex digits that name the options in a YAML file, for what records are about."""
    content = json.dumps(yaml.safe_load(path.read_text()), sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def publish(folder: Path, tables: Mapping[str, str], numbers: Mapping[str, Any], readme: Path) -> None:
    """Print the tables and write the summary; renew README where the results are the committed ones."""
    print("\n\n".join(tables.values()))
    write_summary(folder, numbers)
    renew(readme, tables, folder, readme.parent / "results")


def renew(readme: Path, tables: Mapping[str, str], folder: Path, committed: Path) -> None:
    """Write tables into README where the folder of the results is that of the committed ones."""
    if folder.resolve() == committed.resolve():
        write(readme, insert(readme.read_text(), tables).encode())


def write_summary(folder: Path, numbers: Mapping[str, Any]) -> None:
    """The few numbers of an experiment's answer, as summary.json in the folder of its results."""
    write(folder / "summary.json", (json.dumps(dict(numbers), indent=1, allow_nan=False) + "\n").encode())
