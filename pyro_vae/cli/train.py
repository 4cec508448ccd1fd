"""`pyro-vae train`."""

import shlex
import signal
import sys
from itertools import count as numbers
from pathlib import Path

from jsonargparse import Namespace

from pyro_vae import plots, reports
from pyro_vae.cli.loading import build
from pyro_vae.cli.parser import Parser, settings_of, train_parser
from pyro_vae.data import Dataset
from pyro_vae.errors import count
from pyro_vae.storage.runs import Run
from pyro_vae.training import Epoch, History, fit
from pyro_vae.vae import JointProgram


def train(settings: Namespace) -> int:
    """`pyro-vae train`: returns the exit status."""
    parser = train_parser()
    resume: Path | None = settings.resume
    if resume is not None:
        settings = settings_of(Run(resume))
    count("particles", settings.particles)
    if settings.num_data is not None:
        count("num_data", settings.num_data)
    data, vae, options = build(parser, settings)
    folder: Path = resume or settings.out or _free_folder(data.name)
    started = resume is not None

    def start() -> None:
        nonlocal started
        if not started:  # only now, so that bad input never costs the run that is overwritten
            Run.create(folder, configuration(parser, settings), overwrite=settings.overwrite)
            started = True

    try:
        history = fit(
            vae,
            data,
            **options,
            checkpoints=folder / "checkpoints",
            resume=resume is not None,
            on_start=start,
            callbacks=[lambda _, history: _write_history(Run(folder), history)],
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
    _write_history(run, history)
    columns = {name: history.column(name) for name in Epoch._fields}
    plots.save(plots.history(columns, density=not vae.no_evidence), run.folder / "history.png")
    evaluated = reports.evaluation(
        vae,
        data,
        split=reports.held_out(data),
        estimator=reports.Estimator(particles=settings.particles),
        num_data=settings.num_data,
        seed=settings.seed,
        progress=sys.stderr.isatty(),
    )
    content = reports.summary(vae, data, history, evaluated.content)
    run.write_arrays("per_datum.npz", evaluated.per_datum)
    run.write_json("summary.json", content)
    print(reports.table(content, run.folder))


def _write_history(run: Run, history: History) -> None:
    """metrics.csv of all epochs so far."""
    run.write_metrics(Epoch._fields, history.epochs)


def configuration(parser: Parser, settings: Namespace) -> str:
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
