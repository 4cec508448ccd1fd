"""Checkpoints: what they hold, and to what they belong."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pyro_vae.errors import InputError, one_line
from pyro_vae.storage.files import read_archive, write
from pyro_vae.storage.hashing import digest

#: The version of what a run's files hold; another one is refused.
FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """A checkpoint of tensors, numbers and strings, with what tells it from a damaged one."""
    save_tensors(path, {"format": FORMAT, **state, "digest": digest(state)})


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Tensors, numbers and strings in a file of `torch.save`, written atomically."""
    buffer = io.BytesIO()
    torch.save(tree_map_only(Tensor, _by_itself, dict(state)), buffer)
    write(path, buffer.getvalue())


def _by_itself(tensor: Tensor) -> Tensor:
    """A copy of a part of a larger tensor, which would be saved with it."""
    size = tensor.numel() * tensor.element_size()
    return tensor.detach().clone() if tensor.untyped_storage().nbytes() > size else tensor


#: Whether part of a checkpoint is what it is said to be.
Check = Callable[[Any], bool]


def _passes(check: Check, value: Any) -> bool:
    try:
        return check(value)
    except Exception:  # of a value that is of another kind
        return False


def load_checkpoint(
    path: Path,
    keys: Iterable[str] | Mapping[str, Check] = ("model",),
    fits: Check = lambda state: True,
) -> dict[str, Any]:
    """A checkpoint, loaded onto the CPU without executing any code in it.

    Args:
        path: The file.
        keys: What it must hold, or what each of that must be.
        fits: Whether all of that goes together.

    Raises:
        InputError: where it is missing, truncated, has a wrong checksum, is of another format or kind than
            `keys` say, or would need code to be executed.
    """
    state = load_tensors(path)
    missing = set(keys) - set(state) if isinstance(state, dict) else set(keys)
    if missing:
        raise InputError(f"expected a checkpoint at {path} with {', '.join(sorted(missing))}, got none of it")
    if state.get("format") != FORMAT:
        raise InputError(
            f"expected a checkpoint of format {FORMAT} at {path}, got "
            f"{state.get('format', 'an older one')!r}: train anew"
        )
    rest = {name: value for name, value in state.items() if name not in ("format", "digest")}
    if state.get("digest") != digest(rest):
        raise InputError(f"the checkpoint {path} was changed after it was written: train anew or use another")
    if isinstance(keys, Mapping):
        for name, check in keys.items():
            if not _passes(check, state[name]):
                raise InputError(f"the checkpoint {path} is damaged in its {name}: train anew or use another")
    if not _passes(fits, state):
        raise InputError(f"the checkpoint {path} is damaged, its parts do not fit: train anew or use another")
    return rest


def load_tensors(path: Path) -> Any:
    """What a file of `torch.save` holds, loaded onto the CPU without executing any code in it.

    Raises:
        InputError: where it is missing, truncated, has a wrong checksum, or would need code to be executed.
    """
    if not path.is_file():
        raise InputError(f"expected a checkpoint at {path}, found none: train first")
    try:
        return torch.load(io.BytesIO(read_archive(path)), map_location="cpu", weights_only=True)
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


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Say of what is wrong with part of a checkpoint that it is damaged."""
    try:
        yield
    except Exception as error:  # torch says many things of a state that is none
        raise InputError(
            f"the checkpoint {path} is damaged: {one_line(error)}; train anew or use another"
        ) from error


def is_number(value: object) -> bool:
    """A whole number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_text_keyed(value: object) -> bool:
    """A dictionary by names."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def are_tensors(value: object) -> bool:
    """A dictionary of tensors by their names."""
    return is_text_keyed(value) and all(isinstance(each, Tensor) for each in value.values())  # type: ignore[attr-defined]


def are_random_states(value: object) -> bool:
    """States of generators of random numbers, that of the CPU first."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(each, Tensor) and each.dtype == torch.uint8 and each.ndim == 1 for each in value)
        and value[0].shape == torch.get_rng_state().shape
    )


class HasModules(Protocol):
    """A module, or what stands for one."""

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """All modules in it, by their names."""

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """All that training changes."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All parameters and buffers."""

    def load_state_dict(self, state: Any) -> object:
        """Take what `state_dict` gave."""


def describe(module: HasModules) -> dict[str, dict[str, str]]:
    """What its parameters do not say of a module: the class of each part of it, by its name.

    Those of torch and of this package come with their choices, as the slope of an activation.

    >>> describe(nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.1)))["1"]
    {'class': 'LeakyReLU', 'inplace': 'False', 'negative_slope': '0.1'}
    """
    return {
        name: {"class": type(each).__qualname__, **_choices(each)} for name, each in module.named_modules()
    }


def _choices(module: nn.Module) -> dict[str, str]:
    if not type(module).__module__.startswith(("torch.nn.", "pyro_vae.")):
        return {}  # what others keep in attributes may change as they run
    words = {name: _plain(value) for name, value in sorted(vars(module).items()) if name[0] != "_"}
    return {name: each for name, each in words.items() if each and name != "training"}


def _plain(value: object) -> str:
    """A number, a word, a class or a function, or several, as text; empty for anything else."""
    if isinstance(value, tuple | list):
        parts = [_plain(each) for each in value]
        return f"({', '.join(parts)})" if all(parts) else ""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    return getattr(value, "__qualname__", "")


def load_parameters(module: HasModules, state: Mapping[str, Any], path: Path) -> None:
    """Load the parameters of a checkpoint into `module`.

    Raises:
        InputError: where they are those of another model, naming the first difference, or not finite.
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
    check_description(state.get("description", {}), describe(module), path)
    trained = dict(module.named_parameters())
    for name, value in given.items():
        kinds = wanted[name].dtype, value.dtype
        if (
            kinds[0].is_floating_point != kinds[1].is_floating_point
            or kinds[0].is_complex != kinds[1].is_complex
        ):
            raise InputError(
                f"the checkpoint {path} is damaged: {name} is of {kinds[1]}, expected {kinds[0]}"
            )
        if name in trained and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"the checkpoint {path} is damaged: {name} is not finite; train anew or use another"
            )
    module.load_state_dict(given)


def check_description(
    there: Mapping[str, Mapping[str, str]], here: Mapping[str, Mapping[str, str]], path: Path
) -> None:
    """Refuse the parameters of a model of other classes, or with other choices, than a checkpoint says.

    Choices that only one version of a class has are no difference.
    """
    for name in sorted({*there, *here}) if there else ():
        old, new = there.get(name, {"class": "nothing"}), here.get(name, {"class": "nothing"})
        for choice in sorted({*old} & {*new}, key=lambda choice: choice != "class"):
            if old[choice] != new[choice]:
                what = f"the {choice} of {name or 'the program'}"
                raise InputError(
                    f"the checkpoint {path} was made for another model: {what} is "
                    f"{str(old[choice])[:100]} there, got {str(new[choice])[:100]}"
                )


def check_settings(made_with: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other settings or data than those of a checkpoint."""
    for name, value in given.items():
        if made_with.get(name) != value:
            raise InputError(
                f"the checkpoint {path} was made with {name} {str(made_with.get(name))[:300]}, got "
                f"{str(value)[:300]}: "
                "go on with the same settings and data"
            )
