"""In which options runs differ, as typed on the command line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Options of the evaluation at the end of training: the table shows those of the evaluation compared.
_SHOWN = ("particles", "num_data")


#: Options in which runs of one model may differ.
_OF_RUNS = ("seed", "particles", "num_data", "device")


class ClassPath(str):
    """The import path of a class, among other values of options."""


def options_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of a configuration, by the names typed on the command line.

    >>> options_of({"prior": {"class_path": "pyro_vae.VampPrior", "init_args": {"components": 9}}, "seed": 0})
    {'prior': 'pyro_vae.VampPrior', 'prior.components': 9, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if not isinstance(value, Mapping):
            found[prefix + name] = value
        elif "class_path" in value:
            found[prefix + name] = ClassPath(value["class_path"])
            for key in ("init_args", "dict_kwargs"):
                found |= options_of(value.get(key) or {}, f"{prefix}{name}.")
        else:
            found |= options_of(value, f"{prefix}{name}.")
    return found


def differing(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each configuration, the options whose values are not the same in all.

    Classes go by their names, where these are unambiguous.

    >>> differing([{"seed": 0, "epochs": 9}, {"seed": 1, "epochs": 9, "patience": 3}])
    [{'seed': '0', 'patience': 'null'}, {'seed': '1', 'patience': '3'}]
    """
    found = [options_of(config) for config in configs]
    classes = {value for options in found for value in options.values() if isinstance(value, ClassPath)}
    typed = [{name: _typed(value, classes) for name, value in each.items()} for each in found]
    differ = [name for name in _names(typed) if len({each.get(name) for each in typed}) > 1]

    def chosen(options: dict[str, str]) -> dict[str, str]:
        # an option of a class that was not chosen does not exist; any other that is not there is null
        known = (name for name in differ if name in options or name.rpartition(".")[0] not in differ)
        return {name: options.get(name, "null") for name in known}

    return [chosen(each) for each in typed]


def model_in_words(config: Mapping[str, Any]) -> str:
    """What tells one model, and its training, from another: all options but seed and evaluation.

    >>> model_in_words({"seed": 1, "epochs": 9}) == model_in_words({"epochs": 9, "seed": 2})
    True
    """
    options = {name: value for name, value in config.items() if name not in _OF_RUNS}
    return json.dumps(options, sort_keys=True, default=str)


def _names(configs: Iterable[Mapping[str, str]]) -> list[str]:
    """The names of all options that the table does not show, those of a part beside each other."""
    names = dict.fromkeys(name for each in configs for name in each if name not in _SHOWN)
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return sorted(names, key=lambda name: parts.index(name.partition(".")[0]))


def _typed(value: Any, classes: Iterable[str]) -> str:
    """A value as on the command line."""
    if isinstance(value, ClassPath):
        name = value.rpartition(".")[2]
        return name if sum(other.rpartition(".")[2] == name for other in classes) == 1 else str(value)
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def options_in_words(options: Mapping[str, str]) -> str:
    """Options in one line.

    >>> options_in_words({"prior": "VampPrior", "prior.components": "500"})
    'prior VampPrior, prior.components 500'
    """
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "equal options"
