"""Weights of the data in training."""

from dataclasses import replace
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vae.batch import Program
from pyro_vae.data import Split
from pyro_vae.errors import InputError
from pyro_vae.objectives import Bound
from pyro_vae.precision import wide
from pyro_vae.training.data import Splits


class Weighted:
    """A Pyro program whose log densities of each datum are multiplied by its weight.

    Under it, in model and guide alike, `Trace_ELBO` maximises Σ_n w_n ELBO_n, as if datum n were there w_n
    times: weights of a survey, or of classes that are rare.

    Args:
        program: The program, with a plate of the data at axis −1.
        name: The weights, (B,), are given by this name; the program does not get them.
        mean: Weights are divided by it.
    """

    def __init__(self, program: Program, name: str, mean: float) -> None:
        self.program, self.name, self.mean = program, name, mean

    def __call__(self, x: Tensor, **given: Any) -> Any:
        """The program of x, with all else that is given."""
        weight = given.pop(self.name) / self.mean
        with _DatumWeight(weight):
            return self.program(x, **given)


class _DatumWeight(Messenger):
    """Multiplies the scale of each site by the weights of the data."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if site_is_subsample(message):
            return
        frames = {frame.dim: frame.size for frame in message["cond_indep_stack"] if frame.vectorized}
        if frames.get(-1) != len(self.weight):
            raise InputError(
                f"weight expects programs whose sites lie in a plate of the data at axis -1, got "
                f"{message['name']!r} outside of it"
            )
        message["scale"] = message["scale"] * self.weight


def without(splits: Splits, name: str | None) -> Splits:
    """The data as programs get them: without their weights.

    Raises:
        InputError: where the training data have no field of this name, or it is none of weights.
    """
    if name is None:
        return splits
    fields = splits.train.fields
    if name not in fields:
        raise InputError(
            f"weight expects the name of a field of the data, got {name!r} for data with "
            f"{', '.join(fields) or 'none'}: give it, as fields={{'train': {{{name!r}: array}}}}"
        )
    weight = wide(fields[name])
    if weight.ndim != 1 or not bool((weight >= 0).all()) or not bool(weight.isfinite().all() & weight.any()):
        raise InputError(
            f"weight expects one number from 0 for each datum, and some above it, got {name!r} of shape "
            f"{tuple(weight.shape)} from {float(weight.min()):.4g} to {float(weight.max()):.4g}"
        )
    return Splits(
        *(replace(split, given=tuple(each for each in split.given if each != name)) for split in splits)
    )


def check_objective(objective: ELBO) -> None:
    """Refuse an objective in which a weight is no factor of a datum's term."""
    if isinstance(objective, Bound):
        raise InputError(
            f"weight multiplies the ELBO of each datum, got the objective {type(objective).__name__}: use "
            "Trace_ELBO or TraceMeanField_ELBO, or leave it out"
        )


def weighted(split: Split, name: str) -> tuple[Split, float]:
    """Training data with their weights given, and the mean of these."""
    mean = float(wide(split.fields[name]).mean())
    fields = {**split.fields, name: split.fields[name].to(torch.float32)}
    return replace(split, fields=fields, given=(*split.given, name)), mean
