"""The time of `import pyro_vae`, and of the command line's help, next to `import torch, pyro`.

    python experiments/benchmarks/imports.py

Each is a fresh process of the same Python, with Python's own start in it. They take turns, A B C A B C …; the
first turn, which compiles all modules to bytecode, does not count.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.results import circumstances
from experiments.markdown import markdown
from experiments.records import renew
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFERENCE = "import torch, pyro"
HELP = "from pyro_vae.cli import main; main(['--help'])"
#: Python code by its name in the table.
PROGRAMS = {
    REFERENCE: REFERENCE,
    "import pyro_vae": "import pyro_vae",
    "pyro_vae, used": "import pyro_vae as pv; pv.VAE, pv.fit, pv.log_evidence, pv.diagnose",
    "pyro-vae --help": HELP,
}

#: Seconds by the clock and of the CPU, by program and turn.
Times = dict[str, list[tuple[float, float]]]


def measured(code: str, bytecode: str) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU, of a process that keeps its bytecode in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def race(rounds: int) -> Times:
    """The times of all programs, in turns."""
    times: Times = {name: [] for name in PROGRAMS}
    with TemporaryDirectory() as bytecode:
        for _ in range(rounds + 1):
            for name, code in PROGRAMS.items():
                times[name].append(measured(code, bytecode))
    return {name: found[1:] for name, found in times.items()}


def table(times: Times) -> str:
    """Medians, and their ratios to the reference."""
    medians = {
        name: [statistics.median(each) for each in zip(*found, strict=True)] for name, found in times.items()
    }
    rows = [["process", "seconds", "ratio", "CPU seconds", "ratio"]]
    for name, found in medians.items():
        pairs = zip(found, medians[REFERENCE], strict=True)
        rows.append(
            [f"`{name}`", *(cell for mine, its in pairs for cell in (f"{mine:.2f}", f"{mine / its:.2f}"))]
        )
    return markdown(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu")
    options = parser.parse_args(arguments)
    about = circumstances("cpu", None, "none")
    found = race(options.rounds)
    write(options.out / "imports.json", json.dumps({"about": about, "times": found}).encode())
    print(table(found))
    renew(HERE / "README.md", {"imports": table(found)}, options.out, HERE / "results" / "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
