"""Names by other habits: American spellings, and a learning rate without its optimiser."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Options of the command line by other habits; each stands for its own options, too, as optimizer.lr.
OPTIONS = {
    "lr": "optimiser.lr",
    "learning_rate": "optimiser.lr",
    "optimiser.learning_rate": "optimiser.lr",
    "optimizer.learning_rate": "optimiser.lr",
    "optimizer": "optimiser",
    "num_labeled": "num_labelled",
}

#: Classes of the form of the data.
FORMS = {"Standardized": "Standardised", "Dequantized": "Dequantised"}

_RATE = "give it to an optimiser, as optimiser=functools.partial(torch.optim.Adam, lr=1e-3)"

#: Arguments in Python, and what to give instead.
ARGUMENTS = {
    "optimizer": "it is spelt optimiser",
    "lr": _RATE,
    "learning_rate": _RATE,
    "given": "give data=Batch(x, {'y': y}), by the names of the programs' arguments",
}


def as_ours(word: str) -> str:
    """A word of the command line, its option by our name.

    >>> as_ours("--optimizer.lr=0.1"), as_ours("--lr"), as_ours("--epochs")
    ('--optimiser.lr=0.1', '--optimiser.lr', '--epochs')
    """
    option, joined, value = word.partition("=")
    if not option.startswith("--"):
        return word
    return f"--{option_as_ours(option.removeprefix('--'))}{joined}{value}"


def option_as_ours(name: str) -> str:
    """An option by our name.

    >>> option_as_ours("optimizer.betas")
    'optimiser.betas'
    """
    if name in OPTIONS:
        return OPTIONS[name]
    whole, dot, own = name.partition(".")
    return f"{OPTIONS.get(whole, whole)}{dot}{own}" if whole == "optimizer" else name


def hinted(function: Callable[P, T], hints: Mapping[str, str] = ARGUMENTS) -> Callable[P, T]:
    """A function that says what an argument is called here, where it is given one by another habit.

    >>> hinted(lambda optimiser: 1)(optimizer=2)
    Traceback (most recent call last):
        ...
    TypeError: <lambda>() got an unexpected keyword argument 'optimizer': it is spelt optimiser
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs.keys() & hints.keys():
            raise TypeError(
                f"{function.__name__}() got an unexpected keyword argument {name!r}: {hints[name]}"
            )
        return function(*args, **kwargs)

    return called
