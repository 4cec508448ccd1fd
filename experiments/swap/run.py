"""Every prior × every posterior, then every likelihood, on Digits: test log p(x) over seeds.

    python experiments/swap/run.py

A finished cell is kept at once in OUT/cells.jsonl, and a command that was interrupted goes on with the cells
that are not there. Tables and pictures are made from that file alone.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, connection, get_context, parent_process
from pathlib import Path

import torch
from tqdm import tqdm

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.errors import count, one_line

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from experiments.records import publish  # noqa: E402
from experiments.swap.cells import PROTOCOLS, Cell, Protocol, Record, cells, train  # noqa: E402
from experiments.swap.report import Grid, likelihood_picture, sections, summary  # noqa: E402
from experiments.swap.results import Results  # noqa: E402


def run(todo: Sequence[tuple[Cell, Protocol]], jobs: int, keep: Callable[[Record], None]) -> dict[Cell, str]:
    """Train all cells in `jobs` processes, hand each result to `keep`; returns the errors of the others."""
    failures: dict[Cell, str] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker) as pool:
        try:
            # workers start here, and leave Ctrl-C to this process
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            running = {pool.submit(train, *each): each[0] for each in todo}
            signal.signal(signal.SIGINT, handler)
            for future in tqdm(as_completed(running), total=len(todo), unit="cell", disable=None):
                error = future.exception()
                if error is None:
                    keep(future.result())
                else:
                    failures[running[future]] = f"{type(error).__name__}: {one_line(error)}"
        except BaseException:
            for worker in active_children():
                worker.terminate()
            raise
    return failures


def _start_worker() -> None:
    """One thread, and an end with the parent's."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is one between processes, which a kill would leave behind
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def report(results: Results) -> None:
    """The tables and pictures of what is finished."""
    folder = results.path.parent
    plots.save(Grid(results).picture(), folder / "grid.png")
    plots.save(likelihood_picture(results), folder / "likelihoods.png")
    publish(folder, sections(results), summary(results), HERE / "README.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="Folder of the results.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each cell.")
    parser.add_argument("--epochs", type=int, help="Instead of those of the protocol.")
    parser.add_argument("--jobs", type=int, default=2, help="Processes, of one thread each.")
    parser.add_argument("--smoke", action="store_true", help="Each part once, for two epochs.")
    options = parser.parse_args()
    try:
        return execute(options)
    except pv.InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the cells that are missing", file=sys.stderr)
        return 130


def execute(options: argparse.Namespace) -> int:
    """All cells that are missing, then the report; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"
    results = Results(options.out / "cells.jsonl")
    todo = results.todo(chosen(options))
    failures = run(todo, count("jobs", options.jobs), results.add) if todo else {}
    if results.records:
        report(results)
    for cell, error in failures.items():
        print(f"failed: {cell}: {error}", file=sys.stderr)
    return 1 if failures else 0


def chosen(options: argparse.Namespace) -> list[tuple[Cell, Protocol]]:
    """The cells that the command asks for."""
    protocols = dict(PROTOCOLS)
    for part, protocol in protocols.items():
        if options.smoke:
            protocol = protocol._replace(epochs=2, particles=5, batch_size=400)
        if options.epochs is not None:
            protocol = protocol._replace(epochs=count("epochs", options.epochs))
        protocols[part] = protocol
    seeds = 1 if options.smoke else count("seeds", options.seeds)
    return [(cell, protocols[cell.part]) for cell in cells(seeds, smoke=options.smoke)]


if __name__ == "__main__":
    sys.exit(main())
