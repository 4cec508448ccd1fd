"""One writer at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.errors import InputError

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a folder as the one that writes into it, or, `shared`, as one of those that add results.

    The lock is the operating system's on the folder itself: it leaves no file, and ends with the process,
    however that ends. Where the file system has no locks, there is none.

    Args:
        folder: Which must be there.
        shared: Let others in that are `shared`, too.

    Raises:
        InputError: where another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing into {folder}: wait until it has ended, or choose another folder"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def has_locks(folder: Path) -> bool:
    """Whether the file system of a folder has locks; where it has none, `locked` holds nobody off."""
    if fcntl is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
