"""Progress: bars in a terminal and in a notebook, and a plain line now and then in a file."""

import os
import sys
import time
import warnings
from typing import Any

from tqdm import TqdmWarning, tqdm

_SECONDS = 1.0  # what is shorter needs no bar

#: What is counted, how much of it, and how long it takes.
_COUNTED = "{n_fmt}/{total_fmt} {unit}, {elapsed} so far, {remaining} left{postfix}"
_BAR, _LINE = f"{{desc}}{{percentage:3.0f}}%|{{bar}}| {_COUNTED}", f"{{desc}}{_COUNTED}"


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or this is a notebook.

    A notebook's kernel has no terminal, and shows what is printed all the same. Nobody does where the
    environment variable TQDM_DISABLE says so.
    """
    if _is_silenced():
        return False
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _is_silenced() -> bool:
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, as of Jupyter, Colab or an editor."""
    ipython = sys.modules.get("IPython")  # which is never imported here
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(progress: bool | None = None, **options: Any) -> "tqdm[Any]":
    """A bar of tqdm's, in a notebook that of its widgets where it has them.

    Where nobody sees a bar, as in a file or a log, a line of what takes long: the first after half a minute,
    and each once a tenth more of the time has passed.

    Args:
        progress: Show it; by default after a second only, and a bar only where somebody sees it.
        options: As of `tqdm.tqdm`: `desc` says what is done, `unit` what is counted, in the plural.

    >>> with progress_bar(False, total=3, unit="step") as bar:
    ...     bar.update() is None
    True
    """
    if label := options.get("desc"):
        options["desc"] = f"{label}: "
    if progress is None and not is_watched():
        return Lines(**options, disable=_is_silenced() or sys.stderr is None)
    delay = _SECONDS if progress is None else 0
    usual = {"dynamic_ncols": True, "delay": delay, "bar_format": _BAR}
    return _kind()(disable=progress is False, **{**usual, **options})


class Lines(tqdm):  # type: ignore[type-arg]
    """A bar as lines, far between."""

    #: Seconds between two lines at the least, and their share of the time so far.
    seconds, share = 30.0, 0.1

    def __init__(self, *args: Any, **options: Any) -> None:
        self._begun = self._last = time.monotonic()
        self._due = False
        super().__init__(*args, **{**options, "bar_format": _LINE, "mininterval": 0, "ncols": 200})

    def update(self, n: float | None = 1) -> bool | None:
        """Count on; the line itself comes with the next call, when what is said beside it has been set."""
        if self.disable:
            return None
        if self._due:
            self._due = False
            print(self, file=sys.stderr, flush=True)
        self.n += n or 0
        self.last_print_n = self.n  # up to which an iteration has told of itself
        now = time.monotonic()
        if now - self._last >= max(self.seconds, self.share * (now - self._begun)):
            self._last, self._due = now, True
        return self._due

    def refresh(self, *_: Any, **__: Any) -> None:
        """Nothing is drawn anew."""

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing is taken away."""

    def close(self) -> None:
        """The last line stays."""
        if not self.disable:
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]


def _kind() -> "type[tqdm[Any]]":
    """The bar of notebooks, or that of terminals where there are no widgets."""
    if not in_notebook():
        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # that there are no widgets
        from tqdm.autonotebook import tqdm as for_notebooks
    return for_notebooks
