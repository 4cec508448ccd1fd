"""Trained runs of an experiment, made where they are missing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.configuration import text_of
from pyro_vae.cli.loading import load
from pyro_vae.cli.parser import train_parser, with_defaults
from pyro_vae.data import Dataset
from pyro_vae.storage.runs import Run
from pyro_vae.vae import VAE, JointProgram

#: Two steps on the embedded digits instead of the whole.
SMOKE = ("--data", "Digits", "--steps", "2", "--particles", "5")
#: A configuration may name classes of the experiments.
TRUST = ("--trust", "experiments")


def trained(folder: Path, *options: str, smoke: bool = False) -> tuple[Run, Dataset, JointProgram]:
    """The run in `folder`: trained by `pyro-vae train` with `options` where it is not there yet.

    One that was interrupted goes on; one that is finished is read.

    Args:
        folder: Of the run.
        options: As on the command line.
        smoke: Train for two steps on the embedded digits.

    Raises:
        InputError: where the folder holds a run with other options.
    """
    words = [*options, *(SMOKE if smoke else ())]
    if (folder / "config.yaml").exists():
        _check(folder, words)
        words = ["--resume", str(folder)]
    else:
        words += ["--out", str(folder)]
    if not (folder / "summary.json").exists() and (status := main(["train", *TRUST, *words])):
        raise SystemExit(status)
    opened = load(folder, trust=TRUST[1:])
    return opened.run, opened.data(), opened.vae


def trained_variants(
    runs: Path, config: Path, variants: Mapping[str, Sequence[str]], *, smoke: bool
) -> dict[str, tuple[Run, Dataset, VAE]]:
    """VAEs by name, all of one file of options, each with its own words after that."""
    found = {}
    for name, words in variants.items():
        run, data, vae = trained(runs / name, "--config", str(config), *words, smoke=smoke)
        assert isinstance(vae, VAE)
        found[name] = run, data, vae
    return found


def summary_of(run: Run) -> dict[str, Any]:
    """What training wrote last: its final numbers."""
    content: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
    return content


def _check(folder: Path, words: list[str]) -> None:
    """Refuse a run that was trained with other options."""
    asked = text_of(train_parser().parse_args(with_defaults(words)))
    if asked != (folder / "config.yaml").read_text():
        raise pv.InputError(f"{folder} holds a run with other options: choose another folder with --runs")
