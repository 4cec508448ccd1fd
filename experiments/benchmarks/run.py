"""Step time and log p(x) time of this library and of others, with their memory, in one command.

    python experiments/benchmarks/run.py

A finished case is kept at once in OUT/results.json; with --resume those that are there are not measured anew.
Tables and pictures are made from that file alone.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.errors import count, one_line
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from experiments.benchmarks import registry  # noqa: E402
from experiments.benchmarks.cases import CASES, SMOKE, Case, Kind, synthetic  # noqa: E402
from experiments.benchmarks.race import Budget, Failed, Race  # noqa: E402
from experiments.benchmarks.report import of_kind, picture, sections  # noqa: E402
from experiments.benchmarks.results import Results, circumstances  # noqa: E402
from experiments.benchmarks.summary import answer  # noqa: E402
from experiments.markdown import insert  # noqa: E402
from experiments.records import write_summary  # noqa: E402

#: Data in memory, from which batches are drawn.
NUM_DATA = 10_000


def main() -> int:
    options = arguments()
    try:
        return execute(options)
    except pv.InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command with --resume goes on with the next case", file=sys.stderr)
        return 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"Some of: {', '.join(CASES)}.")
    parser.add_argument("--variants", nargs="+", metavar="WORD", help="Those whose name contains a word.")
    parser.add_argument("--rounds", type=int, help="Turns of each variant; 9 by default.")
    parser.add_argument("--seconds", type=float, default=1.0, help="Of the reference per turn.")
    parser.add_argument("--steps", type=int, help="Per turn, instead of --seconds.")
    parser.add_argument("--threads", type=int, help="CPU cores of each variant; all by default.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="Where to measure.")
    parser.add_argument("--out", type=Path, help="Folder of the results; results/DEVICE by default.")
    parser.add_argument("--resume", action="store_true", help="Keep the cases that are finished.")
    parser.add_argument("--smoke", action="store_true", help="Tiny networks, few variants, two rounds.")
    return parser.parse_args()


def execute(options: argparse.Namespace) -> int:
    """Measure the cases one after the other, then report; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise pv.InputError("--device cuda needs a GPU, torch sees none: leave it out")
    home = HERE / "results" / options.device
    results = Results((options.out or home) / "results.json")
    names = chosen(options, results)
    failures = measure(names, options, results)
    report(results, options.device, renew=results.path.parent.resolve() == home.resolve())
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def chosen(options: argparse.Namespace, results: Results) -> dict[str, tuple[Case, list[str]]]:
    """The cases that the command asks for, each with its variants."""
    cases = SMOKE if options.smoke else CASES
    wanted = options.cases or list(cases)
    for name in wanted:
        if name not in cases:
            raise pv.InputError(f"--cases expects some of {', '.join(cases)}, got {name}")
    words = options.variants or [None]
    every = [name for found in registry.VARIANTS.values() for name in found]
    for word in words:
        if word is not None and not any(word.lower() in name.lower() for name in every):
            raise pv.InputError(
                f"--variants expects words from {'; '.join(dict.fromkeys(every))}, got {word}"
            )
    return {
        name: (cases[name], variants(name, cases[name], options))
        for name in wanted
        if not (options.resume and name in results.cases)
    }


def variants(name: str, case: Case, options: argparse.Namespace) -> list[str]:
    found = registry.chosen(case.kind, options.device, options.variants)
    if options.smoke and options.variants is None:
        return [each for each in found if each in registry.SMOKE[name]]
    return found


def measure(
    names: dict[str, tuple[Case, list[str]]], options: argparse.Namespace, results: Results
) -> list[str]:
    """Measure and keep each case; returns what failed."""
    budget, failures = budget_of(options), []
    threads = None if options.threads is None else count("threads", options.threads)
    total = sum(len(found) * (budget.rounds + 3) for _, found in names.values())
    bar: tqdm[Any]
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit="turn", disable=None) as bar:
        for name, (case, found) in names.items():
            data, source = Path(folder) / "data.npy", save_data(case, Path(folder) / "data.npy")
            where = circumstances(options.device, threads, source)
            try:
                record = Race(name, case, found, data, options.device, threads, bar).run(budget)
            except Failed as error:
                failures.append(str(error))
                continue
            results.add(name, {**record, "circumstances": where})
            rows = record["rows"].items()
            failures += [f"{name}, {each}: {row['failed']}" for each, row in rows if "failed" in row]
    return failures


def budget_of(options: argparse.Namespace) -> Budget:
    if not options.seconds > 0:
        raise pv.InputError(f"--seconds expects a positive number, got {options.seconds}")
    steps = None if options.steps is None else count("steps", options.steps)
    if options.smoke:
        return Budget(count("rounds", options.rounds or 2), options.seconds, steps or 3)
    return Budget(count("rounds", 9 if options.rounds is None else options.rounds), options.seconds, steps)


def save_data(case: Case, path: Path) -> str:
    """Write the data, (N, D) bits, for the workers; returns where they come from."""
    if os.environ.get("PYRO_VAE_DATA") and case.network.side == 28:
        bits = pv.MNIST(form=pv.Static()).train.batch(slice(0, NUM_DATA)).flatten(1)
        np.save(path, bits.to(torch.uint8).numpy())
        return f"MNIST, binarised once, the first {NUM_DATA:,}"
    np.save(path, synthetic(case.network, NUM_DATA))
    return f"{NUM_DATA:,} synthetic pictures"


def report(results: Results, device: str, *, renew: bool) -> None:
    """Print the tables and draw the pictures; renew README where the results are the committed ones."""
    found = sections(results.cases, device)
    print("\n\n".join(found.values()))
    kinds: tuple[Kind, ...] = ("steps", "evidence")
    for kind in kinds:
        figure = picture(of_kind(results.cases, kind), kind)
        if figure is not None:
            plots.save(figure, results.path.parent / f"{kind}.png")
    write_summary(results.path.parent, answer(of_kind(results.cases, "steps")))
    readme = HERE / "README.md"
    if renew and readme.exists():
        write(readme, insert(readme.read_text(), found).encode())


if __name__ == "__main__":
    sys.exit(main())
