"""The command line `pyro-vae`, built from the constructors' signatures."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    0, or 2 for bad input, 1 for a loss that is not finite, 130 where it was interrupted, while it starts too.

    Args:
        arguments: Its words; by default those of the process.
    """
    try:
        from pyro_vae.cli.entry import main as run  # seconds, in which a user may change their mind
    except KeyboardInterrupt:
        print("\npyro-vae: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
