"""study.yaml: what is tried, how, and how often."""

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from pyro_vae.errors import InputError, count, is_seed, one_line, seed_number, shortened
from pyro_vae.storage.files import read_text, read_yaml
from pyro_vae.sweeps.grid import Grid
from pyro_vae.sweeps.space import Space, space_of

SelectBy = Literal["elbo", "log_evidence"]

#: Options of the command, of a worker, or of the study itself, that are none of a trial.
_NOT_OF_A_TRIAL = {
    "out": "each trial has a folder in that of the study",
    "overwrite": "a study never writes over a run",
    "resume": "the same command again goes on",
    "print_config": "use --dry_run true",
    "seed": "seeds says which are trained",
    "seeds": "write seeds beside train and search, as seeds: 2 for 0 and 1, or seeds: [3, 5]",
    "config": "it is an option of train only",
}

_SAMPLERS = {"grid": Grid, "random": RandomSampler, "tpe": TPESampler}
_PRUNERS = {"none": NopPruner, "median": MedianPruner, "halving": SuccessiveHalvingPruner}


@dataclass(frozen=True, eq=False)
class Named:
    """A sampler or a pruner, with options of Optuna's."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class StudyFile:
    """What study.yaml says."""

    name: str
    space: Space
    sampler: Named
    pruner: Named
    #: In all, whoever trains them.
    trials: int
    #: Of each trial.
    seeds: tuple[int, ...]
    #: Of the sampler.
    seed: int
    #: What is averaged over the seeds, of the validation data: the value of a trial.
    select_by: SelectBy
    #: How many of the best are measured on test data.
    top: int
    #: Of torch, in each worker.
    threads: int
    #: Of a database; None for a file of SQLite in the study's folder.
    storage: str | None
    #: What may not change once there are trials, as plain values by name.
    definition: Mapping[str, Any]

    def make_sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial, with random numbers of its own.

        So no two workers draw the same, and a trial's draw depends on its number, the seed and the trials
        that have ended, not on which worker makes it.
        """
        if self.sampler.name == "grid":
            return Grid(self.space.points())
        kind = cast("type[TPESampler]", _SAMPLERS[self.sampler.name])
        return kind(seed=(self.seed * 1_000_003 + number) % 2**32, **self.sampler.options)

    def make_pruner(self) -> BasePruner:
        """The pruner."""
        kind: Any = _PRUNERS[self.pruner.name]
        return cast(BasePruner, kind(**self.pruner.options))


def read_study(path: Path) -> StudyFile:
    """The study that a file describes; its options are not yet checked as options of `pyro-vae train`.

    Raises:
        InputError: where it is no such file, naming what is wrong in one line.
    """
    try:
        content = read_yaml(read_text(path))
        if not isinstance(content, dict):
            raise InputError(f"expected study, sampler, trials, train and search, got {shortened(content)}")
        return _study(content)
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {one_line(error)}") from error


#: What may stand in the file, with what it is where it does not.
_DEFAULTS: dict[str, Any] = {
    "study": None,
    "sampler": "tpe",
    "trials": None,
    "seeds": [0],
    "seed": 0,
    "pruner": "none",
    "select_by": "elbo",
    "top": 3,
    "threads": 1,
    "storage": None,
    "train": {},
    "search": None,
}

#: What may change between two starts of a study.
_FREE = ("study", "trials", "top", "threads", "storage")


def _study(content: Mapping[Any, Any]) -> StudyFile:
    for key in content:
        _check_known(key, [*_DEFAULTS])
    said = {**_DEFAULTS, **content}
    space = space_of(_options("train", said["train"] or {}), _options("search", said["search"]))
    sampler, pruner = (
        _named("sampler", said["sampler"], _SAMPLERS),
        _named("pruner", said["pruner"], _PRUNERS),
    )
    if said["select_by"] not in get_args(SelectBy):
        raise InputError(f"select_by expects elbo or log_evidence, got {shortened(said['select_by'])}")
    seeds = _seeds(said["seeds"])
    definition = {name: said[name] for name in _DEFAULTS if name not in _FREE} | {"seeds": [*seeds]}
    return StudyFile(
        name=_name(said["study"]),
        space=space,
        sampler=sampler,
        pruner=pruner,
        trials=_trials(said["trials"], sampler, space),
        seeds=seeds,
        seed=seed_number(said["seed"]),
        select_by=said["select_by"],
        top=count("top", said["top"]),
        threads=count("threads", said["threads"]),
        storage=_storage(said["storage"]),
        definition={**definition, **_of_file(said["train"] or {})},
    )


def _check_known(key: Any, known: list[str]) -> None:
    if key not in known:
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"
        raise InputError(f"there is no {shortened(key)} in a study ({hint}); options of train stand in train")


def _options(part: str, said: Any) -> dict[str, Any]:
    """A mapping of options of `pyro-vae train`."""
    if not isinstance(said, dict) or (part == "search" and not said):
        raise InputError(f"{part} expects options of pyro-vae train, got {shortened(said)}")
    for name, value in said.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise InputError(f"{part} expects names of options as optimiser.lr, got {shortened(name)}")
        if name in _NOT_OF_A_TRIAL and (part, name) != ("train", "config"):
            raise InputError(f"{part}.{name} is not for a study: {_NOT_OF_A_TRIAL[name]}")
        if part == "train" and isinstance(value, dict):
            first = next(iter(value), "OPTION")
            raise InputError(f"train.{name} expects a value, got a mapping: write {name}.{first}: … instead")
    return {name: value for name, value in said.items()}


def _named(role: str, said: Any, known: Mapping[str, type]) -> Named:
    """A name, or {name: {options}}."""
    said = "none" if said is None and role == "pruner" else said
    name: Any = said
    options: Any = {}
    if isinstance(said, dict) and len(said) == 1:
        ((name, options),) = said.items()
        options = options or {}
    if not isinstance(name, str) or name not in known or not isinstance(options, dict):
        raise InputError(
            f"{role} expects {', '.join(known)}, or one as {{NAME: {{OPTION: VALUE}}}}, got {said}"
        )
    parameters = [*inspect.signature(known[name]).parameters]
    for option in options:
        if option not in parameters or option == "seed" or name == "grid":
            raise InputError(f"{role} {name} has no option {option}: see Optuna's {known[name].__name__}")
    try:
        if name != "grid":
            known[name](**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{role} {name}: {one_line(error)}") from error
    return Named(name, options)


def _name(said: Any) -> str:
    """The name of a study, which its folder has, too."""
    if said is None:
        raise InputError("expected the name of the study, as study: priors, got none")
    if not isinstance(said, str) or not re.fullmatch(r"\w[\w.-]{0,99}", said):
        raise InputError(f"study expects a name of letters, digits, . - and _, got {shortened(said)}")
    return said


def _trials(said: Any, sampler: Named, space: Space) -> int:
    if sampler.name != "grid":
        if said is None:
            raise InputError(f"expected how many trials, as trials: 20, got none for sampler {sampler.name}")
        return count("trials", said)
    number = len(space.points())
    if said not in (None, number):
        raise InputError(f"this grid has {number} trials, got trials: {said}: leave trials out")
    return number


def _seeds(said: Any) -> tuple[int, ...]:
    """A list of them, or how many from 0, as `pyro-vae train --seeds` takes them."""
    if isinstance(said, int) and not isinstance(said, bool):
        return tuple(range(count("seeds", said)))
    seeds = said if isinstance(said, list) else [said]
    if not seeds or not all(map(is_seed, seeds)) or len({*seeds}) < len(seeds):
        raise InputError(
            f"seeds expects how many, or different whole numbers as [0, 1], got {shortened(said)}"
        )
    return tuple(seeds)


def _storage(said: Any) -> str | None:
    if said is not None and not isinstance(said, str):
        raise InputError(f"storage expects the URL of a database, got {shortened(said)}")
    return said


def _of_file(train: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of options that train names says, so that a change of it is seen."""
    if "config" not in train:
        return {}
    content = read_yaml(read_text(Path(str(train["config"])).expanduser()))
    if isinstance(content, dict) and content.get("seeds") is not None:
        raise InputError(f"{train['config']}: seeds is not for a study there: {_NOT_OF_A_TRIAL['seeds']}")
    return {"train.config": content}
