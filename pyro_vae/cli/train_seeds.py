"""`pyro-vae train --seeds`: several runs at once, which differ in their seed."""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae import comparison
from pyro_vae.cli.loading import data_of
from pyro_vae.cli.members import Member, Start, fit_members, held
from pyro_vae.cli.processes import NotBatched, leaves, train_in_processes
from pyro_vae.cli.train import Training, announce, check_numbers
from pyro_vae.columns import Schema
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, warn
from pyro_vae.processes import on_all_cores
from pyro_vae.ranks import here
from pyro_vae.storage.files import read_json, read_text
from pyro_vae.storage.runs import Run, of_seed


def train_seeds(settings: Namespace, seeds: Sequence[int], out: Path | None) -> int:
    """`pyro-vae train --seeds`: returns the exit status.

    Args:
        settings: All options.
        seeds: Of the runs.
        out: The folder in which they are, each in one of its own; runs that are there go on.
    """
    here().only_one("pyro-vae train --seeds")
    check_numbers(settings)
    data = data_of(settings)
    if data.columns:
        print(Schema(data.columns), end="\n\n")
    if data.form.name != data.first_form.name:
        announce(data, settings)
    if out is not None and (out / "config.yaml").exists():
        raise InputError(
            f"{out} is the folder of one run, and --seeds has several: choose another with --out"
        )
    shared = data if settings.num_labelled is None else None  # labels are chosen by the seed
    with Run.written(out, data.name) as folder:
        members = [_member(settings, seed, folder, shared) for seed in seeds]
        return _trained(folder, members)


def _member(settings: Namespace, seed: int, folder: Path, data: Dataset | None) -> Member:
    """The run of a seed."""
    own = settings.clone()
    own.seed, own.seeds = seed, None
    return Member.of(Training.of(own, data_of(own) if data is None else data), of_seed(folder, seed))


def _trained(folder: Path, members: Sequence[Member]) -> int:
    """Train, evaluate, and keep everything in the folders."""
    start = Start(members)
    try:
        try:
            errors = _train_at_once(folder, members, start)
        except NotBatched as reason:
            errors = train_in_processes(members, str(reason))
    except KeyboardInterrupt:
        if not start.happened:
            raise
        command = f"pyro-vae train --resume {shlex.quote(str(folder))}"
        print(f"\ninterrupted; go on with: {command}", file=sys.stderr)
        return 128 + signal.SIGINT
    for place, error in errors.items():
        print(f"pyro-vae: {place}: {error}", file=sys.stderr)
    good = [member.folder for member in members if member.folder not in errors]
    if good:
        print(_table(good, [read_json(read_text(place / "summary.json")) for place in good]))
    return 1 if errors else 0


def _train_at_once(folder: Path, members: Sequence[Member], start: Start) -> dict[Path, str]:
    """Train and evaluate as copies of this process: what has ended a run before its time, by its folder.

    Raises:
        NotBatched: where the runs are left to processes.
    """
    with held(members):
        fitted = fit_members(members, start, watched=folder, on_apart=leaves(members))
        pairs = list(zip(members, fitted, strict=True))
        on_all_cores([partial(member.evaluate, one) for member, one in pairs if one.error is None])
    return {member.folder: str(one.error) for member, one in pairs if one.error is not None}


def _table(folders: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> str:
    """A line of each run, and all as one."""
    rows = {str(folder): _words(content) for folder, content in zip(folders, results, strict=True)}
    found = _compared(folders) if all(content["log_evidence"] for content in results) else None
    if found is not None:
        model = found.runs[0]
        spread = f"sd {model.seed_deviation:.3f} over seeds"
        rows[f"{len(folders)} seeds"] = f"ELBO {model.elbo:.3f}   log p(x) {model.log_evidence:.3f} {spread}"
        measured = f"{found.num_data} {found.split} data of {found.data}"
        rows["measured"] = f"{measured}, {found.units}, {found.protocol}, hash {found.data_hash}"
    width = max(map(len, rows)) + 3
    return "\n".join(f"{name:<{width}}{words}" for name, words in rows.items())


def _compared(folders: Sequence[Path]) -> comparison.Comparison | None:
    """The runs as one model; None of one, or where they were evaluated in different ways since."""
    if len(folders) == 1:
        return None
    try:
        return comparison.compare(folders)
    except InputError as error:
        warn(f"no row of all seeds: {error}")
        return None


def _words(content: Mapping[str, Any]) -> str:
    """What a run has come to."""
    training, split, found = content["training"], content["split"], content["log_evidence"]
    words = [f"ELBO {content['elbo'][split]['elbo']:.3f}"]
    if found:
        words.append(f"log p(x) {found['estimate']:.3f} ± {found['standard_error']:.3f}")
    epochs = f"{training['epochs']} epochs, the best {training['best_epoch']}"
    return "   ".join([*words, f"{epochs}, ended by {training['ended_by']}"])
