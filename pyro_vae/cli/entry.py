"""What `pyro-vae` does first and last: its commands, and how it ends."""

import inspect
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import version

from jsonargparse import Namespace

from pyro_vae.cli.compare import compare
from pyro_vae.cli.diagnose import diagnose
from pyro_vae.cli.evaluate import evaluate
from pyro_vae.cli.export import export
from pyro_vae.cli.impute import impute
from pyro_vae.cli.new_data import encode, score
from pyro_vae.cli.one_of_several import one_of_several, tells
from pyro_vae.cli.parser import (
    Parser,
    compare_parser,
    going_on,
    own_modules,
    report_parser,
    settings_of,
    train_parser,
    with_defaults,
)
from pyro_vae.cli.pictures import interpolate, reconstruct, sample, scatter, traverse
from pyro_vae.cli.report import report
from pyro_vae.cli.sweep import sweep
from pyro_vae.cli.train import train
from pyro_vae.cli.train_seeds import train_seeds
from pyro_vae.cli.trust import check_classes, consent, consented, only_trusted, safe_path
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, LostRankError, NonFiniteLossError, one_line, out_of_memory
from pyro_vae.storage.runs import Run, of_seed, seeds_in
from pyro_vae.training.many import seeds_of

#: What can be done with a trained run.
VERBS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "diagnose": diagnose,
    "score": score,
    "encode": encode,
    "impute": impute,
    "sample": sample,
    "reconstruct": reconstruct,
    "traverse": traverse,
    "interpolate": interpolate,
    "scatter": scatter,
    "export": export,
}

#: All commands but `train`.
OTHERS: dict[str, Callable[..., None]] = {**VERBS, "report": report, "compare": compare, "sweep": sweep}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    0, or 2 for bad input, 1 for a loss that is not finite and for another rank that has ended, 130 where it
    was interrupted. An error that none
    of this foresees is one line, too; with PYRO_VAE_TRACEBACK=1 in the environment it is a traceback.
    """
    try:
        sys.path.append(os.getcwd())  # a user's own classes in a file of the current folder
        with warnings.catch_warnings():
            warnings.showwarning = _note
            return _dispatch(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        return _refuse(one_line(error))
    except SyntaxError as error:
        return _refuse(f"{error.filename}, line {error.lineno}: {error.msg}")
    except BrokenPipeError:  # as by `| head`: nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror or one_line(error)}")
    except NonFiniteLossError as error:
        if tells(str(error)):
            print(f"pyro-vae: {error}", file=sys.stderr)
        return 1
    except LostRankError as error:
        print(f"pyro-vae: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as end:
        how = f"; {end}" if str(end) else ""
        if tells("interrupted"):
            print(f"\npyro-vae: interrupted{how}", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if out_of_memory(error):
            return _refuse(
                "out of memory: lower --batch_size, --num_data, --chains or the sizes of the networks"
            )
        if os.environ.get("PYRO_VAE_TRACEBACK"):
            raise
        return _refuse(_unforeseen(error))


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line."""
    if tells(str(message)):
        print(f"pyro-vae: note: {message}", file=sys.stderr)


def _refuse(line: str) -> int:
    if tells(line):
        print(f"pyro-vae: error: {_printable(line)}", file=sys.stderr)
    return 2


def _printable(line: str) -> str:
    """A line of bounded length, without the control characters that a file's name, or content, may hold."""
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} … ({len(line)} characters)"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


#: Characters of an error of ours.
_LONGEST = 1000


def _unforeseen(error: Exception) -> str:
    """One line of an error of a user's own class, or of this package."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}, line {last.lineno}"
    return (
        f"{type(error).__name__}: {one_line(error)} ({where}); PYRO_VAE_TRACEBACK=1 shows how it came about"
    )


def _description(verb: Callable[..., None]) -> str:
    """What a command does, from its docstring."""
    return inspect.cleandoc(verb.__doc__ or "").split("\n\nArgs:")[0]


def _usage(name: str, verb: Callable[..., None]) -> str:
    """The words before the options."""
    required = [
        each.name.upper()
        for each in inspect.signature(verb).parameters.values()
        if each.default is each.empty
    ]
    return " ".join(["pyro-vae", name, *required, "[options]"])


def _parser(command: str) -> Parser:
    """The parser of all commands, in which only the chosen one has its options: all would take longer."""
    parser = Parser(prog="pyro-vae", description="Train, evaluate and look at variational autoencoders.")
    parser.add_argument("--version", action="version", version=f"pyro_vae {version('pyro_vae')}")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    made = train_parser() if command == "train" else Parser()
    commands.add_subcommand("train", made, help="Train a VAE and report its test log-likelihood.")
    for name, verb in OTHERS.items():
        made = _verb_parser(name, verb) if command == name else Parser()
        commands.add_subcommand(name, made, help=_description(verb).split("\n")[0])
    return parser


def _verb_parser(name: str, verb: Callable[..., None]) -> Parser:
    """The options of a command other than `train`."""
    if verb is compare:
        return compare_parser(_description(verb))
    if verb is report:
        return report_parser(_description(verb), _TRUST)
    parser = Parser(description=_description(verb), usage=_usage(name, verb), epilog=_TRUST)
    parser.add_function_arguments(verb, nested_key=None, as_positional=True, skip={"data"})
    if "data" in inspect.signature(verb).parameters:
        help = "New data, a class and its options as in train; by default those of the training."
        parser.add_subclass_arguments(Dataset, "data", required=False, help=help)
    return parser


#: Of the commands that open a run.
_TRUST = """with classes of your own in the run:
  --trust MODULE    import them from this module; a run may come from anywhere, so read it before
"""


def _dispatch(arguments: list[str]) -> int:
    arguments, trusted = _trusted(arguments)
    command = next((word for word in arguments if not word.startswith("-")), "")
    with consent(trusted), one_of_several(command):
        if arguments[:1] == ["train"] and not {"-h", "--help"} & {*arguments}:
            resumed = going_on(arguments[1:])
            if resumed is not None:
                folder, changes = resumed
                if seeds := seeds_in(folder):
                    settings = settings_of(Run(of_seed(folder, seeds[0])), changes)
                    return train_seeds(settings, seeds, folder)
                return train(settings_of(Run(folder), changes), folder)
            arguments = ["train", *with_defaults(arguments[1:])]
        with safe_path():
            parser = _parser(command)
        trust = {*consented(), *own_modules(arguments)}
        with only_trusted(trust):
            settings = parser.parse_args(arguments)
        check_classes(settings, trust)
        chosen = settings[settings.command]
        if settings.command == "train" and chosen.seeds is not None:
            if chosen.seed:
                raise InputError(f"--seeds names all seeds, got --seed {chosen.seed} too: give one of them")
            return train_seeds(chosen, seeds_of(chosen.seeds), chosen.out)
        if settings.command == "train":
            return train(chosen)
        OTHERS[settings.command](**_made(parser, settings)[settings.command].as_dict())
    return 0


def _made(parser: Parser, settings: Namespace) -> Namespace:
    """The settings with the objects that they name; a refusal of one is said as it is."""
    try:
        made: Namespace = parser.instantiate(settings)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        raise cause or error from error
    return made


def _trusted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words without --trust MODULE, and these modules."""
    others, modules, words = [], [], iter(arguments)
    for word in words:
        option, joined, value = word.partition("=")
        if option != "--trust":
            others.append(word)
            continue
        value = value if joined else next(words, "")
        if not value.replace(".", "_").isidentifier():
            raise InputError(f"--trust expects the name of a module, got {value!r}")
        modules.append(value)
    return others, modules
