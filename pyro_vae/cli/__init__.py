"""The command line `pyro-vae`, built from the constructors' signatures."""

from pyro_vae.cli.entry import main
from pyro_vae.cli.loading import load

__all__ = ["load", "main"]
