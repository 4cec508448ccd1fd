"""The finished stages of a long command, kept in a folder from which the same command goes on."""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyro_vae.errors import InputError
from pyro_vae.storage.checkpoints import is_text_keyed, load_checkpoint, save_checkpoint
from pyro_vae.storage.locks import locked

#: What names of files of finished stages end with.
_STAGE = ".stage"


class Stages:
    """A folder that holds what a command has found so far, and is gone once the command has ended.

    Each finished stage is a file of its own, written once. One that takes long may keep its own state in the
    file `within(name)`, as a `Resumable` does. Interrupted, it says where it goes on; other errors leave the
    folder, too, where there is something in it to go on from, but for input refused in one go, at which the
    same command would end again.

    Args:
        folder: The folder, which holds nothing else.
        settings: All that the numbers depend on, numbers and strings by the names of their options.
        kept: Whether anything is written; else the folder is left alone.

    Raises:
        InputError: on entering, where the folder was begun with other settings, or cannot be read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "sums"
    >>> with Stages(folder, {"terms": 3}) as stages:
    ...     first = stages("first", lambda: {"sum": 1 + 2 + 3})
    ...     again = stages("first", lambda: {"sum": 0})
    >>> again, folder.exists()
    ({'sum': 6}, False)
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, kept: bool = True) -> None:
        self.folder, self.settings, self.kept = folder, dict(settings), kept
        #: What each finished stage found, and how long it took.
        self.done: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        #: Whether the command was begun before.
        self.resumed = False
        #: Of the last stage's file.
        self._number = 0
        self._lock = ExitStack()

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self.done) or any(path != self._file for path in self.folder.glob("*.pt"))

    def within(self, name: str) -> Path:
        """The file of the state of one stage."""
        return self.folder / f"{name}.pt"

    def __call__(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What `work` finds, or found before: tensors, numbers, strings, lists and dictionaries of these."""
        if name not in self.done:
            start = time.perf_counter()
            self.done[name] = dict(work())
            self.seconds[name] = time.perf_counter() - start
            self._write_stage(name)
        return self.done[name]

    def __enter__(self) -> Self:
        if not self.kept:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(locked(self.folder))
        try:
            return self._entered()
        except BaseException:
            self._lock.close()
            raise

    def _entered(self) -> Self:
        if self._file.exists():
            self._read()
        else:
            for left in self.folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.resumed = self.begun
        if not self.resumed:
            self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.kept:
            return
        self._lock.close()
        refused = kind is not None and issubclass(kind, InputError) and not self.resumed
        if kind is None or refused or not self.begun:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif issubclass(kind, KeyboardInterrupt):
            raise KeyboardInterrupt(f"the same command goes on from {self.folder}") from None

    @property
    def _file(self) -> Path:
        return self.folder / "stages.pt"

    def _write(self) -> None:
        if not self.kept:
            return
        content = {name: getattr(self, name) for name in ("settings", "done", "seconds")}
        save_checkpoint(self._file, content)

    def _write_stage(self, name: str) -> None:
        """Into a file of its own, so that what is written grows with the stages, not with their square."""
        content = {"name": name, "found": self.done[name], "seconds": self.seconds[name]}
        self._number += 1
        save_checkpoint(self.folder / f"{self._number:06}{_STAGE}", content)

    def _read(self) -> None:
        try:
            content = load_checkpoint(
                self._file, dict.fromkeys(("settings", "done", "seconds"), is_text_keyed)
            )
            # those of an older version, which kept all stages in one file
            self.done, self.seconds = content["done"], content["seconds"]
            self._read_stages()
        except InputError as error:
            raise InputError(f"{self.folder} cannot be read: remove it to begin anew") from error
        for name, given in self.settings.items() if self.begun else ():
            if (before := content["settings"].get(name)) != given:
                raise InputError(
                    f"{self.folder} holds an interrupted command with {name} {before}, got {given}: go on "
                    "with the same options, or remove that folder to begin anew"
                )

    def _read_stages(self) -> None:
        for path in sorted(self.folder.glob(f"*{_STAGE}")):
            stage = load_checkpoint(path, ("name", "found", "seconds"))
            self.done[stage["name"]], self.seconds[stage["name"]] = stage["found"], stage["seconds"]
            self._number = int(path.stem)
