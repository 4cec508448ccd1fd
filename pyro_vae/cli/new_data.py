"""`pyro-vae score` and `pyro-vae encode`: a trained run on data of a file."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.data import Split, arrays_in, is_table, rows_in
from pyro_vae.errors import InputError, draws, seed_number
from pyro_vae.importance import elbo, log_evidence
from pyro_vae.importance.estimation import Proposal
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import own_randomness
from pyro_vae.ranks import here, sharing
from pyro_vae.reports import usual_method
from pyro_vae.storage.files import write, write_arrays
from pyro_vae.storage.stages import Stages

#: Data worked on at once, after which the results are kept.
BLOCK = 1000

#: What one block of data gives: a column of numbers, one of each datum, by its name.
Columns = Mapping[str, torch.Tensor]


def score(
    run: Path,
    file: Path,
    *,
    method: Literal["importance", "local"] | None = None,
    particles: int = 1000,
    out: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Log p(x) of each datum of a file, by draws as in `evaluate`, with its error and Pareto k-hat.

    A line for each datum: its number, log p(x) and Monte Carlo standard error in nats, k-hat, the ELBO, and
    where entries are missing how many: log p(x) is of the others, and those of data with fewer missing are
    not comparable. Where k-hat is above 0.7 the estimate is likely too low. The file is read by blocks of
    1000 data, and Ctrl-C or a kill costs one of them at the most: the same command goes on. Several ranks,
    by torchrun, share out each block, to the same numbers.

    Args:
        run: Folder of the run.
        file: A .npy, or an .npz of one array, of data as those of the training were stored: (N, *data_shape);
            or a .csv or .parquet with the columns of a table. What the model takes beside x, as label,
            lies beside it in the .npz, by its name: (N, ...).
        method: What is drawn from, q(z|x) or proposals fitted to each datum; by default as in `evaluate`.
        particles: Draws per datum.
        out: A .csv for the results, or an .npz of one array for each column; by default CSV to the screen.
        seed: Of all random numbers.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    draws("particles", particles)
    seed_number(seed)
    opened = load(run, device=device)

    def work(part: Split, number: int) -> Columns:
        vae = opened.vae
        with own_randomness((seed + number) % 2**32, vae.device):
            batch = vae.place(part.take())
            chosen = method or usual_method(vae, batch[:2], particles)
            proposal: Proposal = "local" if chosen == "local" else "guide"
            found = log_evidence(vae.model, vae.guide, batch, num_particles=particles, proposal=proposal)
            terms = elbo(vae.model, vae.guide, batch, num_particles=10)
        return {
            "log_evidence": found.estimate,
            "standard_error": found.standard_error,
            "pareto_k": found.pareto_k,
            "elbo": terms.elbo,
            "missing": batch.x.isnan().flatten(1).sum(1),
        }

    def finish(columns: Mapping[str, np.ndarray], _: object) -> None:
        shown = dict(columns)
        missing = shown.pop("missing").astype(int)
        _write({**shown, "missing": missing} if missing.any() else shown, out)

    if opened.vae.no_evidence:
        raise InputError(f"there is no log p(x) to score by: {opened.vae.no_evidence}")
    with sharing():
        _check_out(out)
        options = {"method": method, "particles": particles, "seed": seed}
        over(opened, file, "score", work, options, finish)


def encode(run: Path, file: Path, *, out: Path | None = None, seed: int = 0, device: str = "auto") -> None:
    """Means and standard deviations of the codes q(z|x) of each datum of a file.

    A line for each datum: its number, the means of all latent axes, then their standard deviations. Those of
    a flow, and of layers below another, are by 1000 draws.

    Args:
        run: Folder of the run.
        file: A .npy, or an .npz of one array, of data as those of the training were stored: (N, *data_shape);
            or a .csv or .parquet with the columns of a table. What the model takes beside x, as label,
            lies beside it in the .npz, by its name: (N, ...).
        out: A .csv for the results, or an .npz of one array for each column; by default CSV to the screen.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    seed_number(seed)
    opened = load(run, device=device)

    def work(part: Split, number: int) -> Columns:
        with own_randomness((seed + number) % 2**32, opened.vae.device):
            mean, scale = opened.vae.place(part.take()).offer(opened.vae.codes)
        axes = range(mean.shape[1])
        return {f"mean_{k}": mean[:, k] for k in axes} | {f"scale_{k}": scale[:, k] for k in axes}

    _check_out(out)
    over(opened, file, "encode", work, {"seed": seed}, lambda columns, _: _write(columns, out))


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in (".csv", ".npz"):
        raise InputError(f"--out expects a .csv or an .npz file, got {out}")


def over(
    opened: TrainedRun,
    file: Path,
    name: str,
    work: Callable[[Split, int], Columns],
    options: Mapping[str, int | str | None],
    finish: Callable[[Mapping[str, np.ndarray], NDArray[Any]], None],
) -> None:
    """Work on all data of a file, block by block, and finish with the columns and the data.

    Args:
        opened: The run.
        file: Of data.
        name: Of the command.
        work: Gives columns of the data of a block, by its number.
        options: What they depend on beside run and file.
        finish: Takes the columns of all blocks, joined, and the array in the file.
    """
    values, beside = _data_in(file, opened)
    if not len(values):
        raise InputError(f"expected data in {file}, got none")
    status = file.stat()
    settings = {**options, "size": status.st_size, "changed": status.st_mtime_ns, **opened.identity}
    starts = range(0, len(values), BLOCK)
    folder = opened.run.checkpoints / f"{name} of {file.name}"
    here().check_alike({"a run and options": settings})
    with Stages(folder, settings, kept=not here().several) as stages:
        for start in progress_bar(iterable=starts, desc=name, unit="blocks of data"):
            rows = slice(start, start + BLOCK)
            fields = {name: array[rows] for name, array in beside.items()}
            part = opened.facts.test(values[rows], str(file), fields)

            def found(part: Split = part, start: int = start) -> dict[str, torch.Tensor]:
                return {key: column.cpu().double() for key, column in work(part, start // BLOCK).items()}

            stages(str(start), found)
        blocks = [stages.done[str(start)] for start in starts]
        columns = {key: torch.cat([block[key] for block in blocks]).numpy() for key in blocks[0]}
        finish(columns, values)


def _data_in(file: Path, opened: TrainedRun) -> tuple[NDArray[Any], Mapping[str, NDArray[Any]]]:
    """The data of a file, and what is given beside them; a table by the columns of the training."""
    if not (opened.facts.columns and is_table(file)):
        return arrays_in(file, opened.facts.given)
    return rows_in(file, opened.facts.columns, **reading_options(opened)), {}


def reading_options(opened: TrainedRun) -> dict[str, Any]:
    """How numbers and missing entries were written in the table of the training."""
    options = dict(opened.settings.data.get("init_args") or {})
    return {name: options[name] for name in ("decimal", "thousands", "missing_words") if name in options}


def _write(columns: Mapping[str, np.ndarray], out: Path | None) -> None:
    """A CSV with a header and a line for each datum, or arrays; by the first rank."""
    if not here().first:
        return
    if out is not None and out.suffix == ".npz":
        write_arrays(out, columns)
        print(out)
        return
    text = io.StringIO()
    text.write(",".join(["datum", *columns]) + "\n")
    for number, row in enumerate(zip(*(column.tolist() for column in columns.values()), strict=True)):
        text.write(f"{number}," + ",".join(repr(value) for value in row) + "\n")
    if out is None:
        print(text.getvalue(), end="")
    else:
        write(out, text.getvalue().encode())
        print(out)
