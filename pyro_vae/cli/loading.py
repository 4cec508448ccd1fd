"""Data and models from the settings of a run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pyro.infer import ELBO

from pyro_vae.cli.parser import Parser, settings_of, train_parser
from pyro_vae.data import Dataset
from pyro_vae.errors import seed_number
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.storage.checkpoints import check_settings, load_checkpoint, load_parameters
from pyro_vae.storage.runs import Run
from pyro_vae.training import FIT_OPTIONS, resolve_device
from pyro_vae.vae import JointProgram, assemble


def load(folder: Path, device: str = "cpu") -> tuple[Run, Dataset, JointProgram]:
    """A trained run: its folder, its data, and its model with the parameters that were kept."""
    run, parser = Run(folder), train_parser()
    settings = settings_of(run)
    data, vae, _ = build(parser, settings)
    path = run.checkpoints / ("best.pt" if settings.keep == "best" and len(data.valid) else "last.pt")
    state = load_checkpoint(path, ("model", "settings"))
    load_parameters(vae, state, path)
    check_settings(state["settings"], {"training data": data.train.hash()}, path)
    return run, data, vae.to(resolve_device(device)).eval()


def build(parser: Parser, settings: Namespace) -> tuple[Dataset, JointProgram, dict[str, Any]]:
    """Data, untrained model, and the options of `fit` that the settings name."""

    def wait(component: Callable[..., object], **choices: object) -> Callable[..., object]:
        return partial(component, **choices)  # `assemble` calls it with what it must know

    late = [(wait, base, True) for base in (JointProgram, Prior, Likelihood, Posterior, ELBO)]
    made = parser.instantiate(settings, instantiators=late)
    torch.manual_seed(seed_number(settings.seed))
    names = ("program", "latent_dim", "network", "upper_network", "prior", "likelihood", "posterior")
    vae = assemble(made.data, **{name: made[name] for name in names})
    return made.data, vae, {name: made[name] for name in FIT_OPTIONS}
