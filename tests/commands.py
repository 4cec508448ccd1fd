"""What the tests of the command line share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The command, by its words: status, standard output, standard error.
Run = Callable[..., tuple[int, str, str]]

#: Options of a training that takes no time.
SMALL = ("--network.hidden_dims", "[8]", "--latent_dim", "2", "--particles", "10")


def arrays_in(path: Path | str) -> dict[str, NDArray[Any]]:
    """All arrays of a .npz file, which is closed."""
    with np.load(path) as found:
        return dict(found)
