"""The database that the workers of a study share."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from pyro_vae.errors import InputError, one_line, shortened

T = TypeVar("T")

#: A database that is busy, or away for a moment.
PASSING = (DBAPIError, StorageInternalError)


@contextmanager
def opened(url: str | None, folder: Path) -> Iterator[RDBStorage]:
    """`open_storage`, and its connections closed in the end."""
    storage = open_storage(url, folder)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def open_storage(url: str | None, folder: Path) -> RDBStorage:
    """The database of a URL, or a file of SQLite in a folder.

    Raises:
        InputError: where there is no such database, or its driver is not installed.
    """
    said = make_url_of(url) if url else None
    sqlite = said is None or said.get_backend_name() == "sqlite"
    shown = said.render_as_string(hide_password=True) if said else str(folder / "study.db")
    options: dict[str, Any] = {"connect_args": {"timeout": 100}} if sqlite else {"pool_pre_ping": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            url = url or f"sqlite:///{(folder / 'study.db').absolute()}"
            patiently(partial(_reach, url, options), seconds=2)
            return patiently(partial(RDBStorage, url, options))  # others may be making the same tables
    except ImportError as error:
        raise InputError(
            f"the driver of {shown} is not installed ({one_line(error.__cause__ or error)}): install it; "
            'that of postgresql+psycopg:// comes with pip install -e ".[sweep]"'
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        cause = one_line(getattr(error, "orig", None) or error)
        raise InputError(f"cannot use the database {shown} ({shortened(cause)}): see storage") from error


def _reach(url: str, options: Mapping[str, Any]) -> None:
    """Connect to a database, and leave it."""
    engine = create_engine(url, **options)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def make_url_of(url: str) -> Any:
    """A URL of a database, refused where it is none; nothing of it is said, for it may hold a password."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError(
            "storage expects the URL of a database as postgresql+psycopg://USER@HOST/DATABASE, got none"
        ) from error


def patiently(call: Callable[[], T], *, seconds: float = 120) -> T:
    """What `call` gives, tried again while the database is away or busy."""
    wait, end = 0.1, time.monotonic() + seconds
    while True:
        try:
            return call()
        except PASSING:
            if time.monotonic() + wait > end:
                raise
            time.sleep(wait)
            wait = min(2 * wait, 10)
