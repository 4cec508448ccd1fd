"""Data and models from the settings of a run."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from pydoc import locate as import_object
from typing import Any

import torch
from jsonargparse import Namespace
from pyro.infer import ELBO

from pyro_vae.cli.configuration import check_options, options_of, text_of
from pyro_vae.cli.parser import reader, settings_of
from pyro_vae.cli.trust import safe_path
from pyro_vae.data import DataFacts, Dataset, Table
from pyro_vae.errors import InputError, seed_number
from pyro_vae.likelihoods import Likelihood
from pyro_vae.markup import table
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.reports.facts import note_other_data
from pyro_vae.reports.tables import fact_rows
from pyro_vae.storage.checkpoints import check_settings, load_parameters
from pyro_vae.storage.files import read_json, read_text
from pyro_vae.storage.hashing import fingerprint_of
from pyro_vae.storage.identity import identity
from pyro_vae.storage.runs import Run
from pyro_vae.tracking import Tracker, usual_tracker
from pyro_vae.training import FIT_OPTIONS, History, resolve_device
from pyro_vae.training.saved import history_of, load_best, load_last
from pyro_vae.vae import JointProgram, NeedsDataError, assemble


class TrainedRun:
    """A trained run, opened: its model with the parameters that were kept, and what is known of it.

    The data of the training are not needed: what the model must know of them is kept in the run.

    Args:
        folder: Of the run.
        device: Where the model is put; `auto` takes a GPU where there is one.
        trust: Modules with classes of your own that the run's config.yaml may name. They are imported, and
            a run may come from anywhere, so this is a consent to run what they hold.

    Raises:
        InputError: where the folder is none of a run, its checkpoint is damaged or was made with another
            configuration, or its configuration names a class that is not allowed.
    """

    def __init__(self, folder: Path | str, *, device: str = "cpu", trust: Iterable[str] = ()) -> None:
        self.run = Run(folder)
        #: The options of `pyro-vae train` by which it was made.
        self.settings = settings_of(self.run, ["--track=none"], trust)  # nothing is trained
        #: All that the training depends on, by option, as `prior.components`.
        self.config = options_of(text_of(self.settings))
        self.path, state = self._kept()
        about = state["about"]
        check_options(about.get("configuration"), self.config, self.path, self.run.config)
        #: What the model must know of the data.
        self.facts = DataFacts.from_plain(about.get("data"))
        self._training_data = state["settings"].get("training data")
        self.vae = self._model()
        load_parameters(self.vae, state, self.path)
        self.vae.to(resolve_device(device)).eval()

    def _kept(self) -> tuple[Path, dict[str, Any]]:
        """The checkpoint of the best epoch, or of the last where that was asked for or none was the best."""
        folder = self.run.checkpoints
        best, last = folder / "best.pt", folder / "last.pt"
        if self.settings.keep == "best" and (best.exists() or load_last(last)["best"] is not None):
            return best, load_best(best)
        return last, load_last(last)

    def _model(self) -> JointProgram:
        """The model, without its parameters."""
        try:
            return model_of(self.settings, self.facts)
        except NeedsDataError:
            return model_of(self.settings, self.data())

    def data(self) -> Dataset:
        """The data of the training, read anew.

        Raises:
            InputError: where they are not where they were, or are others.

        Warns:
            UserWarning: where the held-out data are not those of its summary.json.
        """
        data = data_of(self.settings).giving(*self.facts.given)
        check_settings(
            {"training data": self._training_data}, {"training data": data.train.hash()}, self.path
        )
        note_other_data(self.run, data)
        return data

    def data_at_hand(self) -> Dataset | None:
        """The same; None where they are not where they were, or are others."""
        try:
            return self.data()
        except (InputError, OSError):
            return None

    def like(self, data: Dataset) -> Dataset:
        """New data, refused where they are of another form than those of the training.

        Those of a table are read by the columns of the training.
        """
        if isinstance(data, Table) != bool(self.facts.columns):
            wanted = "a table" if self.facts.columns else "no table"
            raise InputError(f"expected {wanted} as in training, got {data.name}: give data of that form")
        if isinstance(data, Table):
            data = data.like(self.facts.columns)
        for name in ("data_shape", "levels", "bin_width"):
            wanted, got = getattr(self.facts, name), getattr(data, name)
            if wanted != got:
                raise InputError(
                    f"expected data with {name} {_plain(wanted)} as in training, got {_plain(got)}: "
                    f"give data of that form, as data.in_form(pv.{self.facts.form!r})"
                )
        data = data.giving(*self.facts.given)
        self.facts.check_fields(data)
        return data

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What is kept in all results: format, configuration and parameters."""
        return identity(self.config, fingerprint_of(self.vae))

    @cached_property
    def history(self) -> History:
        """All epochs of the training."""
        return history_of(load_last(self.run.checkpoints / "last.pt"))

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The numbers at the end of the training, those of summary.json; None before it has ended."""
        path = self.run.folder / "summary.json"
        return dict(read_json(read_text(path))) if path.exists() else None

    def _repr_html_(self) -> str:
        """Its parts and, of a training that has ended, its results as a table."""
        facts = {"folder": str(self.run.folder), "data": f"{self.facts.name}, {self.facts.protocol}"}
        names = ("program", "prior", "likelihood", "posterior", "network", "seed")
        facts |= {name: str(self.config[name]).rpartition(".")[2] for name in names if name in self.config}
        facts["parameters"] = f"{sum(each.numel() for each in self.vae.parameters()):,}"
        if self.summary is not None:
            facts |= {name: " ".join(text.split()) for name, text in fact_rows(self.summary).items()}
        return table([["", repr(self)], *map(list, facts.items())], "")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.run.folder)!r}, {type(self.vae).__name__} of {self.facts.name})"
        )


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, torch.Size) else value


def load(folder: Path | str, *, device: str = "cpu", trust: Iterable[str] = ()) -> TrainedRun:
    """Open a trained run, without its data: `vae`, `config`, `history`, `summary`, and `data()`.

    Args:
        folder: Of the run, as `runs/mnist`.
        device: Where the model is put; `auto` takes a GPU where there is one.
        trust: Modules with classes of your own that the run names: see `TrainedRun`.

    Raises:
        InputError: as `TrainedRun`.

    >>> import os, tempfile
    >>> from pyro_vae.cli import main
    >>> folder = os.path.join(tempfile.mkdtemp(), "digits")
    >>> main(["train", "--epochs", "1", "--out", folder])  # doctest: +ELLIPSIS
    nats per datum ...
    0
    >>> run = load(folder)
    >>> run.vae.sample(3).shape
    torch.Size([3, 1, 8, 8])
    >>> len(run.history.epochs), run.config["prior"]
    (1, 'pyro_vae.StandardNormalPrior')
    """
    return TrainedRun(folder, device=device, trust=trust)


def data_of(settings: Namespace) -> Dataset:
    """The data set that the settings name, in the form that they name, or else in that of the likelihood.

    With as many labels in training as they say.
    """
    made = _instantiate(settings, ("data", "likelihood"))
    data: Dataset = made["data"]
    if settings.data.init_args.get("form") is None and _has_likelihood(settings):
        data = data.for_likelihood(made["likelihood"])
    num = settings.num_labelled
    if num is None:
        return data
    return data.with_labels(None if num == "all" else num, seed=seed_number(settings.seed))


def _has_likelihood(settings: Namespace) -> bool:
    """Whether the program is made of a likelihood; one of a user's own may not be."""
    program = import_object(settings.program.class_path)
    parameters = inspect.signature(program).parameters if callable(program) else {}
    return bool({"likelihood", "likelihoods"} & parameters.keys())


def model_of(settings: Namespace, data: Dataset | DataFacts) -> JointProgram:
    """The untrained model that the settings name."""
    parts = ("prior", "likelihood", "posterior", "condition", "sees_mask")
    names = ("program", "latent_dim", "network", "upper_network", *parts)
    made = _instantiate(settings, names)
    torch.manual_seed(seed_number(settings.seed))
    return assemble(data, **made)


def options_for_fit(settings: Namespace) -> dict[str, Any]:
    """The options of `fit` that the settings name."""
    return _instantiate(settings, FIT_OPTIONS)


def tracker_of(settings: Namespace) -> Tracker:
    """The tracker that the settings name, or else the usual one."""
    made: Tracker | None = _instantiate(settings, ("track",))["track"]
    return usual_tracker() if made is None else made


def _instantiate(settings: Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The objects that settings of these names stand for; those that must know more wait to be called."""

    def wait(component: Callable[..., object], **choices: object) -> Callable[..., object]:
        return partial(component, **choices)  # `assemble` calls it with what it must know

    late = [(wait, base, True) for base in (JointProgram, Prior, Likelihood, Posterior, ELBO)]
    chosen = Namespace({name: settings[name] for name in names})
    with safe_path():
        made: Mapping[str, Any] = reader().instantiate(chosen, instantiators=late)
    return {name: made[name] for name in names}
