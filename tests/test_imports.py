"""What imports what: downwards only, and nothing that is slow where it is not needed."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pyro_vae

#: By the module, what needs it.
SLOW = {
    "torch._dynamo": "compilation",
    "torch._inductor": "compilation",
    "sympy": "compilation",
    "sklearn": "tables, and the prior gap",
    "scipy": "calibration, agreement and comparison",
    "scipy.stats": "calibration, agreement and comparison",
    "torchvision": "data of torchvision",
    "matplotlib.pyplot": "nothing: pictures have figures of their own",
}
#: What only the command line and pictures need.
OF_COMMANDS = {"jsonargparse": "the command line", "matplotlib": "pictures"}


PACKAGE = Path(pyro_vae.__file__).parent


def imported_in(file: Path) -> set[str]:
    """The rooms that a file imports from, within functions too."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    paths = [f"{node.module}.{alias.name}".split(".") for node in nodes for alias in node.names]
    return {path[1] for path in paths if path[0] == "pyro_vae"}


def imported_by_room() -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if not room.startswith("__"):
            found.setdefault(room, set()).update(imported_in(file) - {room})
    return found


def test_rooms_import_downwards_only_as_the_page_says() -> None:
    rooms = imported_by_room()
    TopologicalSorter(rooms).prepare()  # raises where there is a circle
    page = (PACKAGE.parent / "docs/how_it_is_built.md").read_text().partition("| room |")[2]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in page.partition("\n\n")[0].splitlines()[2:]]
    level = {room: number for number, row in enumerate(rows) for room in row}
    assert sorted(level) == sorted(rooms) and len(level) == sum(map(len, rows))
    upwards = {(room, other) for room in rooms for other in rooms[room] if level[other] > level[room]}
    assert not upwards


def test_nothing_slow_is_imported_and_validation_stays_on() -> None:
    """By the package; and by the help of the command, after it in the same process.

    Importing zuko switches validation off for the whole process.
    """
    code = """
import sys
import pyro_vae as pv
pv.VAE, pv.fit, pv.log_evidence, pv.diagnose, pv.Digits()
print("package:", *sys.modules)
pv.FlowPrior
assert "zuko" in sys.modules
import torch
assert torch.distributions.Distribution._validate_args
from pyro_vae.cli import main
try: main(["--help"])
except SystemExit: pass
print("help:", *sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    (package,), (help,) = (
        [line[1:] for line in lines if line[:1] == [name]] for name in ("package:", "help:")
    )
    assert "pyro_vae.training" in package and "jsonargparse" in help
    assert [name for name in {**SLOW, **OF_COMMANDS} if name in package] == []
    assert [name for name in SLOW if name in help] == []


def test_a_start_that_is_interrupted_is_a_clean_one() -> None:
    """Ctrl-C as torch is about to be imported."""
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from pyro_vae.cli import main
raise SystemExit(main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\npyro-vae: interrupted\n"


def test_nothing_of_the_current_folder_takes_the_place_of_a_library(tmp_path: Path) -> None:
    for name in ("torch", "json", "yaml", "pyro"):
        (tmp_path / f"{name}.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    for command in (["-m", "pyro_vae"], ["-c", "from pyro_vae.cli import main; main()"]):
        flags = ["-P"] if command[0] == "-c" else []  # as of an installed script
        words = [sys.executable, *flags, *command, "sample", "."]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "expected the folder of a run" in done.stderr
        assert not (tmp_path / "imported").exists()


def test_every_public_name_is_found() -> None:
    assert sorted(pyro_vae.__all__) == sorted(pyro_vae._HOME)
    assert {*pyro_vae.__all__} <= {*dir(pyro_vae)}
    assert all(getattr(pyro_vae, name) is not None for name in pyro_vae.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(pyro_vae, "nothing")  # noqa: B009
