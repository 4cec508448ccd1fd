"""`python -m pyro_vae`: the command line."""

import sys

# `python -m` looks into the current folder first, where a run from elsewhere may have a torch.py
if sys.path and not sys.flags.safe_path:
    del sys.path[0]

from pyro_vae.cli import main

sys.exit(main())
