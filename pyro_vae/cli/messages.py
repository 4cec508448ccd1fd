"""What the parser says, in a user's words, with the close matches of a misspelt name."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from pydoc import locate as import_object

from pyro_vae.objectives import UNUSABLE

#: What the parser says, and the same in a user's words.
WORDS = (
    (r"<class '([\w.]+)'>", r"\1"),
    (r"typing\.Literal\[([^]]*)\]", r"one of \1"),
    (r"NoneType", r"null"),
    (r", collections\.abc\.Callable\[\[int\], float\]", r" or a function as my_module.weight"),
    (r", tuple\[int, \.\.\.\]", r" or a list as [1,2]"),
    (r"Does not validate .*? Subtypes: \[(.*?)\] Errors:.* Given value: (.*)", r"expected \1, got \2"),
    (
        r"expected \S*Callable.*, got Namespace\(class_path='[\w.]*?(\w+)'.*",
        r"\1 lacks an option (see .help)",
    ),
    (r"Expected an? tuple(?:\[.*?\])?\. Got value: (.*)", r"expected a list as [1,2], got \1"),
    (r"Expected an? (.*?)\. Got value: (.*)", r"expected \1, got \2"),
    (
        r"- Expected a path but (\S+) either not accessible or invalid",
        r"Expected a dot import path string: \1",
    ),
    (r"(Expected a dot import path string: \S+) - \1", r"\1"),
    (r"Expected a dot import path string: (\S+)", r"expected a class or its import path, got \1"),
    (r"Problem with given class_path '[\w.]*?(\w+)':", r"\1:"),
    (r"[Oo]ption '(\w+)' is not accepted", r"there is no option \1"),
    (
        r"(?:\w+: )?Importing '((\w+)[\w.]*)' is not allowed, denied by the '\*' entry.*",
        r"\1 is no class of pyro_vae, torch.nn, torch.optim, Pyro or zuko, and nothing else that a file "
        r"names is imported without consent: read it, and allow it by --trust \2",
    ),
    (
        r"(?:\w+: )?Importing '([\w.]+)' is not allowed, denied by.*",
        r"\1 is not part of a model, so it is not imported",
    ),
    (r"[Pp]arser key \"([\w.]+)\":", r"--\1:"),
    (r"(?!compare)\b\w+\.run\b", r"RUN, the folder of a run"),
    (r"compare\.runs", r"RUN RUN, the folders of runs"),
)


def readable(line: str) -> str:
    """The parser's message in a user's words.

    >>> readable('Parser key "epochs": Expected a int. Got value: x')
    '--epochs: expected int, got x'
    """
    for pattern, words in WORDS:
        line = re.sub(pattern, words, line)
    return line


def hint(line: str, options: Iterable[str], bases: Mapping[str, type]) -> str:
    """The close matches of a misspelt command, option, class or option of a class, where there are any.

    Args:
        line: What the parser says, in one line.
        options: That there are.
        bases: The base class of each exchangeable part.
    """
    return (
        _close_commands(line)
        or _close_options(line, options)
        or _close_classes(line, bases)
        or _close_parameters(line)
    )


def _close_commands(line: str) -> str:
    """A hint for an unknown command."""
    found = re.search(r"COMMAND: invalid choice: '(\w+)' \(choose from (.*)\)", line)
    return _did_you_mean(found[1], re.findall(r"\w+", found[2])) if found else ""


def _close_options(line: str, options: Iterable[str]) -> str:
    """A hint for unknown options."""
    found = re.search(r"[Uu]nrecognized arguments: (--[\w.]+)", line)
    known = [option for option in options if not option.endswith((".help", "_config"))]
    return _did_you_mean(found[1], known) if found else ""


def _close_classes(line: str, bases: Mapping[str, type]) -> str:
    """A hint for an unknown class of an exchangeable part."""
    found = re.search(r'"(\w+)":(?: - Expected a path but| Expected a dot import path string:) (\S+)', line)
    if not found or found[1] not in bases:
        return ""
    names = [each.__name__ for each in subclasses(bases[found[1]])]
    return _did_you_mean(found[2], names) or f": choose among {', '.join(names)}, or give an import path"


def _close_parameters(line: str) -> str:
    """A hint for an unknown option of a class."""
    found = re.search(r"class_path '([\w.]+)': Option '(\w+)' is not accepted", line)
    if not found:
        return ""
    known = list(inspect.signature(import_object(found[1])).parameters)  # type: ignore[arg-type]
    if found[2] in known:
        return ", since it is filled in"
    return _did_you_mean(found[2], known) or "; name the class that has it, as --prior CLASS"


def subclasses(base: type) -> list[type]:
    """All that can be chosen: the concrete classes that derive from `base`."""
    below: list[type] = []
    child: type
    for child in base.__subclasses__():
        below += [child, *subclasses(child)]
    return [each for each in below if not (inspect.isabstract(each) or issubclass(each, UNUSABLE))]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
