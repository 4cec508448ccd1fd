"""The options of the command line, built by jsonargparse from the constructors' signatures."""

import inspect
import json
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from pyro.infer import ELBO

from pyro_vae.cli.messages import Refusal, hint, subclasses
from pyro_vae.cli.trust import check_classes, consented, named_in, only_trusted
from pyro_vae.comparison import Reference
from pyro_vae.data import Dataset, Form, Table
from pyro_vae.errors import InputError, one_line, shortened
from pyro_vae.likelihoods import ColumnsLikelihood, Likelihood
from pyro_vae.networks import Architecture
from pyro_vae.objectives import PLUMBING
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.spellings import FORMS, as_ours, option_as_ours
from pyro_vae.storage.files import read_text, read_yaml
from pyro_vae.storage.runs import Run
from pyro_vae.tracking import NAMES, Tracker
from pyro_vae.training import FIT_OPTIONS, fit
from pyro_vae.vae import FACTS, JointProgram

#: The exchangeable parts: option, base class, class used by default, example.
PARTS: tuple[tuple[str, type, str, str], ...] = (
    ("data", Dataset, "Digits", "MNIST --data.root DATA"),
    ("program", JointProgram, "VAE", "HierarchicalVAE --latent_dim [100,50]"),
    ("network", Architecture, "MLP", "MLP --network.hidden_dims [500,500]"),
    ("prior", Prior, "StandardNormalPrior", "MixturePrior --prior.components 20"),
    ("likelihood", Likelihood, "BernoulliLikelihood", "NormalLikelihood --likelihood.scale 0.1"),
    ("posterior", Posterior, "DiagonalNormalPosterior", "my_module.MyPosterior"),
    ("objective", ELBO, "Trace_ELBO", "ImportanceWeightedELBO --num_particles 50"),
)

#: Parameters of each part's classes that are no options.
SKIPPED = {**FACTS, "objective": PLUMBING}

#: The class of each part where none is named; Adam is the default of `fit`, too.
DEFAULTS = {**{name: default for name, _, default, _ in PARTS}, "optimiser": "Adam"}

#: The same for a part that there is only where it, or an option of it, is named.
IF_NAMED = {"upper_network": "MLP"}

EXAMPLES = """examples:
  pyro-vae train
  pyro-vae train --data MNIST --data.root ~/data --epochs 50 --out runs/mnist
  pyro-vae train --prior MixturePrior --prior.components 20 --latent_dim 2
  pyro-vae train --condition label --prior ConditionalNormalPrior
  pyro-vae train --program SemiSupervisedVAE --num_labelled 100
  pyro-vae train --prior my_module.MyPrior        (a class in my_module.py in this folder)
  pyro-vae train --prior.help VampPrior           (the options of one class)
  pyro-vae train --config runs/mnist/config.yaml --seed 1
  pyro-vae train --resume runs/mnist
  pyro-vae train --seeds 8 --out runs/eight       (runs/eight/seed-0 to seed-7, trained at once)
"""


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Help that leaves the line breaks of descriptions and examples alone."""


class Parser(ArgumentParser):
    """`jsonargparse.ArgumentParser` with one-line errors; options are not abbreviated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # the name of the command also under `python -m pyro_vae`, and of the parser of a class's help
        ours = {"prog": "pyro-vae", "allow_abbrev": False, "formatter_class": HelpFormatter}
        super().__init__(*args, **{**ours, **kwargs})
        self.bases: dict[str, type] = {}

    def add_subclass_arguments(self, baseclass: Any, nested_key: str, *args: Any, **kwargs: Any) -> None:
        """As in jsonargparse; the base class is remembered for the close matches."""
        self.bases[nested_key] = baseclass
        super().add_subclass_arguments(baseclass, nested_key, *args, **kwargs)

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> Any:
        """As in jsonargparse; the help of a class has all that its docstring says before the options."""
        added = super().add_class_arguments(theclass, *args, **kwargs)
        text = inspect.cleandoc(theclass.__doc__ or "").partition("\n\nArgs:")[0].partition("\n\nRaises:")[0]
        if text and str(self.description).startswith("Help for --"):
            self.description = f"{self.description}\n\n{text.partition('>>> ')[0].strip()}"
            for group in self._action_groups:
                if str(group.title).rstrip(":.") == text.partition("\n")[0].rstrip(":."):
                    group.title = "options"  # instead of the same line again
        return added

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help, without the null of parts that have a default all the same (see `with_defaults`)."""
        text: str = super().format_help(*args, **kwargs)
        text = text.replace("<class 'pyro.infer.elbo.ELBO'>:", "What is maximised, an ELBO of Pyro's kind:")
        return re.sub(r"(by\s+default\s+\w+\.\s+\(type:[^)]*?),\s+default:\s+null", r"\1", text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """What is wrong in one line, as an `InputError`."""
        if not self.exit_on_error:  # a parser inside the parser: the outer one reports
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        refusal = Refusal.of(message, ex)
        options = [option for action in parser._actions for option in action.option_strings]
        raise InputError(f"{refusal}{hint(refusal, options, parser.bases)}") from ex


def train_parser() -> Parser:
    """The options of `pyro-vae train`; the same parser reads a run's config.yaml."""
    parser = Parser(
        description="Train a VAE by SVI, evaluate it, and keep everything in a run folder.",
        usage="pyro-vae train [options]",
        epilog=EXAMPLES,
    )
    parser.add_argument("--config", action="config", help="YAML file of options, as a run's config.yaml.")
    for name, base, default, example in PARTS:
        parser.add_subclass_arguments(
            base,
            name,
            skip=set(SKIPPED.get(name, ())),
            default={"class_path": default},
            required=False,
            help=f"A class and its options, as --{name} {example}; by default {default}.",
        )
    skipped: set[str | int] = {name for name in inspect.signature(fit).parameters if name not in FIT_OPTIONS}
    parser.add_argument(
        "--latent_dim",
        type=int | tuple[int, ...],
        default=8,
        help="L, the length of z; for HierarchicalVAE several, from the data upwards, as [100,50].",
    )
    parser.add_subclass_arguments(
        Architecture,
        "upper_network",
        required=False,
        help="Network between the layers of HierarchicalVAE; by default MLP.",
    )
    parser.add_argument(
        "--condition",
        type=str | tuple[str, ...] | None,
        help="Fields of the data on which the model depends, as label: p(x|label) is trained and evaluated.",
    )
    parser.add_argument(
        "--num_labelled",
        type=int | Literal["all"] | None,
        help="Training labels that SemiSupervisedVAE sees, as many of each class, chosen by --seed, or all.",
    )
    parser.add_argument(
        "--sees_mask",
        type=bool,
        default=False,
        help="Show the encoder which entries are observed, of data with --data.missing true.",
    )
    parser.add_function_arguments(fit, skip=skipped | {"objective"})  # it is one of the parts
    # default classes made the types; from here on `with_defaults` names them
    parser.set_defaults(dict.fromkeys(DEFAULTS))
    parser.bases |= {"optimiser": torch.optim.Optimizer, "schedule": torch.optim.lr_scheduler.LRScheduler}
    parser.bases["data.form"] = Form
    group = parser.add_argument_group("Evaluation and output")
    group.add_argument("--particles", type=int, default=1000, help="Draws of z per test datum, for log p(x).")
    group.add_argument(
        "--num_data",
        type=int | None,
        default=1000,
        help="Test data for log p(x), by a fixed choice; null for all.",
    )
    group.add_argument("--out", type=Path | None, help="Run folder; by default a new one in runs/.")
    group.add_argument("--overwrite", type=bool, default=False, help="Replace the run in the folder.")
    parser.add_subclass_arguments(
        Tracker,
        "track",
        required=False,
        help="Where each epoch is taken down: tensorboard, wandb, mlflow, csv or none, or a class of your "
        "own, as my_module.MyTracker; by default tensorboard where it is installed.",
    )
    group.add_argument(
        "--seeds",
        type=int | tuple[int, ...] | None,
        help="Train so many seeds, as 8 for 0 to 7, or those of a list, as [3,5,8], at once, each a run.",
    )
    group.add_argument(
        "--resume",
        type=Path | None,
        help="Go on with the run in this folder, or its runs of several seeds, by their options; only "
        "budget, patience and --track may change.",
    )
    return parser


@cache
def reader() -> Parser:
    """The parser of `train_parser`, made once, for what is read and written without words of a user."""
    return train_parser()


def compare_parser(description: str) -> Parser:
    """The options of `pyro-vae compare`, by hand, since a function's list is no sequence of words."""
    parser = Parser(description=description, usage="pyro-vae compare RUN RUN ... [options]")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="Folders of two runs or more.")
    parser.add_argument(
        "--reference",
        type=Reference,
        default="first",
        help="The run to compare with: the best is by log p(x).",
    )
    parser.add_argument(
        "--format",
        type=Literal["text", "markdown", "latex", "csv"],
        default="text",
        help="Of the table on the screen.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), help="Folder of comparison.csv and comparison.png."
    )
    return parser


def report_parser(description: str, epilog: str) -> Parser:
    """The options of `pyro-vae report`, by hand as those of `compare`."""
    usage = "pyro-vae report RUN [RUN ...] [options]"
    parser = Parser(description=description, usage=usage, epilog=epilog)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="Folders of one run or several.")
    where = "File of the page; by default report.html in the folder of the run, or of several in this one."
    parser.add_argument("--out", type=Path | None, help=where)
    parser.add_argument("--seed", type=int, default=0, help="Of all draws.")
    parser.add_argument(
        "--device", type=str, default="auto", help="Where to compute; auto takes a GPU where there is one."
    )
    return parser


#: Options of `train` that may be given with --resume; all others are those of the run.
RESUMABLE = ("epochs", "steps", "patience", "particles", "num_data", "device", "track")

#: Options that say what to write and where, which no file may say for the user.
_OF_THE_COMMAND = ("config", "out", "overwrite", "resume", "seeds")


def settings_of(run: Run, changes: Sequence[str] = (), trust: Iterable[str] = ()) -> Namespace:
    """The settings of a run's config.yaml, with the default of each part that it does not name.

    Args:
        run: The run.
        changes: Options in place of those in the file.
        trust: Modules that the user consents to.

    Raises:
        InputError: where the file cannot be read, or names a class that is not allowed.
    """
    words = [f"--config={run.config}", *changes]
    return settings_from(words, [trust] if isinstance(trust, str) else trust, run.folder)


def settings_from(words: Sequence[str], trust: Iterable[str] = (), folder: Path | None = None) -> Namespace:
    """The settings that words of `pyro-vae train` make, where they come from a file.

    Args:
        words: As on the command line.
        trust: Modules that the user consents to.
        folder: Of the run that the file is of, if it is of one.

    Raises:
        InputError: where they make none, or name a class that is not allowed.
    """
    trusted = {*trust, *consented()}
    with only_trusted(trusted, folder):
        settings = reader().parse_args(with_defaults([*words]))
    check_classes(settings, trusted)
    return settings


def own_modules(arguments: Sequence[str]) -> set[str]:
    """Modules that the user names in words of the command line, not in a file."""
    words = (word.partition("=")[2] or word for word in arguments if not word.startswith("--config"))
    return named_in([*words])


def going_on(arguments: Sequence[str]) -> tuple[Path, list[str]] | None:
    """The run that `train --resume RUN` goes on with, and the options beside it; None without --resume.

    Raises:
        InputError: where an option is one that a run does not change.
    """
    folder: str | None = None
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        option, joined, value = word.partition("=")
        if option == "--resume":
            folder = value if joined else next(words, "")
        else:
            others += [word] if joined or not option.startswith("--") else [f"{word}={next(words, '')}"]
    if folder is None:
        return None
    named = {word.partition("=")[0] for word in others}
    if "--epochs" in named and "--steps" not in named:
        others.append("--steps=null")  # which would count before epochs
    if not folder:
        raise InputError("--resume expects the folder of a run, got none")
    for option in (word.partition("=")[0] for word in others):
        if option.removeprefix("--") not in RESUMABLE:
            raise InputError(
                f"--resume RUN goes on with the options of the run's config.yaml, got {option} too: "
                f"only {', '.join(f'--{name}' for name in RESUMABLE)} may change"
            )
    return Path(folder), others


def with_defaults(arguments: list[str]) -> list[str]:
    """The options of `train` in an order and with defaults that give each class its own.

    The parser carries options of one class over to another that has options of the same names. So files
    come first, without the parts that the command line names; then the class of each part, by default that
    of `PARTS`; then all other options.
    """
    content, classes, others = _sorted_out(arguments)
    parts = {*DEFAULTS, *IF_NAMED}
    content = {
        name: value
        for name, value in content.items()
        if name not in classes and not (value is None and name in parts)
    }
    tables = {each.__name__ for each in (Table, *subclasses(Table))}
    if _class_in(content, classes, "data").rpartition(".")[2] in tables:
        defaults = {**DEFAULTS, "likelihood": ColumnsLikelihood.__name__}
    else:
        defaults = DEFAULTS
    for name, default in (defaults | IF_NAMED).items():
        if isinstance(content.get(name), dict):
            content[name].setdefault("class_path", default)
        elif name in IF_NAMED and not any(word.startswith(f"--{name}.") for word in others):
            continue
        elif name not in content and name not in classes:
            classes[name] = default
            if name == "optimiser":
                others.insert(0, "--optimiser.fused=true")
    # dates and the like as text: the parser says what it expects
    leading = [f"--config={json.dumps(content, default=str)}"] if content else []
    return [*leading, *(f"--{name}={value}" for name, value in classes.items()), *others]


def _class_in(content: dict[str, Any], classes: dict[str, str], part: str) -> str:
    """The class that is named for a part, on the command line or in a file; empty for none."""
    of_file = content.get(part)
    named = of_file.get("class_path") if isinstance(of_file, dict) else of_file
    return classes.get(part) or str(named or "")


def _sorted_out(arguments: list[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The content of all files given by --config, the class given for each part, and the other words."""
    content: dict[str, Any] = {}
    classes: dict[str, str] = {}
    others: list[str] = []
    words = map(as_ours, arguments)
    for word in words:
        option, joined, value = word.partition("=")
        name = option.removeprefix("--")
        if name == "data.form":
            value = value if joined else next(words, "")
            others.append(f"{option}={FORMS.get(value, value)}")
            continue
        if option == name or name not in {"config", "schedule", "track", *DEFAULTS, *IF_NAMED}:
            others.append(word)
            continue
        value = value if joined else next(words, "")
        if not value:
            raise InputError(f"--{name} expects a value, got none")
        if name == "config":
            content |= {option_as_ours(key): item for key, item in _read(value).items()}
        else:
            classes[name] = value
    if "track" in classes:
        classes["track"] = _tracker(classes["track"])
    elif isinstance(content.get("track"), str):
        content["track"] = _tracker(content["track"])
    return content, classes, others


def _tracker(name: str) -> str:
    """The class of a short name; any other name as it is."""
    return NAMES[name].__name__ if name in NAMES else name


def _read(file: str) -> dict[str, Any]:
    """The content of a YAML file of options."""
    try:
        content = read_yaml(read_text(Path(file).expanduser()))
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"--config expects a YAML file, cannot read {file!r}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config expects a YAML file of options, got {file!r} with {shortened(content)}")
    for name in _OF_THE_COMMAND:
        if name in content:
            raise InputError(f"expected --{name} on the command line, got it in {file!r}: leave it out there")
    return content
