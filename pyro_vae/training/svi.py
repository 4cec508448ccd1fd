"""`fit`: stochastic variational inference for any model and guide in one module."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from pyro_vae.compiled import Compile
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError
from pyro_vae.importance import elbo
from pyro_vae.objectives import check_mean_field
from pyro_vae.randomness import own_randomness
from pyro_vae.training.history import History
from pyro_vae.training.steps import Precision
from pyro_vae.training.trainer import Callback, Trainer
from pyro_vae.vae import JointProgram


def fit(
    vae: JointProgram,
    data: Dataset,
    *,
    epochs: int = 100,
    steps: int | None = None,
    batch_size: int = 100,
    optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] = lambda parameters: torch.optim.Adam(
        parameters, lr=1e-3, fused=True
    ),
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    objective: Callable[..., ELBO] = Trace_ELBO,
    num_particles: int = 1,
    kl_weight: float = 1.0,
    kl_warm_up: int = 0,
    clip_norm: float | None = None,
    patience: int | None = None,
    keep: Literal["best", "last"] = "best",
    compile: Compile = "auto",
    precision: Precision = "full",
    seed: int = 0,
    device: str = "auto",
    checkpoints: Path | str | None = None,
    resume: bool = False,
    on_start: Callable[[], object] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> History:
    """Train a model and guide by stochastic variational inference.

    Each step is that of `pyro.infer.SVI(vae.model, vae.guide, optimiser, objective(num_particles)).step(x)`
    on a batch x, both programs under `KLWeight` where β is not 1, with one torch optimiser over all
    parameters, and with Pyro's validation on for the first step and off after; `compile` says by which way.
    The data lie in memory on the device. Epoch e takes its order and its binarisation noise from
    `data.batches(..., seed=seed, epoch=e)`, and all draws of z come from torch's global generator, seeded
    once with `seed` and given back as it was found. On a CPU, the same seed gives the same parameters, to the
    last bit.

    `vae` is moved to the device, trained in place, and left in evaluation mode.

    Args:
        vae: Module with a Pyro `model` and `guide`.
        data: Training data; its validation split is used to choose the best epoch.
        epochs: Passes over the training data.
        steps: Steps in all, instead of `epochs`; the last epoch may then be a part of one.
        batch_size: Data per step; the last batch of an epoch may be smaller.
        optimiser: Makes a torch optimiser from the parameters; by default Adam at 1e-3.
        schedule: Makes a learning-rate schedule from the optimiser; it is stepped once per epoch.
        objective: Makes what is maximised from the number of particles: an ELBO of Pyro's, as `Trace_ELBO`
            or `TraceMeanField_ELBO` (analytic KL), or of this package, as `ImportanceWeightedELBO` or
            `FreeBitsELBO`; or a `partial` of one with its own choices. Whatever it is, the ELBO without
            weights is what is logged, and what the best epoch is chosen by.
        num_particles: Draws of z per datum and step.
        kl_weight: β on the KL term in training (β-VAE, Higgins et al. 2017).
        kl_warm_up: Epochs over which β rises linearly to `kl_weight`, step by step, from its share of one
            step (Bowman et al. 2016, Sønderby et al. 2016).
        clip_norm: Bound on the norm of the whole gradient.
        patience: Stop after so many epochs without a higher validation ELBO, the warm-up not counted.
        keep: Which parameters the model has in the end, those of the best epoch or of the last.
        compile: How steps are taken. `off`: by Pyro's SVI, as above. `flat`: by the flat graph of
            torch operations that the programs consist of (see `CompiledELBO`), with the same results to the
            last bit. `inductor`: by that graph compiled, which needs a C++ compiler and 5 to 20 seconds, and
            then takes the least time. `auto`: 500 steps by SVI, and from there by the flat graph, on a CPU
            with operations that are faster and round differently, on a GPU with the whole step as one CUDA
            graph; `inductor` has these, too. Where a program
            cannot be a flat graph, a warning says why, and steps are those of SVI.
        precision: Of the networks in training: `full` is the type of the parameters, `bfloat16` computes
            matrix products and convolutions with 8 significant bits. Parameters, densities, sums and the
            optimiser keep their type, and validation is in full.
        seed: Of the order, the binarisation noise and the draws of z.
        device: Where to train, as `cpu` or `cuda:1`; `auto` takes a GPU where there is one.
        checkpoints: Folder for last.pt and best.pt, written after each epoch; None for none.
        resume: Go on from last.pt in `checkpoints`, if it is there, ending as if never stopped (on a CPU,
            to the last bit).
        on_start: Called when model, data and options have been checked, before checkpoints are read.
        callbacks: Called as callback(vae, history) after each epoch; training ends where one returns True.
        progress: Show a progress bar; by default on a terminal only.

    Raises:
        InputError: where an argument cannot be used, or the data do not fit the model.
        NonFiniteLossError: where the loss is NaN or infinite, the parameters then being those before
            that step; or where a step has made a parameter so, which is noticed after the epoch.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> history = fit(assemble(data), data, epochs=2)
    >>> history.epochs[1].train_elbo > history.epochs[0].train_elbo
    True
    """
    if not isinstance(vae, JointProgram):
        raise InputError(f"fit expects a VAE or another JointProgram, got {type(vae).__name__}")
    if keep not in ("best", "last"):
        raise InputError(f"keep expects 'best' or 'last', got {keep!r}")
    place = resolve_device(device)
    check(vae, data)
    trainer = Trainer(
        vae.to(place),
        data,
        place,
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        optimiser=optimiser,
        schedule=schedule,
        objective=objective,
        num_particles=num_particles,
        kl_weight=kl_weight,
        kl_warm_up=kl_warm_up,
        clip_norm=clip_norm,
        patience=patience,
        compile=compile,
        precision=precision,
        seed=seed,
        folder=None if checkpoints is None else Path(checkpoints),
    )
    if isinstance(trainer.objective, TraceMeanField_ELBO):
        with pyro.get_param_store().scope(), own_randomness(0, place):
            check_mean_field(vae.model, vae.guide, vae.place(trainer.train.batch(slice(0, 2))))
    if on_start is not None:
        on_start()
    trainer.drop_gradients()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(pyro.get_param_store().scope())
            stack.enter_context(own_randomness(seed, place))
            stack.enter_context(trainer.steps.recorder or nullcontext())
            bar = stack.enter_context(_bar(trainer, progress))
            if resume:
                trainer.load()
                bar.update(trainer.step)
            else:
                _check_free(trainer.folder)
            trainer.run(callbacks, bar)
    finally:
        trainer.drop_gradients()
        vae.eval()
    if keep == "best":
        trainer.restore_best()
    return trainer.history


def check(vae: JointProgram, data: Dataset) -> None:
    """Hold all splits of `data`, as they will be used, against the model, and run both programs once.

    Raises:
        InputError: where the data's shape or values do not fit, or the programs' shapes do not.
    """
    was_training = vae.training
    vae.eval()
    try:
        with pyro.get_param_store().scope(), own_randomness(0, vae.device):
            for split in (data.train, data.valid, data.test):
                for start in range(0, len(split), 1000):
                    x = split.batch(slice(start, start + 1000))
                    vae.check(vae.place(x))
            elbo(vae.model, vae.guide, vae.place(data.train.batch(slice(0, 2))))
    finally:
        vae.train(was_training)


def _check_free(folder: Path | None) -> None:
    """Refuse to write over the checkpoints of another training."""
    if folder is not None and any((folder / name).exists() for name in ("last.pt", "best.pt")):
        raise InputError(
            f"{folder} holds the checkpoints of a training: go on with resume=True, or give another folder"
        )


def resolve_device(device: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one, else the CPU.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.zeros(1, device=device)
        place.item()  # a device without data, such as meta, cannot train
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"expected a device such as auto, cpu or cuda:0, got {device!r} ({reason})"
        ) from error
    return place.device


def _bar(trainer: Trainer, progress: bool | None) -> "tqdm[Any]":
    disable = None if progress is None else not progress
    return tqdm(total=trainer.total_steps, unit="step", disable=disable, dynamic_ncols=True, mininterval=0.2)
