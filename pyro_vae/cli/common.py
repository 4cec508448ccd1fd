"""What commands share: the options of log p(x), how an interrupted one goes on, and tables for documents."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from pyro_vae.annealing import usual_temperatures
from pyro_vae.data import Split
from pyro_vae.errors import InputError, count, draws
from pyro_vae.ranks import here
from pyro_vae.reports import Estimator, Method
from pyro_vae.reports.estimators import OPTIONS
from pyro_vae.storage.hashing import fingerprint_of
from pyro_vae.storage.stages import Stages
from pyro_vae.tabular import Format
from pyro_vae.vae import JointProgram


def estimator_of(command: Callable[..., None], *, method: Method, **options: Any) -> Estimator:
    """The estimator that the options of a command name.

    Raises:
        InputError: where an option of another method is not at its default, or a number is none.
    """
    defaults = {name: each.default for name, each in inspect.signature(command).parameters.items()}
    for name in options:
        takers = [other for other, names in OPTIONS.items() if name in names]
        if takers and method not in takers and options[name] != defaults[name]:
            raise InputError(
                f"--{name} is an option of --method {', '.join(takers)}, got --method {method}: leave it "
                "out, or choose another method"
            )
    if options["temperatures"] is None:
        options["temperatures"] = usual_temperatures(options["until_gap"])
    for name in ("particles", "chains", "temperatures"):
        draws(name, options[name])
    if options.get("simulated"):
        count("simulated", options["simulated"])
    return Estimator(method, **options)


@contextmanager
def table_alone(format: Format) -> Iterator[TextIO]:
    """The screen, for a table; where that is for a document, all else goes to the stream of messages."""
    screen = sys.stdout
    with redirect_stdout(screen if format == "text" else sys.stderr):
        yield screen


@contextmanager
def stages_of(
    folder: Path, vae: JointProgram, part: Split, estimator: Estimator, options: Mapping[str, Any]
) -> Iterator[Stages]:
    """Where a command keeps what it has found, for the same options, data and parameters only."""
    settings = {
        **estimator.options(),
        **options,
        "num_data": len(part),
        "data": part.hash(),
        "device": vae.device.type,
        "parameters": fingerprint_of(vae),
    }
    with Stages(folder, settings, kept=not here().several) as stages:
        if stages.resumed:
            print(f"pyro-vae: note: going on from {folder}", file=sys.stderr)
        yield stages
