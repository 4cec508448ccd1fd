"""What the commands of experiments share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyro_vae as pv
from pyro_vae.errors import one_line


def options_of(doc: str | None, here: Path, arguments: list[str] | None) -> argparse.Namespace:
    """The options `smoke`, `out` and `runs` of the experiment in the folder `here`.

    A smoke run goes to runs/NAME-smoke, so that it never meets a real one.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="two steps on the embedded digits, a few draws")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--runs", type=Path, help="folder of trained runs")
    options = parser.parse_args(arguments)
    runs = Path("runs") / (f"{here.name}-smoke" if options.smoke else here.name)
    options.runs = options.runs or runs
    options.out = options.out or (runs / "results" if options.smoke else here / "results")
    return options


def run_script(main: Callable[[], int]) -> NoReturn:
    """End with the status of `main`: one line and 2 for bad input, 130 where it was interrupted."""
    try:
        sys.exit(main())
    except pv.InputError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
