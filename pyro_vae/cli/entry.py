"""What `pyro-vae` does first and last: its commands, and how it ends."""

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable

from pyro_vae.cli.compare import compare
from pyro_vae.cli.diagnose import diagnose
from pyro_vae.cli.evaluate import evaluate
from pyro_vae.cli.parser import Parser, compare_parser, train_parser, with_defaults
from pyro_vae.cli.pictures import reconstruct, sample, scatter, traverse
from pyro_vae.cli.train import train
from pyro_vae.errors import InputError, NonFiniteLossError, one_line

#: What can be done with a trained run.
VERBS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "diagnose": diagnose,
    "sample": sample,
    "reconstruct": reconstruct,
    "traverse": traverse,
    "scatter": scatter,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    0, or 2 for bad input, 1 for a loss that is not finite, 130 where it was interrupted.
    """
    sys.path.append(os.getcwd())  # a user's own classes in a file of the current folder
    try:
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
        print(f"pyro-vae: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as end:
        how = f"; {end}" if str(end) else ""
        print(f"\npyro-vae: interrupted{how}", file=sys.stderr)
        return 128 + signal.SIGINT


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line."""
    print(f"pyro-vae: note: {message}", file=sys.stderr)


def _refuse(line: str) -> int:
    print(f"pyro-vae: error: {line}", file=sys.stderr)
    return 2


def _description(verb: Callable[..., None]) -> str:
    """What a command does, from its docstring."""
    return inspect.cleandoc(verb.__doc__ or "").split("\n\nArgs:")[0]


def _dispatch(arguments: list[str]) -> int:
    parser = Parser(prog="pyro-vae", description="Train, evaluate and look at variational autoencoders.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    commands.add_subcommand("train", train_parser(), help="Train a VAE and report its test log-likelihood.")
    for name, verb in VERBS.items():
        description = _description(verb)
        verb_parser = Parser(description=description, usage=f"pyro-vae {name} RUN [options]")
        verb_parser.add_function_arguments(verb, nested_key=None, as_positional=True)
        commands.add_subcommand(name, verb_parser, help=description.split("\n")[0])
    description = _description(compare)
    commands.add_subcommand("compare", compare_parser(description), help=description.split("\n")[0])
    if arguments[:1] == ["train"]:
        arguments = ["train", *with_defaults(arguments[1:])]
    settings = parser.parse_args(arguments)
    chosen = settings[settings.command]
    if settings.command == "train":
        return train(chosen)
    verbs: dict[str, Callable[..., None]] = {**VERBS, "compare": compare}
    verbs[settings.command](**chosen.as_dict())
    return 0
