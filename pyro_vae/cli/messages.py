"""What the parser says, in a user's words, with the close matches of a misspelt name."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pydoc import locate as import_object

from pyro_vae.likelihoods import ObservedLikelihood
from pyro_vae.objectives import UNUSABLE, PenalisedELBO
from pyro_vae.vae.conditional import Conditional
from pyro_vae.vae.standardised import Scaling

#: Classes that cannot be chosen: no objectives, what a program makes of one, and what `assemble` puts around
#: another class.
_NO_CHOICE = (*UNUSABLE, PenalisedELBO, ObservedLikelihood)

#: An option in which something is wrong, or a class that was chosen for it, in what the parser says.
_PLACE = re.compile(r"Parser key \"([\w.]+)\":|class_path[ =]'([\w.]+)'")

#: The parser's words for what is wrong, and a user's.
WORDS = (
    (r"<class '([\w.]+)'>", r"\1"),
    (r"typing\.Literal\[([^]]*)\]", r"one of \1"),
    (r"NoneType", r"null"),
    (r", collections\.abc\.Callable\[\[int\], float\]", r" or a function as my_module.weight"),
    (r", tuple\[int, \.\.\.\]", r" or a list as [1,2]"),
    (r"Does not validate .*? Subtypes: \[(.*?)\] Errors:.* Given value: (.*)", r"expected \1, got \2"),
    (r"Expected an? tuple(?:\[.*?\])?\. Got value: (.*)", r"expected a list as [1,2], got \1"),
    (r"Expected an? (.*?)\. Got value: (.*)", r"expected \1, got \2"),
    (r"Expected a dot import path string: (\S+)", r"expected a class or its import path, got \1"),
    (r"Option '(\w+)' is not accepted", r"there is no option \1"),
    (
        r"(?:\w+: )?Importing '((\w+)[\w.]*)' is not allowed, denied by the '\*' entry.*",
        r"\1 is no class of pyro_vae, torch.nn, torch.optim, Pyro or zuko, and nothing else that a file "
        r"names is imported without consent: read it, and allow it by --trust \2",
    ),
    (
        r"(?:\w+: )?Importing '([\w.]+)' is not allowed, denied by.*",
        r"\1 is not part of a model, so it is not imported",
    ),
    (r"(?!compare)\b\w+\.run\b", r"RUN, the folder of a run"),
    (r"\b\w+\.file\b", r"FILE, of data"),
    (r"compare\.runs", r"RUN RUN, the folders of runs"),
    (r"report\.runs", r"RUN, the folder of a run"),
)


@dataclass(frozen=True)
class Refusal:
    """What the parser refuses: the option, the class chosen for it, and what is wrong.

    The parser's errors have no attributes that say so, but each quotes its cause: the innermost one that is
    quoted is what is wrong, and what stands around it says where.
    """

    #: As it is typed, without the dashes; empty where it is of no option.
    option: str
    #: Import path of the class whose option is unknown or missing; empty where it is of none.
    chosen: str
    #: What is wrong, in the parser's words.
    wrong: str

    @classmethod
    def of(cls, message: str, error: BaseException | None) -> "Refusal":
        """That of a message, and the error that it was made of."""
        line = _flat(message)
        places = list(dict.fromkeys(_PLACE.findall(line)))
        option = ".".join(key for key, _ in places if key)
        if not option or error is None:
            return cls("", "", line)
        wrong = _flat(str(_innermost(error, line)))
        return cls(option, places[-1][1], wrong)

    def __str__(self) -> str:
        """In a user's words."""
        text = self.wrong
        for pattern, words in WORDS:
            text = re.sub(pattern, words, text)
        if self.chosen:
            name = self.chosen.rpartition(".")[2]
            lacking = re.fullmatch("the following arguments are required: (.*)", text)
            text = f"{name} lacks an option (see .help): {lacking[1]}" if lacking else f"{name}: {text}"
        return f"--{self.option}: {text}" if self.option else text


def _innermost(error: BaseException, line: str) -> BaseException:
    """The last in a chain of causes of those that the message quotes."""
    found, cause = error, error.__cause__
    while cause is not None:
        found = cause if _flat(str(cause)) in line else found
        cause = cause.__cause__
    return found


def _flat(text: str) -> str:
    return " ".join(text.split())


def hint(refusal: Refusal, options: Iterable[str], bases: Mapping[str, type]) -> str:
    """The close matches of a misspelt command, option, class or option of a class, where there are any.

    Args:
        refusal: What is wrong.
        options: That there are.
        bases: The base class of each exchangeable part.
    """
    return (
        _close_commands(refusal.wrong)
        or _close_options(refusal.wrong, options)
        or _close_classes(refusal, bases)
        or _close_parameters(refusal)
    )


def _close_commands(wrong: str) -> str:
    """A hint for an unknown command."""
    found = re.search(r"COMMAND: invalid choice: '(\w+)' \(choose from (.*)\)", wrong)
    return _did_you_mean(found[1], re.findall(r"\w+", found[2])) if found else ""


def _close_options(wrong: str, options: Iterable[str]) -> str:
    """A hint for unknown options."""
    found = re.search(r"[Uu]nrecognized arguments: (--[\w.]+)", wrong)
    known = [option for option in options if not option.endswith((".help", "_config"))]
    return _did_you_mean(found[1], known) if found else ""


def _close_classes(refusal: Refusal, bases: Mapping[str, type]) -> str:
    """A hint for an unknown class of an exchangeable part."""
    found = re.search(r"Expected a dot import path string: (\S+)", refusal.wrong)
    if not found or refusal.option not in bases:
        return ""
    names = [each.__name__ for each in subclasses(bases[refusal.option])]
    return _did_you_mean(found[1], names) or f": choose among {', '.join(names)}, or give an import path"


def _close_parameters(refusal: Refusal) -> str:
    """A hint for an unknown option of a class."""
    found = re.search(r"Option '(\w+)' is not accepted", refusal.wrong)
    if not found or not refusal.chosen:
        return ""
    known = list(inspect.signature(import_object(refusal.chosen)).parameters)  # type: ignore[arg-type]
    if found[1] in known:
        return ", since it is filled in"
    return _did_you_mean(found[1], known) or f"; name the class that has it, as --{refusal.option} CLASS"


def subclasses(base: type) -> list[type]:
    """All that can be chosen: the concrete classes that derive from `base`."""
    below: list[type] = []
    child: type
    for child in base.__subclasses__():
        below += [child, *subclasses(child)]
    no_choice = (*_NO_CHOICE, Conditional, Scaling)
    return [each for each in below if not (inspect.isabstract(each) or issubclass(each, no_choice))]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
