"""Files that are whole or not there: written to a temporary name, flushed, renamed; checked when read."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pyro_vae.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary name beside it, flushed, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk does not say where
        raise


def load_arrays(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz, loaded without executing any code in it.

    Raises:
        InputError: where it is truncated or no .npz, holds Python objects, or lacks one of `keys`.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise InputError(
            f"expected arrays in {path}, got a file that is truncated or corrupt: evaluate the run anew"
        ) from error
    missing = set(keys) - set(arrays)
    if missing:
        raise InputError(
            f"expected {path} with {', '.join(sorted(missing))}, got none of it: evaluate the run anew"
        )
    return arrays
