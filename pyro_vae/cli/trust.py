"""Which classes a configuration may name: nothing is imported before it is known to be allowed.

A run may come from anywhere, and its config.yaml names classes that are imported and called. So a name in a
file is looked up in this package, torch, Pyro and zuko only; a module of the user's own needs consent, which
is given by naming it on the command line, by `--trust MODULE`, or by an earlier training by the user, with
this module and in this folder. A module inside a run's folder is never imported.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, _common
from pyro.infer import ELBO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.data import Dataset, Form
from pyro_vae.errors import InputError
from pyro_vae.networks import Architecture
from pyro_vae.storage.files import write
from pyro_vae.tracking import Tracker

#: What names in a file are looked up in.
KNOWN = ("pyro_vae", "torch.nn", "torch.optim", "pyro.infer", "pyro.nn", "zuko")

#: Parts of these that are no parts of a model.
_DENIED = ("pyro_vae.cli", "pyro_vae.storage")

#: What a configuration names: the classes of parts.
_BASES = (nn.Module, Optimizer, LRScheduler, Dataset, Form, Architecture, ELBO, Tracker)


@contextmanager
def only_trusted(trusted: Iterable[str] = (), folder: Path | None = None) -> Iterator[None]:
    """Let jsonargparse import from `KNOWN` and from `trusted` top-level modules only.

    Args:
        trusted: Modules that the user consents to.
        folder: Of a run, out of which nothing is imported.

    Raises:
        InputError: on entering, where a trusted module lies in the run's folder, or is one of Python's own.
    """
    trusted = sorted({name.split(".")[0] for name in trusted})
    for name in trusted:
        _check_module(name, folder)
    settings = _common.parsing_settings
    before = {name: settings[name] for name in ("import_path_verdicts", "import_paths_enforced")}
    allowed = dict.fromkeys([*KNOWN, *trusted], True)
    denied = dict.fromkeys(["*", *_DENIED, *_common.default_import_path_denylist], False)
    settings.update(import_path_verdicts={**allowed, **denied}, import_paths_enforced=True)
    try:
        with safe_path():
            yield
    finally:
        settings.update(before)


@contextmanager
def safe_path() -> Iterator[None]:
    """Let no Python that is started within import out of the current folder.

    One is started by the library that looks for stubs of signatures.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _check_module(name: str, folder: Path | None) -> None:
    """Refuse a module of Python's own, and one that lies in a run's folder."""
    if name in sys.stdlib_module_names:
        raise InputError(f"expected a module with classes of your own, got {name!r}, one of Python's own")
    if folder is None:
        return
    spec = PathFinder.find_spec(name)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    inside = folder.resolve()
    for place in places:
        if place is not None and Path(place).resolve().is_relative_to(inside):
            raise InputError(
                f"the module {name!r} lies inside the folder of the run, {folder}, from where nothing is "
                "imported: read it, and move it to a folder of yours"
            )


def check_classes(settings: Any, trusted: Iterable[str] = ()) -> None:
    """Refuse what is named in settings and is no class of a part, unless it is of a trusted module.

    Raises:
        InputError: of its name.
    """
    trusted, waiting = {*trusted}, [settings]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Namespace):
            node = vars(node)
        if isinstance(node, dict):
            if isinstance(name := node.get("class_path"), str):
                _check_class(name, _imported(name))
            waiting += node.values()
        elif isinstance(node, list | tuple):
            waiting += node
        elif callable(node) and str(node.__module__).split(".")[0] not in trusted:
            _check_class(f"{node.__module__}.{getattr(node, '__qualname__', node)}", node)


def _imported(path: str) -> object:
    """What the import path of a class stands for, once it has been imported."""
    module, rest = path, list[str]()
    while module not in sys.modules and "." in module:
        module, _, name = module.rpartition(".")
        rest.insert(0, name)
    found: object = sys.modules.get(module)
    for name in rest:
        found = getattr(found, name, None)
    return found


def _check_class(name: str, found: object) -> None:
    if not (isinstance(found, type) and issubclass(found, _BASES)):
        raise InputError(
            f"expected the name of a class of a part, as a prior, a network, an optimiser or a schedule, got "
            f"{name}"
        )


def named_in(content: Any) -> set[str]:
    """Top-level modules of all that may be the path of a class outside of `KNOWN` in a configuration."""
    found, waiting = set(), [content]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            parts = node.split(".")
            known = any(f"{node}.".startswith(f"{name}.") for name in KNOWN)
            is_path = (
                len(parts) > 1 and all(part.isidentifier() for part in parts) and not Path(node).exists()
            )
            if is_path and not known and parts[0] not in sys.stdlib_module_names:
                found.add(parts[0])
    return found


#: The modules given by --trust.
_consent: ContextVar[frozenset[str]] = ContextVar("consent", default=frozenset())


@contextmanager
def consent(modules: Iterable[str]) -> Iterator[None]:
    """Within, a run's config.yaml may name classes of these modules."""
    token = _consent.set(frozenset(modules))
    try:
        yield
    finally:
        _consent.reset(token)


def consented() -> set[str]:
    """The modules of --trust, and those that the user has trained with in this folder."""
    return {*_consent.get(), *_remembered()}


def _memory() -> Path:
    """Where it is kept which modules the user has trained with, by folder: not in any run."""
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pyro_vae" / "trusted.json"
    )


def _remembered() -> set[str]:
    """The modules that the user has trained with in this folder."""
    try:
        found = json.loads(_memory().read_text())[str(Path.cwd())]
        return {name for name in found if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return set()


def remember(names: Iterable[str]) -> None:
    """Keep that the user has trained with these modules in this folder, where that can be written."""
    new = {*names}
    if not new - _remembered():
        return
    with suppress(OSError, RuntimeError):
        try:
            content = json.loads(_memory().read_text())
        except (OSError, ValueError):
            content = {}
        content = content if isinstance(content, dict) else {}
        content[str(Path.cwd())] = sorted(_remembered() | new)
        write(_memory(), (json.dumps(content, indent=1) + "\n").encode())
