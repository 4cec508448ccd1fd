"""Progress bars: in a terminal and in a notebook, and nowhere else."""

import os
import sys
import warnings
from typing import Any

from tqdm import TqdmWarning, tqdm

_SECONDS = 1.0  # what is shorter needs no bar


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or this is a notebook.

    A notebook's kernel has no terminal, and shows what is printed all the same. Nobody does where the
    environment variable TQDM_DISABLE says so.
    """
    if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        return False
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as of Jupyter, Colab or an editor."""
    ipython = sys.modules.get("IPython")  # which is never imported here
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(progress: bool | None = None, **options: Any) -> "tqdm[Any]":
    """A bar of tqdm's, in a notebook that of its widgets where it has them.

    Args:
        progress: Show it; by default where somebody sees it, and after a second only.
        options: As of `tqdm.tqdm`.

    >>> with progress_bar(False, total=3, unit="step") as bar:
    ...     bar.update() is None
    True
    """
    shown, delay = (is_watched(), _SECONDS) if progress is None else (progress, 0)
    return _kind()(disable=not shown, **{"dynamic_ncols": True, "delay": delay, **options})


def _kind() -> "type[tqdm[Any]]":
    """The bar of notebooks, or that of terminals where there are no widgets."""
    if not in_notebook():
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # that there are no widgets
        from tqdm.autonotebook import tqdm as for_notebooks
    return for_notebooks
