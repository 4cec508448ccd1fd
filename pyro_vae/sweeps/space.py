"""Which options are tried: their values, and for which classes."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optuna.trial import Trial

from pyro_vae.errors import InputError, shortened

#: More trials than any grid has.
_MOST_POINTS = 100_000

#: What a range is called, and whether its values are whole, and on a log scale.
_RANGES = {"int": (True, False), "log_int": (True, True), "float": (False, False), "log": (False, True)}

Check = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, eq=False)
class Choices:
    """Values of a list."""

    values: tuple[Any, ...]

    def ask(self, trial: Trial, name: str) -> Any:
        """The value of a trial."""
        return self.decoded(trial.suggest_categorical(name, [_word(value) for value in self.values]))

    def probes(self) -> tuple[Any, ...]:
        """Values that are checked before the first trial: all."""
        return self.values

    def all(self, option: str) -> tuple[Any, ...]:
        """Every value."""
        return self.values

    def encoded(self, value: Any) -> Any:
        """What Optuna keeps of a value."""
        return _word(value)

    def decoded(self, kept: Any) -> Any:
        """The value of what Optuna keeps."""
        return next(value for value in self.values if _word(value) == kept)


@dataclass(frozen=True, eq=False)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool
    log: bool
    step: float | None

    def ask(self, trial: Trial, name: str) -> float:
        """The value of a trial."""
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def probes(self) -> tuple[float, float]:
        """Values that are checked before the first trial: the two ends."""
        return self.low, self.high

    def all(self, option: str) -> tuple[float, ...]:
        """Every value; refused where there is no end of them."""
        if self.log or not (self.whole or self.step):
            raise InputError(
                f"a grid needs values that can be counted, got a range for {option}: list them, as "
                f"{option}: [{self.low:g}, {self.high:g}], or use sampler: random"
            )
        step = self.step or 1
        number = int((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + step * index for index in islice(range(number), _MOST_POINTS + 1))

    def encoded(self, value: Any) -> Any:
        """What Optuna keeps of a value."""
        return value

    def decoded(self, kept: Any) -> Any:
        """The value of what Optuna keeps."""
        return kept


@dataclass(frozen=True, eq=False)
class Dimension:
    """One option that is tried, where a class has it."""

    option: str
    #: Of the parameter of Optuna's study.
    name: str
    values: Choices | Range
    #: Classes of the part that it is an option of, by their last names; None where it is one of all.
    classes: frozenset[str] | None

    @property
    def part(self) -> str:
        """The option whose class this is an option of; empty where it is none of a class."""
        return self.option.rpartition(".")[0]

    def is_of(self, options: Mapping[str, Any]) -> bool:
        """Whether the class that is chosen among `options` has it."""
        return self.classes is None or last_name(options.get(self.part)) in self.classes


@dataclass(frozen=True, eq=False)
class Space:
    """All that is tried, beside the options that are the same in each trial."""

    fixed: Mapping[str, Any]
    #: A class before its options.
    dimensions: tuple[Dimension, ...]

    def ask(self, trial: Trial) -> dict[str, Any]:
        """The options of a trial, those that are the same in all included."""
        return self._filled(lambda each: each.values.ask(trial, each.name))

    def first(self) -> dict[str, Any]:
        """The options with the first value of each."""
        return self._filled(lambda each: each.values.probes()[0])

    def _filled(
        self, value: Callable[[Dimension], Any], chosen: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """`chosen` with a value of every other dimension that there is beside it."""
        options = {**self.fixed, **(chosen or {})}
        for each in self.dimensions:
            if each.option not in (chosen or ()) and each.is_of(options):
                options[each.option] = value(each)
        return options

    def points(self) -> list[dict[str, Any]]:
        """Every trial of a grid, by the names of Optuna's parameters.

        Raises:
            InputError: where there is no end of them.
        """
        found: list[tuple[dict[str, Any], dict[str, Any]]] = [({**self.fixed}, {})]
        for each in self.dimensions:
            values = len(each.values.all(each.option))
            if sum(values if each.is_of(options) else 1 for options, _ in found) > _MOST_POINTS:
                raise InputError(
                    f"expected a grid of at most {_MOST_POINTS:,} trials, got more: leave out values, or use "
                    "sampler: random"
                )
            found = [pair for options, point in found for pair in _continued(each, options, point)]
        return [point for _, point in found]

    def check(self, check: Check) -> None:
        """Let every value of a list, and both ends of a range, be checked, with each class that has it."""
        for probe in self._probes():
            check(self._filled(lambda each: each.values.probes()[0], probe))

    def _probes(self) -> Iterator[dict[str, Any]]:
        yield {}
        parts = {each.option: each for each in self.dimensions}
        for each in self.dimensions:
            above = parts.get(each.part)
            classes = above.values.probes() if above else (None,)
            for chosen in classes:
                of_part = {each.part: chosen} if above else {}
                if each.is_of({**self.fixed, **of_part}):
                    yield from ({**of_part, each.option: value} for value in each.values.probes())


def _continued(
    dimension: Dimension, options: dict[str, Any], point: dict[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Options, and the point of a grid that they are, with every value of one more dimension."""
    values = dimension.values.all(dimension.option)
    if not dimension.is_of(options):
        return [(options, point)]
    return [
        ({**options, dimension.option: value}, {**point, dimension.name: dimension.values.encoded(value)})
        for value in values
    ]


def space_of(fixed: Mapping[str, Any], search: Mapping[str, Any]) -> Space:
    """The space that the two parts of study.yaml say.

    Args:
        fixed: Options that are the same in each trial.
        search: By option a list of values, a range as {int: [1, 9]}, or one for a class, as
            {for: VampPrior, int: [1, 9]}, or several of these for different classes.

    Raises:
        InputError: where one is none of these, or the other part says something else.

    >>> components = {"for": "B", "int": [1, 3]}
    >>> space = space_of({"epochs": 5}, {"prior": ["A", "B"], "prior.components": components})
    >>> space.first(), len(space.points())
    ({'epochs': 5, 'prior': 'A'}, 4)
    """
    for option in search:
        if option in fixed:
            raise InputError(f"{option} stands in train and in search: leave it out of one")
    dimensions = [each for option, said in search.items() for each in _dimensions(option, said)]
    roots = [each.option.partition(".")[0] for each in dimensions]
    dimensions.sort(key=lambda each: (roots.index(each.option.partition(".")[0]), each.option.count(".")))
    for each in dimensions:
        _check_classes(each, fixed, search)
    return Space(fixed, tuple(dimensions))


def _dimensions(option: str, said: Any) -> list[Dimension]:
    """One option's values, for all classes or for some."""
    if isinstance(said, list) and said and all(isinstance(each, dict) for each in said):
        found = [_dimension(option, each, several=True) for each in said]
        named = [name for each in found for name in each.classes or ()]
        if len(found) > 1 and (len({*named}) < len(named) or any(each.classes is None for each in found)):
            raise InputError(f"search.{option}: expected each with classes of its own, as {{for: CLASS, …}}")
        return found
    return [_dimension(option, said, several=False)]


def _dimension(option: str, said: Any, *, several: bool) -> Dimension:
    classes = None
    if isinstance(said, dict) and "for" in said:
        said = dict(said)
        named = said.pop("for")
        names = named if isinstance(named, list) else [named]
        if not names or not all(isinstance(each, str) for each in names):
            raise InputError(f"search.{option}: for expects a class or several, got {shortened(named)}")
        classes = frozenset(map(last_name, names))
        said = said["in"] if [*said] == ["in"] else said
    name = f"{option} of {' or '.join(sorted(classes))}" if several and classes else option
    return Dimension(option, name, _values(option, said), classes)


def _values(option: str, said: Any) -> Choices | Range:
    if isinstance(said, list):
        return _choices(option, said)
    if isinstance(said, dict):
        return _range(option, said)
    raise InputError(
        f"search.{option}: expected a list of values or a range as {{int: [1, 9]}}, got {shortened(said)}; "
        "an option with one value belongs in train"
    )


def _choices(option: str, said: list[Any]) -> Choices:
    values = tuple(_number(value) for value in said)
    words = [_word(value) for value in values]
    if not values:
        raise InputError(f"search.{option}: expected a list of values, got an empty one")
    for value, word in zip(values, words, strict=True):
        if words.count(word) > 1:
            raise InputError(f"search.{option}: {shortened(value)} stands there twice")
    return Choices(values)


def _range(option: str, said: Mapping[str, Any]) -> Range:
    kinds = [key for key in said if key in _RANGES]
    others = [key for key in said if key not in (*_RANGES, "step")]
    if len(kinds) != 1 or others:
        raise InputError(
            f"search.{option}: expected one of {', '.join(_RANGES)}, with for and step where needed, got "
            f"{', '.join(map(str, said)) or 'none'}"
        )
    (kind,) = kinds
    whole, log = _RANGES[kind]
    ends, step = said[kind], _number(said.get("step"))
    values = [_number(each) for each in ends] if isinstance(ends, list) else []
    wanted = "two whole numbers" if whole else "two numbers"
    if len(values) != 2 or not all(_is_number(value, whole=whole) for value in values):
        raise InputError(f"search.{option}: {kind} expects {wanted} as [1, 9], got {shortened(ends)}")
    low, high = values
    if low >= high:
        raise InputError(f"search.{option}: expected the lower end first, got {shortened(ends)}")
    if log and low <= 0:
        raise InputError(f"search.{option}: a log scale expects numbers above 0, got {shortened(ends)}")
    if step is not None and (log or not _is_number(step, whole=whole) or not 0 < step <= high - low):
        raise InputError(
            f"search.{option}: step expects a number from 0 to {high - low:g}, on no log scale, got {step}"
        )
    if step is not None:
        high = low + step * int((high - low) / step + 1e-9)
    return Range(low, high, whole, log, step)


def _check_classes(each: Dimension, fixed: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    """Refuse an option of a class that no trial has."""
    if each.classes is None:
        return
    above = search.get(each.part, [fixed[each.part]] if each.part in fixed else [])
    known = {last_name(value) for value in above} if isinstance(above, list) else set()
    for name in sorted(each.classes - known):
        raise InputError(
            f"search.{each.option} is for {name}, and {each.part or 'no part'} is "
            f"{' or '.join(sorted(known)) or 'not named'}: name {name} in search or train, or leave it out"
        )


def last_name(path: Any) -> str:
    """The name of a class without its module."""
    return str(path).rpartition(".")[2]


def _is_number(value: Any, *, whole: bool) -> bool:
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < float("inf")


def _number(value: Any) -> Any:
    """A number such as 1e-3, which YAML reads as a word; any other value as it is."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def _word(value: Any) -> Any:
    """A value as Optuna keeps it: lists as text."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value, default=str)


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options as they are typed after `pyro-vae train`.

    >>> words_of({"prior": "VampPrior", "network.hidden_dims": [8], "sees_mask": True})
    ['--prior=VampPrior', '--network.hidden_dims=[8]', '--sees_mask=true']
    """
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for name, value in options.items()
    ]
