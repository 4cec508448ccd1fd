"""The command line `pyro-vae`, built from the constructors' signatures."""

import inspect
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from matplotlib.figure import Figure
from pyro.infer import ELBO

from pyro_vae import comparison, plots, reports
from pyro_vae.arguments import FIT_OPTIONS, Parser, compare_parser, settings_of, train_parser, with_defaults
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, NonFiniteLossError, count, one_line, seed_number
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.runs import Run, check_settings, load_checkpoint, load_parameters, write
from pyro_vae.training import Epoch, History, fit, resolve_device
from pyro_vae.vae import JointProgram, assemble


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for bad input, 1 for a loss that is not finite."""
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
    except KeyboardInterrupt:
        print("pyro-vae: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line."""
    print(f"pyro-vae: note: {message}", file=sys.stderr)


def _refuse(line: str) -> int:
    print(f"pyro-vae: error: {line}", file=sys.stderr)
    return 2


def _dispatch(arguments: list[str]) -> int:
    parser = Parser(prog="pyro-vae", description="Train, evaluate and look at variational autoencoders.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND")
    commands.add_subcommand("train", train_parser(), help="Train a VAE and report its test log-likelihood.")
    for name, verb in VERBS.items():
        description = inspect.cleandoc(verb.__doc__ or "").split("\n\nArgs:")[0]
        verb_parser = Parser(description=description, usage=f"pyro-vae {name} RUN [options]")
        verb_parser.add_function_arguments(verb, nested_key=None, as_positional=True)
        commands.add_subcommand(name, verb_parser, help=description.split("\n")[0])
    description = inspect.cleandoc(compare.__doc__ or "").split("\n\nArgs:")[0]
    commands.add_subcommand("compare", compare_parser(description), help=description.split("\n")[0])
    if arguments[:1] == ["train"]:
        arguments = ["train", *with_defaults(arguments[1:])]
    settings = parser.parse_args(arguments)
    chosen = settings[settings.command]
    if settings.command == "train":
        return train(chosen)
    {**VERBS, "compare": compare}[settings.command](**chosen.as_dict())
    return 0


def train(settings: Namespace) -> int:
    """`pyro-vae train`: returns the exit status."""
    parser = train_parser()
    resume: Path | None = settings.resume
    if resume is not None:
        settings = settings_of(Run(resume))
    count("particles", settings.particles)
    if settings.num_data is not None:
        count("num_data", settings.num_data)
    data, vae, options = _build(parser, settings)
    folder: Path = resume or settings.out or _free_folder(data.name)
    started = resume is not None

    def start() -> None:
        nonlocal started
        if not started:  # only now, so that bad input never costs the run that is overwritten
            Run.create(folder, _configuration(parser, settings), overwrite=settings.overwrite)
            started = True

    try:
        history = fit(
            vae,
            data,
            **options,
            checkpoints=folder / "checkpoints",
            resume=resume is not None,
            on_start=start,
            callbacks=[lambda _, history: write_history(Run(folder), history)],
        )
        _finish(Run(folder), vae, data, history, settings)
    except KeyboardInterrupt:
        if not started:
            raise
        command = f"pyro-vae train --resume {shlex.quote(str(folder))}"
        print(f"\ninterrupted; go on with: {command}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _finish(run: Run, vae: JointProgram, data: Dataset, history: History, settings: Namespace) -> None:
    """The summary, its picture, and the table on the screen."""
    write_history(run, history)
    columns = {name: history.column(name) for name in Epoch._fields}
    plots.save(plots.history(columns, density=not vae.no_evidence), run.folder / "history.png")
    evaluated = reports.evaluation(
        vae,
        data,
        split=reports.held_out(data),
        particles=settings.particles,
        num_data=settings.num_data,
        seed=settings.seed,
        progress=sys.stderr.isatty(),
    )
    content = reports.summary(vae, data, history, evaluated.content)
    run.write_arrays("per_datum.npz", evaluated.per_datum)
    run.write_json("summary.json", content)
    print(reports.table(content, run.folder))


def write_history(run: Run, history: History) -> None:
    """metrics.csv of all epochs so far."""
    run.write_metrics(Epoch._fields, history.epochs)


def evaluate(
    run: Path,
    *,
    particles: int = 1000,
    num_data: int | None = None,
    split: Literal["train", "valid", "test"] = "test",
    seed: int = 0,
    device: str = "auto",
) -> None:
    """ELBO and importance-sampled log p(x) of a trained run, into its evaluation.json.

    Args:
        run: Folder of the run.
        particles: Importance samples per datum.
        num_data: How many data, by a fixed choice; null for all.
        split: Which data.
        seed: Of the importance samples.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    count("particles", particles)
    opened, data, vae = load(run, device)
    content, per_datum = reports.evaluation(
        vae,
        data,
        split=split,
        particles=particles,
        num_data=num_data,
        seed=seed_number(seed),
        progress=sys.stderr.isatty(),
    )
    if (opened.folder / "evaluation.json").exists():
        print(f"replacing the earlier {opened.folder / 'evaluation.json'}")
    opened.write_arrays("per_datum.npz", per_datum)
    opened.write_json("evaluation.json", content)
    print(reports.table(content, opened.folder))


def sample(run: Path, *, num: int = 100, draws: bool = False, seed: int = 0, device: str = "auto") -> None:
    """A grid of pictures drawn from the prior and decoded.

    Args:
        run: Folder of the run.
        num: Number of pictures.
        draws: Show draws from p(x|z) instead of its means.
        seed: Of the draws.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, _, vae = load(run, device)
    torch.manual_seed(seed_number(seed))
    pictures = vae.sample(num, mean=not draws)
    title = f"x ~ p(x|z), z ~ p(z){'' if draws else '; means of p(x|z)'}"
    _save(opened, "samples", plots.images(pictures, title=title))


def reconstruct(run: Path, *, num: int = 50, seed: int = 0, device: str = "auto") -> None:
    """Test data over their reconstructions (validation or training data where there is no test split).

    Args:
        run: Folder of the run.
        num: Number of test data, by a fixed choice.
        seed: Of the draw z ~ q(z|x).
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, data, vae = load(run, device)
    x = vae.place(getattr(data, reports.held_out(data)).subset(num).batch())
    torch.manual_seed(seed_number(seed))
    _save(opened, "reconstructions", plots.reconstructions(x, vae.reconstruct(x)))


def traverse(
    run: Path, *, axes: tuple[int, int] = (0, 1), num: int = 20, seed: int = 0, device: str = "auto"
) -> None:
    """The plane of two latent axes, decoded.

    The grid lies at equal steps of probability under the prior: at its inverse CDF where the prior is
    normal or Laplace, else at the quantiles of 10,000 draws; for an Autoencoder, which has no prior, at the
    quantiles of the codes of training data. The other axes stay at the mean.

    Args:
        run: Folder of the run.
        axes: The two latent axes, counted from 0.
        num: Pictures along each.
        seed: Of the draws from a prior that is not normal.
        device: Where to compute; `auto` takes a GPU where there is one.
    """
    opened, data, vae = load(run, device)
    torch.manual_seed(seed_number(seed))
    codes = None if vae.code_prior() is not None else vae.encode(vae.place(data.train.subset(10_000).batch()))
    z, across, down = vae.latent_plane(axes, num=num, codes=codes)
    names = (f"$z_{{{axes[0]}}}$", f"$z_{{{axes[1]}}}$")
    _save(opened, "plane", plots.plane(vae.decode(z), across.tolist(), down.tolist(), names))


def compare(runs: list[Path], *, reference: comparison.Reference, out: Path) -> None:
    """Differences between runs in log p(x), on the same test data, with 95 % intervals.

    One table: the options in which the runs differ, parameters, ELBO, log p(x), and the difference in
    log p(x) to the first run (or the best), datum by datum, so that the interval is a narrow one. It is
    within noise where the interval contains 0. Intervals are per pair, not simultaneous, and of these
    trained parameters: what another seed of the training would change is not in them. Of each run the
    latest evaluation counts. The table is kept as comparison.csv, its picture as comparison.png.

    Args:
        runs: Folders of the runs.
        reference: The run to compare with.
        out: Folder to write into.
    """
    found = comparison.compare(runs, reference=reference)
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder to write into, got the file {out}: choose another with --out")
    print(f"{found}\n")
    for name in ("comparison.csv", "comparison.png"):
        if (out / name).exists():
            print(f"replacing the earlier {out / name}")
    write(out / "comparison.csv", found.csv().encode())
    plots.save(_picture(found), out / "comparison.png")
    print(out / "comparison.csv", out / "comparison.png", sep="\n")


def _picture(found: comparison.Comparison) -> Figure:
    runs = found.runs
    return plots.differences(
        [f"{run.name}\n{comparison.in_words(run.options)}" for run in runs],
        [run.difference for run in runs],
        [run.interval for run in runs],
        [run.verdict for run in runs],
        reference=found.reference,
        units=found.units,
    )


#: What can be done with a trained run.
VERBS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "sample": sample,
    "reconstruct": reconstruct,
    "traverse": traverse,
}


def load(folder: Path, device: str = "cpu") -> tuple[Run, Dataset, JointProgram]:
    """A trained run: its folder, its data, and its model with the parameters that were kept."""
    run, parser = Run(folder), train_parser()
    settings = settings_of(run)
    data, vae, _ = _build(parser, settings)
    path = run.checkpoints / ("best.pt" if settings.keep == "best" and len(data.valid) else "last.pt")
    state = load_checkpoint(path, ("model", "settings"))
    load_parameters(vae, state, path)
    check_settings(state["settings"], {"training data": data.train.hash()}, path)
    return run, data, vae.to(resolve_device(device)).eval()


def _build(parser: Parser, settings: Namespace) -> tuple[Dataset, JointProgram, dict[str, Any]]:
    """Data, untrained model, and the options of `fit` that the settings name."""

    def wait(component: Callable[..., object], **choices: object) -> Callable[..., object]:
        return partial(component, **choices)  # `assemble` calls it with what it must know

    late = [(wait, base, True) for base in (JointProgram, Prior, Likelihood, Posterior, ELBO)]
    made = parser.instantiate(settings, instantiators=late)
    torch.manual_seed(seed_number(settings.seed))
    names = ("program", "latent_dim", "network", "upper_network", "prior", "likelihood", "posterior")
    vae = assemble(made.data, **{name: made[name] for name in names})
    return made.data, vae, {name: made[name] for name in FIT_OPTIONS}


def _configuration(parser: Parser, settings: Namespace) -> str:
    """The settings as YAML, without those that say where to write."""
    kept = settings.clone()
    where = kept.data.get("init_args", Namespace())
    for name in ("root", "path"):  # so that the run can be used from any folder
        if where.get(name) is not None:
            where[name] = where[name].expanduser().absolute()
    for name in ("config", "out", "overwrite", "resume"):
        kept.pop(name, None)
    return parser.dump(kept, skip_validation=True)


def _free_folder(name: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, … that does not exist."""
    return next(folder for n in numbers(1) if not (folder := Path("runs") / f"{name}-{n}").exists())


def _save(run: Run, name: str, figure: Figure) -> None:
    path = run.figures / f"{name}.png"
    plots.save(figure, path)
    print(path)
