"""`pyro-vae impute`: what was not observed in the data of a file."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.cli.loading import load
from pyro_vae.cli.new_data import BLOCK, over, reading_options
from pyro_vae.cli.new_data import Columns as Found
from pyro_vae.columns import WORDS, Columns
from pyro_vae.data import MISSING_WORDS, DataFacts, Split, filled_cells, is_table
from pyro_vae.errors import InputError, draws, seed_number
from pyro_vae.imputation import Imputation
from pyro_vae.imputation import impute as impute_data
from pyro_vae.imputation.imputing import QUANTILE_DRAWS
from pyro_vae.randomness import own_randomness
from pyro_vae.storage.files import write, write_arrays
from pyro_vae.vae import JointProgram

#: Numbers of draws of a table held at once.
_HELD = 2**24

#: Probabilities of the interval that is written.
_INTERVAL = (0.05, 0.95)


def impute(
    run: Path, file: Path, *, out: Path, particles: int = 1000, seed: int = 0, device: str = "auto"
) -> None:
    """Fill what was not observed in the data of a file: E[x_mis|x_obs], by importance sampling.

    NaN in the file means not observed; what was observed is written as it was, in the units of the file. An
    .npy has the filled data. An .npz has them as filled, and standard_deviation, low and high (0.05 and 0.95
    quantiles), one_draw (all missing entries of a datum drawn together), log_evidence, that of the observed
    entries in nats, effective_sample_size and pareto_k of each datum. A .csv has a line for each missing
    entry: the number of its datum, its place there, mean, standard_deviation, low and high, and the datum's
    effective_sample_size and pareto_k. Where k-hat is above 0.7, all of it cannot be believed. The file is
    read by blocks, and Ctrl-C or a kill costs one of them at the most: the same command goes on.

    Of a table a .csv has all of it in its own words, with empty cells filled: by means, those of classes by
    the most probable one, those of counts by the median.

    Args:
        run: Folder of the run, trained on data with --data.missing true.
        file: A .npy, or an .npz of one array, of data as those of the training were stored: (N, *data_shape);
            or a .csv or .parquet with the columns of a table.
        out: A .npy, .npz or .csv for the results.
        particles: Importance samples per datum.
        seed: Of all random numbers.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    draws("particles", particles)
    seed_number(seed)
    if out.suffix not in _WRITERS:
        raise InputError(f"--out expects a .npy, .npz or .csv file, got {out}")
    opened = load(run, device=device)
    vae, facts = opened.vae, opened.facts
    if vae.no_evidence:
        raise InputError(f"there is no p(x) to impute by: {vae.no_evidence}")
    if not facts.missing:
        raise InputError(
            f"expected a run on data with missing entries, got {run}, whose encoder knows none: train it "
            "with --data.missing true"
        )

    def work(part: Split, number: int) -> Found:
        with own_randomness((seed + number) % 2**32, vae.device):
            x = vae.place(part.batch())
            return _imputed(vae, x, facts, particles, number * BLOCK)

    def finish(columns: Mapping[str, np.ndarray], values: NDArray[Any]) -> None:
        if facts.columns and is_table(file) and out.suffix == ".csv":
            missing_words = reading_options(opened).get("missing_words", MISSING_WORDS)
            filled = _filled(columns, values, "mean")
            write(out, filled_cells(file, facts.columns, filled, missing_words))
        else:
            _WRITERS[out.suffix](columns, values, out)
        print(out)

    over(opened, file, "impute", work, {"particles": particles, "seed": seed}, finish)


def _imputed(vae: JointProgram, x: Tensor, facts: DataFacts, particles: int, first: int) -> Found:
    """What is written of some data, the first of which has that number."""
    if not facts.columns:
        found = impute_data(vae.model, vae.guide, x, num_particles=particles, num_draws=1, levels=_INTERVAL)
        return _columns(found, facts, first)
    parts = []
    for rows in x.split(max(1, _HELD // (QUANTILE_DRAWS * x.shape[1]))):
        found = impute_data(
            vae.model,
            vae.guide,
            rows,
            num_particles=particles,
            num_draws=QUANTILE_DRAWS,
            levels=_INTERVAL,
        )
        parts.append(_columns(found, facts, first))
        first += len(rows)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _columns(found: Imputation, facts: DataFacts, first: int) -> Found:
    """Of each missing entry, in the units of the file, and of each datum."""
    scale, shift = facts.form.units(facts.maximum)
    missing = found.missing.flatten(1)
    low, high = found.quantiles
    values = {"mean": _best(found, facts.columns), "low": low, "high": high, "one_draw": found.draws[0]}
    datum, entry = missing.nonzero().unbind(1)
    return {
        "datum": datum + first,
        "entry": entry,
        **{name: value.flatten(1)[missing].double() * scale + shift for name, value in values.items()},
        "standard_deviation": found.standard_deviation.flatten(1)[missing].double() * scale,
        **{name: getattr(found, name) for name in _PER_DATUM},
    }


def _best(found: Imputation, columns: Columns) -> Tensor:
    """The mean of each entry; of the classes of a table the most frequent draw, of counts the median."""
    best = found.mean.clone()
    for place, column in enumerate(columns):
        if column.kind in WORDS:
            best[:, place] = found.draws[..., place].mode(0).values
        elif column.kind == "count":
            best[:, place] = found.draws[..., place].median(0).values
    return best


def _filled(columns: Mapping[str, np.ndarray], values: NDArray[Any], name: str) -> NDArray[Any]:
    """The data of the file with a column in the place of what was missing."""
    full = np.array(values)
    places = (columns[each].astype(np.int64) for each in ("datum", "entry"))
    full.reshape(len(full), -1)[tuple(places)] = columns[name]
    return full


def _write_npy(columns: Mapping[str, np.ndarray], values: NDArray[Any], out: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, _filled(columns, values, "mean"))
    write(out, buffer.getvalue())


def _write_npz(columns: Mapping[str, np.ndarray], values: NDArray[Any], out: Path) -> None:
    arrays = {"filled": _filled(columns, values, "mean")}
    arrays |= {name: _filled(columns, values, name) for name in ("low", "high", "one_draw")}
    zeros = np.zeros(values.shape, arrays["filled"].dtype)
    arrays["standard_deviation"] = _filled(columns, zeros, "standard_deviation")
    arrays |= {name: columns[name] for name in _PER_DATUM}
    write_arrays(out, arrays)


def _write_csv(columns: Mapping[str, np.ndarray], values: NDArray[Any], out: Path) -> None:
    datum = columns["datum"].astype(np.int64)
    parts = [datum, columns["entry"].astype(np.int64), *(columns[name] for name in _PER_ENTRY)]
    parts += [columns[name][datum] for name in ("effective_sample_size", "pareto_k")]
    lines = [",".join(["datum", "entry", *_PER_ENTRY, "effective_sample_size", "pareto_k"])]
    for row in zip(*(part.tolist() for part in parts), strict=True):
        lines.append(",".join(repr(value) for value in row))
    write(out, ("\n".join(lines) + "\n").encode())


#: Columns of a table of missing entries.
_PER_ENTRY = ("mean", "standard_deviation", "low", "high")
#: What is found of each datum.
_PER_DATUM = ("log_evidence", "effective_sample_size", "pareto_k")

_WRITERS: Mapping[str, Callable[[Mapping[str, np.ndarray], NDArray[Any], Path], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".csv": _write_csv,
}
