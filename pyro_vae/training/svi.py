"""`fit`: stochastic variational inference for any model and guide."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.compiled import Compile
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError
from pyro_vae.programs import Program
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import own_randomness
from pyro_vae.ranks import join
from pyro_vae.spellings import hinted
from pyro_vae.storage.locks import locked
from pyro_vae.tracking import Track, Tracking, tracker_of
from pyro_vae.training.history import History
from pyro_vae.training.loop import Callback, Loop
from pyro_vae.training.options import FitOptions, Keep, MakeOptimiser, MakeSchedule, Per, Precision
from pyro_vae.training.programs import HasPrograms, what_is_trained
from pyro_vae.training.trainer import Trainer
from pyro_vae.training.weights import without


@hinted
def fit(
    program: HasPrograms | tuple[Program, Program],
    data: Dataset | Batch | Tensor | NDArray[Any],
    *,
    epochs: int = FitOptions.epochs,
    steps: int | None = FitOptions.steps,
    batch_size: int = FitOptions.batch_size,
    optimiser: MakeOptimiser = FitOptions.optimiser,
    schedule: MakeSchedule | None = FitOptions.schedule,
    schedule_per: Per | None = FitOptions.schedule_per,
    objective: Callable[..., ELBO] = FitOptions.objective,
    num_particles: int = FitOptions.num_particles,
    kl_weight: float | Callable[[int], float] = FitOptions.kl_weight,
    kl_warm_up: int | None = FitOptions.kl_warm_up,
    kl_cycle: int = FitOptions.kl_cycle,
    weight: str | None = FitOptions.weight,
    clip_norm: float | None = FitOptions.clip_norm,
    patience: int | None = FitOptions.patience,
    keep: Keep = FitOptions.keep,
    compile: Compile = FitOptions.compile,
    precision: Precision = FitOptions.precision,
    seed: int = FitOptions.seed,
    device: str = FitOptions.device,
    checkpoints: Path | str | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    on_start: Callable[[], object] | None = None,
    callbacks: Sequence[Callback] = (),
    track: Track = None,
    progress: bool | None = None,
) -> History:
    """Train a model and guide by stochastic variational inference.

    With loss = objective(num_particles=K), each step is that of Pyro's `SVI(model, guide, optimiser, loss)`,
    `step(x, **given)` on a batch x and what is given beside it, both programs under `KLWeight` where β is not
    1, with one torch optimiser over all parameters, and with Pyro's validation on for the first step and off
    after; `compile` says by which way. The data lie in memory on the device. Epoch e takes its order and its
    binarisation noise from `data.batches(..., seed=seed, epoch=e)`; where all data are one batch they keep
    their own order. All draws of z come from torch's global generator, seeded once with `seed` and given back
    as it was found. On a CPU, the same seed gives the same parameters, to the last bit.

    A `JointProgram`, as a `VAE`, is moved to the device and trained in place. Its parameters are those of
    the module, its objective is made for one plate and several particles at once, and Pyro's parameter store
    is left as it was found.

    Any other model and guide are trained where they are. Their parameters are those that the first step
    finds or creates in Pyro's store, by `pyro.module`, `pyro.param`, a `PyroModule` or an autoguide. There
    they start from what they are, and there they stay; nothing else in the store is touched. A parameter
    that only a later step creates is refused, and one that gets no gradient in a step stays as it is, where
    Pyro's optimisers may move it on by momentum. The objective is made as by `objective(num_particles=K)`,
    so that plates are found out and particles follow one another, unless it is a `partial` that says
    otherwise. A checkpoint holds the parameters, unconstrained, by their names in the store, and the buffers
    of all modules that the programs reach. The validation ELBO is that of `elbo`; programs for which it
    cannot be told are refused before the first update, and train where there is no validation split.

    Under torchrun, or `srun` with MASTER_ADDR and MASTER_PORT, all processes (ranks) of torch.distributed
    share the training: each has its rows of every batch, gradients are summed before the optimiser's
    step, and noise and draws are those of the whole batch, so that losses and parameters are those of one
    process up to rounding, by whatever number of ranks; where something depends on the whole batch or draws
    outside of sites, as batch norm and dropout, a warning says so. The first rank measures the validation
    data, calls the callbacks and writes; training may be continued by another number of ranks.

    In both cases modules are in training mode for the steps, in evaluation mode for validation, and left in
    evaluation mode.

    Args:
        program: A module or another object with a Pyro `model` and `guide`, or both as (model, guide).
        data: Training data; its validation split is used to choose the best epoch. A tensor or
            an array (N, …) is training data without a validation split, and used as it is. Batches are cast
            to the type of the parameters, except that whole numbers in a tensor or an array stay whole for
            any programs but a `JointProgram`. What the programs take beside x, as `model(x, label)`, is
            given by name: by a `Batch`, or by the fields of a data set in its `given`. Other things, as a
            `DataLoader`, are refused in a line that says what to give instead.
        epochs: Passes over the training data.
        steps: Steps in all, instead of `epochs`; the last epoch may then be a part of one.
        batch_size: Data per step; the last batch of an epoch may be smaller.
        optimiser: Makes a torch optimiser from the parameters, those of Pyro's store in the order of their
            names; by default Adam at 1e-3.
        schedule: Makes a learning-rate schedule from the optimiser. An argument `total_steps` that it has
            and was not given, as of `partial(OneCycleLR, max_lr=1e-2)`, is filled in. `ReduceLROnPlateau`
            follows the validation ELBO upwards, whichever its mode, the warm-up not counted.
        schedule_per: Whether the schedule is stepped after each `epoch` or after each `step`; by default as
            it counts: `OneCycleLR`, `CyclicLR` and what is made with `total_steps` by step, others by epoch.
        objective: Makes what is maximised from the number of particles: an ELBO of Pyro's, as `Trace_ELBO`
            or `TraceMeanField_ELBO` (analytic KL), or of this package, as `ImportanceWeightedELBO` or
            `FreeBitsELBO`; or a `partial` of one with its own choices. Whatever it is, the ELBO without
            weights is what is logged, and what the best epoch is chosen by. For a program that sums labels
            out, as `SemiSupervisedVAE`, the ELBO is that by `TraceEnum_ELBO`.
        num_particles: Draws of z per datum and step.
        kl_weight: β on the KL term in training (β-VAE, Higgins et al. 2017), or a function that gives it for
            step 1, 2, ….
        kl_warm_up: Epochs over which β rises linearly to `kl_weight`, step by step, from its share of one
            step (Bowman et al. 2016, Sønderby et al. 2016), 0 for none; by default none, or over as much of
            the training as the prior of a `JointProgram` asks for: the first half with a `VampPrior`.
        kl_cycle: Epochs after which the warm-up begins anew, 0 for never: cyclical annealing (Fu et al.
            2019), whose authors warm up for half of each cycle, and have four of them.
        weight: Name of a field of the training data, w_n from 0 for each datum: Σ_n w_n ELBO_n is maximised,
            with weights divided by their mean. What is logged, and all else, is without them.
        clip_norm: Bound on the norm of the whole gradient.
        patience: Stop after so many epochs without a higher validation ELBO, the warm-up not counted.
        keep: Which parameters the model has in the end, those of the best epoch or of the last.
        compile: How steps are taken. `off`: by Pyro's SVI, as above. `flat`: by the flat graph of
            torch operations that the programs consist of (see `CompiledELBO`), with the same results to the
            last bit. `inductor`: by that graph compiled, which needs a C++ compiler and some 30 seconds, and
            then takes the least time. `auto`: 500 steps by SVI, and from there by the flat graph, on a CPU
            with operations that are faster and round differently, on a GPU with the whole step as one CUDA
            graph; `inductor` has these, too. On a CPU, `inductor`, and `auto` in a training of 20,000 steps
            or more, compile batch, noise, loss, gradients and Adam or AdamW together, without Python between
            them, and keep the library in TORCHINDUCTOR_CACHE_DIR or ~/.cache/pyro_vae, so that the same
            training begins at once the next time. A compiled step is of full batches, by one process. Where a
            program cannot be a flat graph, a warning says why, and steps are those of SVI.
        precision: Of the networks in training: `full` is the type of the parameters, `bfloat16` computes
            matrix products and convolutions with 8 significant bits. Parameters, densities, sums and the
            optimiser keep their type, and validation is in full.
        seed: Of the order, the binarisation noise and the draws of z.
        device: Where to train, as `cpu`, `cuda:1` or `mps`; `auto` takes a GPU where there is one. Programs
            that are no `JointProgram` are not moved: their data are.
        checkpoints: Folder for last.pt and best.pt, written after the first two epochs, after the last, and
            between them as often as it takes at most a tenth of the time; None for none.
        resume: Go on from last.pt in `checkpoints`, if it is there, ending as if never stopped (on a CPU,
            to the last bit); with more `epochs`, `steps` or `patience` than before, for longer.
        about: What is kept in each checkpoint beside the parameters: numbers, words, lists and dictionaries.
        on_start: Called when model, data and options have been checked, before checkpoints are read.
        callbacks: Called as callback(program, history) after each epoch; training ends where one returns
            True.
        track: Where each epoch is taken down for somebody who watches: `tensorboard`, `wandb`, `mlflow` or
            `csv`, or a `Tracker`, with files in the folder tracking within `checkpoints`. An error there
            ends no training.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: where an argument cannot be used, or the data do not fit the model; where there is nothing
            to train, or a parameter gets a gradient but is not one of those that are optimised.
        NonFiniteLossError: where the loss is NaN or infinite, the parameters then being those before
            that step; or where a step has made a parameter so, which is noticed after the epoch.
        LostRankError: where another rank has ended.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> history = fit(assemble(data), data, epochs=2)
    >>> history.epochs[1].train_elbo > history.epochs[0].train_elbo
    True

    Any Pyro script:

    >>> import pyro
    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     weight = pyro.param("weight", torch.tensor(0.1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(weight * x, 0.7))
    >>> history = fit((model, guide), torch.randn(200), epochs=5)
    >>> history.ended_by
    'budget'

    What such programs take beside x is given by name, in a `Batch`:

    >>> def shifted(x, shift):
    ...     model(x - shift)
    >>> def shifted_guide(x, shift):
    ...     guide(x - shift)
    >>> data = Batch(torch.randn(200) + 3, {"shift": torch.full((200,), 3.0)})
    >>> fit((shifted, shifted_guide), data, epochs=2).epochs[0].step
    2
    """
    options = FitOptions(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        optimiser=optimiser,
        schedule=schedule,
        schedule_per=schedule_per,
        objective=objective,
        num_particles=num_particles,
        kl_weight=kl_weight,
        kl_warm_up=kl_warm_up,
        kl_cycle=kl_cycle,
        weight=weight,
        clip_norm=clip_norm,
        patience=patience,
        keep=keep,
        compile=compile,
        precision=precision,
        seed=seed,
        device=device,
    )
    folder, ranks = None if checkpoints is None else Path(checkpoints), join()
    trainer = prepared(program, data, options, folder, about or {})
    tracking = Tracking(tracker_of(track), folder)
    if on_start is not None:
        on_start()
    ranks.from_first(lambda: None)  # all have checked, and the first has made the folder
    try:
        with ExitStack() as stack:
            stack.enter_context(interruptible("fit", folder))
            stack.enter_context(under_way(trainer))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(trainer.programs.store())
            stack.enter_context(own_randomness(trainer.seed, trainer.device))
            bar = stack.enter_context(
                progress_bar(
                    progress if ranks.first else False,
                    total=trainer.total_steps,
                    desc="training",
                    unit="steps",
                    mininterval=0.2,
                    delay=0,
                )
            )
            begin(trainer, resume)
            bar.update(trainer.step)
            stack.callback(tracking.end)
            tracking.start(configuration(program, options, trainer.about))
            Loop(trainer, [tracking.after_epoch, *callbacks], bar).run()
    finally:
        trainer.programs.eval()
    if options.keep == "best":
        trainer.restore_best()
    return trainer.history


def configuration(program: object, options: FitOptions, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a training depends on, for its tracker."""
    name = "model and guide" if isinstance(program, tuple) else type(program).__name__
    return {"program": name, **options.in_words(), **about}


def prepared(
    program: HasPrograms | tuple[Program, Program],
    data: Dataset | Batch | Tensor | NDArray[Any],
    options: FitOptions,
    folder: Path | None,
    about: Mapping[str, Any],
    *,
    weighs: bool = False,
) -> Trainer:
    """A training whose model, data and options have been checked."""
    splits, trained = what_is_trained(program, data, options.device)
    splits = without(splits, options.weight)
    trained.check(splits)
    return Trainer(trained, splits, options, folder, about, weighs=weighs)


@contextmanager
def interruptible(function: str, folder: Path | None) -> Iterator[None]:
    """Around a training: an interruption says how it goes on."""
    try:
        yield
    except KeyboardInterrupt as end:
        where = repr(str(folder)) if folder is not None else "FOLDER"
        call = f"{function}(..., checkpoints={where}, resume=True)"
        lost = "nothing was written to go on from; the next time, give checkpoints, and "
        end.add_note(f"{'' if folder is not None else lost}{call} goes on from the last checkpoint")
        raise


@contextmanager
def under_way(trainer: Trainer) -> Iterator[None]:
    """Around a training: its folder is its own, and its parameters have no gradients of others."""
    with ExitStack() as stack:
        if trainer.folder is not None and trainer.ranks.first:
            trainer.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(trainer.folder))
        stack.enter_context(trainer.programs.gradients_aside())
        stack.enter_context(trainer.steps.recorder or nullcontext())
        yield


def begin(trainer: Trainer, resume: bool) -> None:
    """Go on from its checkpoints, or refuse to write over those of another."""
    if resume:
        trainer.load()
    else:
        _check_free(trainer.folder)
    if trainer.ranks.several:
        budget = {"step": trainer.step, "steps": trainer.total_steps, "patience": trainer.patience}
        trainer.ranks.check_alike({**budget, "training data": trainer.train.hash(), **trainer.settings})


def _check_free(folder: Path | None) -> None:
    """Refuse to write over the checkpoints of another training."""
    if folder is not None and any((folder / name).exists() for name in ("last.pt", "best.pt")):
        raise InputError(
            f"{folder} holds the checkpoints of a training: go on with resume=True, or give another folder"
        )
