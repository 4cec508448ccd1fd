"""Files that are whole or not there: written to a temporary name, flushed, renamed; bounded when read."""

import io
import json
import os
import zipfile
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pyro_vae.errors import InputError, one_line

#: What temporary names end with.
TEMPORARY = ".tmp"

#: Bytes of the largest text file that is read: a thousand times that of a run's own.
_LARGEST_TEXT = 2**22
#: Mappings, lists and values of a YAML or JSON file, aliases counted each time, and how deep they may lie.
_MOST_NODES, _DEEPEST = 100_000, 50


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary name of this process beside it, flushed, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the folder may be gone
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk does not say where
        raise


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays, numbers and strings as an .npz, written atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write(path, buffer.getvalue())


def read_text(path: Path) -> str:
    """The text of a file of options or results.

    Raises:
        InputError: where it is no file, as a device or a pipe, is larger than 4 MiB, or is no UTF-8.
    """
    if not path.is_file():
        raise InputError(f"expected a file, got {str(path)!r}, which is none")
    with path.open("rb") as file:
        content = file.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise InputError(f"expected a file of at most 4 MiB of text, got {str(path)!r}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 text in {str(path)!r}: {one_line(error)}") from error


def read_yaml(text: str) -> Any:
    """What a text of YAML holds: no objects but numbers, strings, dates, lists and mappings.

    Raises:
        InputError: where it is no YAML, says one thing twice, or is deeper or larger than any such file.
    """
    try:
        return _bounded(yaml.load(text, _Loader))  # of plain values only
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(one_line(error)) from error
    except RecursionError as error:
        raise InputError(f"expected values nested at most {_DEEPEST} deep, got more") from error


def read_json(text: str) -> Any:
    """What a text of JSON holds.

    Raises:
        InputError: where it is no JSON, or is deeper or larger than any file of results.
    """
    try:
        return _bounded(json.loads(text))
    except ValueError as error:
        raise InputError(one_line(error)) from error
    except RecursionError as error:
        raise InputError(f"expected values nested at most {_DEEPEST} deep, got more") from error


class _Loader(yaml.SafeLoader):
    """Plain values; a key that stands twice is refused, since one of them would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for n, key in enumerate(keys) if key in keys[:n]), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice!r} stands there twice")
        return super().construct_mapping(node, deep)


def _bounded(content: Any) -> Any:
    """`content`, refused where it is too large or too deep, aliases counted each time they stand there."""
    left, waiting = _MOST_NODES, [(content, 0)]
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise InputError(f"expected at most {_MOST_NODES} values, {_DEEPEST} deep, got more")
        if isinstance(node, dict):
            waiting += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, list):
            waiting += [(value, depth + 1) for value in node]
    return content


def read_archive(path: Path) -> bytes:
    """The bytes of an archive of ours, as .npz and .pt: every entry stored as it is, by its checksum.

    Raises:
        ValueError: where it is no such archive, or a bit is another than was written.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("an entry is compressed")  # to what may be any size
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(one_line(error)) from error
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    return content


def load_arrays(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz, loaded without executing any code in it.

    Raises:
        InputError: where it is truncated or no .npz, holds Python objects, or lacks one of `keys`.
    """
    try:
        content = read_archive(path)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
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
