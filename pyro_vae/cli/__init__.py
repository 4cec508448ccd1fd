"""The command line `pyro-vae`, built from the constructors' signatures."""

import os
import sys

#: Rounds in which a thread without work waits for more before it sleeps: tens of microseconds, by which a
#: command alone was not slower. By default the threads of torch wait for milliseconds: other programs starve.
_ROUNDS = "10000"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    0, or 2 for bad input, 1 for a loss that is not finite, 130 where it was interrupted, while it starts too.

    Args:
        arguments: Its words; by default those of the process.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _ROUNDS)  # read when torch is imported
    try:
        from pyro_vae.cli.entry import main as run  # seconds, in which a user may change their mind
    except KeyboardInterrupt:
        print("\npyro-vae: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
