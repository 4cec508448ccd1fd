"""To what results belong: the options of a run, and its parameters."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pyro_vae.storage.checkpoints import FORMAT

#: Options that say where something is, how long to go on, and what is printed in the end: two results that
#: differ in these are of the same training.
_FREE = {"epochs", "steps", "patience", "particles", "num_data", "device", "track", "data.root", "data.path"}

#: Options that there have not always been, with the value that says what was meant before.
_LATER = {
    "condition": None,
    "weight": None,
    "data.form": None,
    "data.given": None,
    "likelihood.exposure": False,
}


def options_in(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What a training depends on, by option as on the command line: plain values.

    Args:
        configuration: The content of a config.yaml.

    >>> options_in({"seed": 0, "prior": {"class_path": "MixturePrior", "init_args": {"components": 20}}})
    {'seed': 0, 'prior': 'MixturePrior', 'prior.components': 20}
    """
    flat = dict(_flat(configuration))
    return {
        name: value
        for name, value in flat.items()
        if name not in _FREE
        and not name.startswith("track.")
        and not (name in _LATER and value == _LATER[name])
    }


def _flat(content: Mapping[str, Any], inside: str = "") -> list[tuple[str, Any]]:
    """Each value with the option that it is of; a class stands for the option that names it."""
    options: list[tuple[str, Any]] = []
    for key, value in content.items():
        name = inside if key in ("class_path", "init_args") else f"{inside}.{key}".removeprefix(".")
        options += _flat(value, name) if isinstance(value, Mapping) else [(name, value)]
    return options


def identity(options: Mapping[str, Any], parameters: str) -> dict[str, Any]:
    """What is kept in all results of a run.

    Args:
        options: As `options_in` gives them.
        parameters: A fingerprint of the parameters.
    """
    words = json.dumps(sorted(options.items()), default=str)
    return {
        "format": FORMAT,
        "configuration": hashlib.sha256(words.encode()).hexdigest()[:16],
        "parameters": parameters,
    }
