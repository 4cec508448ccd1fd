"""What a run's config.yaml says, as text and option by option."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae.cli.parser import reader
from pyro_vae.errors import InputError, shortened
from pyro_vae.storage.files import read_yaml
from pyro_vae.storage.identity import options_in


def text_of(settings: Namespace) -> str:
    """The settings as YAML, without those that say where to write."""
    kept = settings.clone()
    where = kept.data.get("init_args", Namespace())
    for name in ("root", "path"):  # so that the run can be used from any folder
        if where.get(name) is not None:
            where[name] = where[name].expanduser().absolute()
    for name in ("config", "out", "overwrite", "resume", "seeds"):
        kept.pop(name, None)
    text: str = reader().dump(kept, skip_validation=True)
    return text


def options_of(text: str) -> dict[str, Any]:
    """What a training depends on, by option as on the command line, as `prior.components`: plain values.

    Args:
        text: That of `text_of`.
    """
    return options_in(read_yaml(text))


def check_options(there: Any, here: Mapping[str, Any], path: Path, config: Path) -> None:
    """Refuse a checkpoint that was made with other options than a run's config.yaml says.

    Args:
        there: What `options_of` gave when the checkpoint was written.
        here: What it gives now.
        path: The checkpoint.
        config: The file of the options.

    Raises:
        InputError: where there is none in the checkpoint, or one differs.
    """
    if not isinstance(there, Mapping):
        raise InputError(f"expected a checkpoint of a run in {path}, got one of a training in Python")
    for name in sorted({*there, *here}):
        new = here.get(name)
        old = there.get(name, False if new is False else None)  # an option that there was not yet was off
        if old != new:
            raise InputError(
                f"{path} was made with --{name} {shortened(old)}, and {config} says "
                f"{shortened(new)}: put it back, or train anew"
            )
