"""What tells data, and models, from others of the same form."""

import hashlib

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
        values = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def fingerprint_of(module: nn.Module) -> str:
    """The first 16 hex digits of a SHA-256 of all parameters and buffers, by their names."""
    state = sorted(module.state_dict().items())
    words = " ".join(name + fingerprint(each) for name, each in state)
    return hashlib.sha256(words.encode()).hexdigest()[:16]
