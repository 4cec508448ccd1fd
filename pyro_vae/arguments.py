"""A jsonargparse parser whose errors are one line, with the close matches of a misspelt name."""

import difflib
import inspect
import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable
from pydoc import locate as import_object
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that leaves the line breaks of descriptions and examples alone."""


class Parser(ArgumentParser):
    """`jsonargparse.ArgumentParser` with one-line errors; options are not abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": HelpFormatter, **kwargs})
        self.bases: dict[str, type] = {}

    def add_subclass_arguments(self, baseclass: Any, nested_key: str, *args: Any, **kwargs: Any) -> None:
        """As in jsonargparse; the base class is remembered for the close matches."""
        self.bases[nested_key] = baseclass
        super().add_subclass_arguments(baseclass, nested_key, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong in one line and exit with status 2."""
        if not self.exit_on_error:  # a parser inside the parser: the outer one reports
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        line = " ".join(message.split())
        hint = close_options(parser, line) or close_classes(parser, line) or close_parameters(line)
        sys.stderr.write(f"pyro-vae: error: {readable(line)}{hint}\n")
        sys.exit(2)


#: What the parser says, and the same in a user's words.
WORDS = (
    (r"<class '([\w.]+)'>", r"\1"),
    (r"typing\.Literal\[([^]]*)\]", r"one of \1"),
    (r"NoneType", r"null"),
    (r"Does not validate .*? Subtypes: \[(.*?)\] Errors:.* Given value: (.*)", r"expected \1, got \2"),
    (r"Expected an? (.*?)\. Got value: (.*)", r"expected \1, got \2"),
    (
        r"- Expected a path but (\S+) either not accessible or invalid",
        r"Expected a dot import path string: \1",
    ),
    (r"(Expected a dot import path string: \S+) - \1", r"\1"),
    (r"Expected a dot import path string: (\S+)", r"expected a class or its import path, got \1"),
    (r"Problem with given class_path '[\w.]*?(\w+)':", r"\1:"),
    (r"[Oo]ption '(\w+)' is not accepted", r"there is no option \1"),
    (r"[Pp]arser key \"([\w.]+)\":", r"--\1:"),
    (r"(evaluate|sample|reconstruct|traverse)\.run", r"RUN, the folder of a run"),
)


def readable(line: str) -> str:
    """The parser's message in a user's words.

    >>> readable('Parser key "epochs": Expected a int. Got value: x')
    '--epochs: expected int, got x'
    """
    for pattern, words in WORDS:
        line = re.sub(pattern, words, line)
    return line


def close_options(parser: Parser, line: str) -> str:
    """A hint for unknown options."""
    found = re.search(r"[Uu]nrecognized arguments: (--[\w.]+)", line)
    known = [option for action in parser._actions for option in action.option_strings]
    known = [option for option in known if not option.endswith(".help")]
    return _did_you_mean(found[1], known) if found else ""


def close_classes(parser: Parser, line: str) -> str:
    """A hint for an unknown class of an exchangeable part."""
    found = re.search(r'"(\w+)": - Expected a path but (\S+) ', line)
    if not found or found[1] not in parser.bases:
        return ""
    names = [each.__name__ for each in subclasses(parser.bases[found[1]])]
    return _did_you_mean(found[2], names) or f": choose among {', '.join(names)}, or give an import path"


def close_parameters(line: str) -> str:
    """A hint for an unknown option of a class."""
    found = re.search(r"class_path '([\w.]+)': Option '(\w+)' is not accepted", line)
    if not found:
        return ""
    known = list(inspect.signature(import_object(found[1])).parameters)  # type: ignore[arg-type]
    if found[2] in known:
        return ", since it is filled in"
    return _did_you_mean(found[2], known) or "; name the class first, as --prior CLASS --prior.option VALUE"


def subclasses(base: type) -> list[type]:
    """All that can be chosen: the concrete classes that derive from `base`."""
    below: list[type] = []
    child: type
    for child in base.__subclasses__():
        below += [child, *subclasses(child)]
    return [each for each in below if not inspect.isabstract(each)]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
