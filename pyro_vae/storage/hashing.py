"""What tells data, and models, from others of the same form."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.batch import Batch


def fingerprint(data: Tensor | Batch) -> str:
    """The first 16 hex digits of a SHA-256 of shapes, types and values, and of the names of what is given."""
    fields = sorted(data.given.items()) if isinstance(data, Batch) else []
    digest = hashlib.sha256()
    for name, value in (("", data.x if isinstance(data, Batch) else data), *fields):
        if not isinstance(value, Tensor):
            digest.update(f"{name} {value!r}".encode())
            continue
        digest.update(f"{name}{tuple(value.shape)} {value.dtype}".encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()[:16]


def _bytes_of(tensor: Tensor) -> memoryview:
    """The values of a tensor, in the order of its axes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def fingerprint_of(module: nn.Module) -> str:
    """The first 16 hex digits of a SHA-256 of all parameters and buffers, by their names."""
    state = sorted(module.state_dict().items())
    words = " ".join(name + fingerprint(each) for name, each in state)
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def digest(content: Any) -> str:
    """A SHA-256 of what a checkpoint holds: numbers, words, tensors, and lists and dictionaries of these."""
    found = hashlib.sha256()
    _add(found, content)
    return found.hexdigest()


def _add(found: "hashlib._Hash", content: Any) -> None:
    if isinstance(content, Tensor):
        found.update(f"{content.dtype}{tuple(content.shape)}".encode())
        found.update(_bytes_of(content))
    elif isinstance(content, Mapping):
        found.update(f"{{{len(content)}".encode())
        for key, value in content.items():
            _add(found, key)
            _add(found, value)
    elif isinstance(content, list | tuple):
        found.update(f"{type(content).__name__}{len(content)}".encode())
        for value in content:
            _add(found, value)
    else:
        found.update(f"{type(content).__name__} {content!r};".encode())
