"""Checkpoints: what they hold, and to what they belong."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pyro_vae.errors import InputError
from pyro_vae.storage.files import write


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """A checkpoint of tensors, numbers and strings, written atomically."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write(path, buffer.getvalue())


def load_checkpoint(path: Path, keys: Iterable[str] = ("model",)) -> dict[str, Any]:
    """A checkpoint, loaded onto the CPU without executing any code in it.

    Raises:
        InputError: where it is missing, truncated, of another kind than `keys` say, or would need code
            to be executed.
    """
    if not path.is_file():
        raise InputError(f"expected a checkpoint at {path}, found none: train first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"the checkpoint {path} holds more than tensors and numbers, so loading it could execute code: "
            "refused; use a checkpoint written by pyro-vae"
        ) from error
    except PermissionError:
        raise
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} is truncated or corrupt: train anew or use another"
        ) from error
    missing = set(keys) - set(state) if isinstance(state, dict) else set(keys)
    if missing:
        raise InputError(f"expected a checkpoint at {path} with {', '.join(sorted(missing))}, got none of it")
    return dict(state)


def load_parameters(module: torch.nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load the parameters of a checkpoint into `module`.

    Raises:
        InputError: where they are those of another model, naming the first difference.
    """
    wanted, given = module.state_dict(), state.get("model", {})
    for name in (*wanted, *given):
        expected, got = (
            tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (wanted, given)
        )
        if expected != got:
            raise InputError(
                f"the checkpoint {path} was made for another model: {name} expects {expected}, got {got}"
            )
    module.load_state_dict(given)


def check_settings(made_with: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other settings or data than those of a checkpoint."""
    for name, value in given.items():
        if made_with.get(name) != value:
            raise InputError(
                f"the checkpoint {path} was made with {name} {made_with.get(name)}, got {value}: "
                "go on with the same settings and data"
            )
