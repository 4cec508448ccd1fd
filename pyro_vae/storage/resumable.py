"""The state of a long computation, kept in a file from which the same computation goes on."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.randomness import random_state, set_random_state
from pyro_vae.ranks import workers
from pyro_vae.storage.checkpoints import check_settings, load_checkpoint, save_checkpoint


class Keeper(Protocol):
    """Where a computation keeps its state: a file, or its place within the state of a longer one."""

    @property
    def state(self) -> dict[str, Any] | None:
        """What was kept last; None at the beginning."""

    def keep(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep what `state` gives, where it is time."""


class Resumable:
    """A file that holds the state of a computation while it runs, and is gone once it has ended.

    Entered at the start of the computation. Where the file is there, `state` is what was kept last, on the
    CPU, and torch's random numbers are set to go on as they would have then; so a computation that gives
    `keep` all that it goes on from ends with the very numbers of one that was never interrupted.

    Ctrl-C waits for the next `keep`, which writes the state before it raises KeyboardInterrupt; a second one
    is not waited with. Any other exception leaves the file as it was last written.

    Args:
        path: The file; with None, or where ranks share the computation, nothing is kept and `state` is None.
        settings: All that the numbers depend on: numbers and strings, which must be equal to those of the
            file, and tensors, which must be so up to rounding (a probe of a model's parameters).
        device: Where random numbers are drawn.

    Raises:
        InputError: where the file is of another computation, truncated, or no such file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "sum.pt"
    >>> with Resumable(path, {"terms": 5}, torch.device("cpu")) as kept:
    ...     state = kept.state or {"total": 0, "term": 0}
    ...     for term in range(state["term"], 5):
    ...         state = {"total": state["total"] + term, "term": term + 1}
    ...         kept.keep(lambda: state)
    >>> state["total"], path.exists()
    (10, False)
    """

    #: Seconds between two writings of the file.
    interval = 10.0

    def __init__(self, path: str | Path | None, settings: Mapping[str, Any], device: torch.device) -> None:
        self.path = None if path is None or workers().several else Path(path)
        self.settings, self.device = dict(settings), device
        self.state: dict[str, Any] | None = None
        self._random: list[Tensor] = []
        self._written = time.monotonic()
        self._interrupted = False
        if self.path is not None and self.path.is_dir():
            raise InputError(f"expected a file to keep the state in, got the folder {self.path}")
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _load(self, path: Path) -> None:
        try:
            content = load_checkpoint(path, ("settings", "state", "random"))
        except InputError as error:
            cause = str(error).split(":")[0]
            raise InputError(f"{cause}: remove it to begin anew, or choose another file") from error
        if content["settings"].keys() != self.settings.keys():
            raise InputError(
                f"the checkpoint {path} is that of another computation: remove it, or choose another file"
            )
        check_settings(_without_tensors(content["settings"]), _without_tensors(self.settings), path)
        for name, value in self.settings.items():
            if isinstance(value, Tensor) and not _agree(content["settings"].get(name), value):
                raise InputError(
                    f"the checkpoint {path} was made with other {name}: go on with the same model, guide and "
                    "parameters, or remove it"
                )
        self.state, self._random = content["state"], content["random"]

    def keep(self, state: Callable[[], Mapping[str, Any]], *, now: bool = False) -> None:
        """Write what `state` gives, where the last writing is `interval` seconds ago or Ctrl-C was pressed.

        With `now` it is written in any case. The state is of tensors, numbers, strings, and lists and
        dictionaries of these.
        """
        if self.path is None:
            return
        if now or self._interrupted or time.monotonic() - self._written >= self.interval:
            content = {"settings": self.settings, "state": dict(state())}
            save_checkpoint(self.path, {**content, "random": random_state(self.device)})
            self._written = time.monotonic()
        if self._interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._written = time.monotonic()
        if self.state is not None:
            set_random_state(self._random, self.device)
        self._catches = self.path is not None and threading.current_thread() is threading.main_thread()
        if self._catches:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def _interrupt(self, *_: object) -> None:
        """Note a first Ctrl-C; a second one is handled as it would be without this."""
        self._interrupted = True
        signal.signal(signal.SIGINT, self._before)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._catches:
            signal.signal(signal.SIGINT, self._before)
        if kind is None and self._interrupted:
            raise KeyboardInterrupt
        if kind is None and self.path is not None:
            self.path.unlink(missing_ok=True)


def _without_tensors(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not isinstance(value, Tensor)}


def _agree(old: object, new: Tensor) -> bool:
    """Whether two probes of the same program agree, up to the rounding of other threads."""
    new = new.detach().cpu()
    same = isinstance(old, Tensor) and old.shape == new.shape and old.dtype == new.dtype
    return same and torch.allclose(old, new, rtol=1e-5, atol=1e-5, equal_nan=True)  # type: ignore[arg-type]
