"""`fit_many`: several trainings at once."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pyro_vae.compiled.memory import available, in_words
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, NonFiniteLossError, count, seed_number
from pyro_vae.priors import asks_for_warm_up
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import own_randomness
from pyro_vae.ranks import join
from pyro_vae.spellings import ARGUMENTS
from pyro_vae.tracking import Tracker, Tracking, tracker_of
from pyro_vae.training.history import History
from pyro_vae.training.loop import Callback, Loop
from pyro_vae.training.options import FIT_OPTIONS, FitOptions, words_of
from pyro_vae.training.svi import begin, configuration, interruptible, prepared, under_way
from pyro_vae.training.together import Running, Together
from pyro_vae.training.trained import resolve_device
from pyro_vae.vae import JointProgram


@dataclass(frozen=True, eq=False)
class Task:
    """A training to be done: what `fit` takes."""

    program: JointProgram
    data: Dataset
    options: FitOptions
    folder: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """One of several trainings that have ended.

    >>> from pyro_vae import Digits, Epoch, assemble
    >>> program = assemble(Digits())
    >>> epochs = [Epoch(1, 13, -40.0, elbo, elbo + 4, 4.0, 1e-3, 1.0, 0.2) for elbo in (-31.5, -30.5)]
    >>> histories = [History([epoch], best_epoch=1) for epoch in epochs]
    >>> members = [Fitted(program, history, seed, {}) for seed, history in enumerate(histories)]
    >>> max(members, key=lambda member: member.history.best_valid_elbo).seed
    1
    """

    #: Trained, with the parameters that `keep` says.
    program: JointProgram
    history: History
    seed: int
    #: What it differs in from others, besides the seed.
    choices: Mapping[str, Any]
    #: What has ended it before its time, as `fit` would have raised it; None as a rule.
    error: NonFiniteLossError | None = None


def fit_many(
    make: Callable[..., JointProgram],
    data: Dataset,
    *,
    seeds: int | Sequence[int] = 1,
    each: Sequence[Mapping[str, Any]] = ({},),
    checkpoints: Path | str | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    track: str | Callable[[], Tracker] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> list[Fitted]:
    """Train several models at once, each as `fit` would train it by itself.

    Member m maximises its own objective from its own seed s_m,

        θ_m ← argmax Σ_n ELBO(x_n; θ_m),   m = 1 … M,

    with order of the data, noise of the batches and draws of z all from s_m, as in
    `torch.manual_seed(s); fit(make(), data, seed=s, **options)`. The steps of all are one batched program:
    the flat graph of the first member's loss and gradients (see `fit`, `compile`) under `torch.vmap`,
    over parameters in stacks (M, …), with draws made member by member, and one fused Adam. So a member's
    parameters are those of a training by itself up to rounding. In the first two steps of each size of batch
    that is held against the members' own programs; where there is no batched program, or it does not
    agree, one warning says why, and the members take their steps one after the other.

    A member that ends, by its budget, its patience, a callback or a loss that is not finite, is left as it
    is, and the others go on. Each has a history, a best epoch and checkpoints of its own.

    Args:
        make: Makes a model, after `torch.manual_seed(s)` for each seed s. It gets those of `each` that are no
            options of `fit`, by name.
        data: As in `fit`.
        seeds: How many, as 0, 1, …, or which.
        each: In what else members differ, as `[{"kl_weight": 0.5}, {"kl_weight": 1.0}]`; each with each seed.
            What changes the loss in another way than by numbers in tensors, as another network, is not
            batched with the rest.
        checkpoints: Folder in which each member has one of its own, seed-0, seed-1, …, or with several of
            `each` 0-seed-0, …; None for none.
        resume: Go on from the checkpoints, each member from its own; one that has none begins.
        callbacks: Called for each member, as callback(program, history), after each of its epochs.
        track: How each member is taken down, by a tracker of its own: a name as in `fit`, or what makes one,
            as a class that derives from `Tracker`.
        progress: Show one progress bar; by default in a terminal and in a notebook.
        **options: Of `fit`, the same for all: epochs, batch_size, optimiser, …. A batched program is not
            compiled, also with `compile="inductor"`.

    Returns:
        The members in the order of `each`, and within it of the seeds. The seconds of an epoch are those of
        all members together.

    Raises:
        InputError: where an option cannot be used, or a member does not fit the data.

    Warns:
        UserWarning: where members are trained one after the other.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> members = fit_many(lambda: assemble(data, latent_dim=2), data, seeds=3, epochs=1)
    >>> [member.seed for member in members], members[0].history.epochs[0].step
    ([0, 1, 2], 13)
    """
    _check_names(options, each)
    for choice in each:
        _check_choice(make, choice)
    folder = None if checkpoints is None else Path(checkpoints)
    tasks, choices = [], []
    for number, choice in enumerate(each):
        for seed in seeds_of(seeds):
            named = f"{number}-seed-{seed}" if len(each) > 1 else f"seed-{seed}"
            with own_randomness(seed, torch.device("cpu")):
                program = make(**{name: value for name, value in choice.items() if name not in FIT_OPTIONS})
            own = {name: value for name, value in choice.items() if name in FIT_OPTIONS}
            fit_options = FitOptions(**{**options, **own, "seed": seed})
            place = None if folder is None else folder / named
            tasks.append(Task(program, data, fit_options, place, callbacks=callbacks))
            choices.append(choice)
    _check_apart([task.program for task in tasks])
    with interruptible("fit_many", folder), ExitStack() as stack:
        trackings = [Tracking(_tracker(track), task.folder) for task in tasks]

        def start() -> None:
            for task, choice, tracking in zip(tasks, choices, trackings, strict=True):
                stack.callback(tracking.end)
                tracking.start(configuration(task.program, task.options, words_of(choice)))

        tasks = [
            replace(task, callbacks=[tracking.after_epoch, *callbacks])
            for task, tracking in zip(tasks, trackings, strict=True)
        ]
        found = fit_together(tasks, resume=resume, progress=progress, on_begin=start)
    return [replace(one, choices=choice) for one, choice in zip(found, choices, strict=True)]


def _tracker(track: str | Callable[[], Tracker] | None) -> Tracker:
    """One for each member."""
    if isinstance(track, Tracker):
        raise InputError(
            f"track expects what makes a tracker for each member, got a {type(track).__name__}: give its "
            "class, or a function that returns a new one"
        )
    return tracker_of(track() if callable(track) else track)


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Seeds as they are given, as a number of them or one by one.

    >>> seeds_of(3), seeds_of([3, 5, 8])
    ([0, 1, 2], [3, 5, 8])
    """
    if isinstance(seeds, Sequence):
        numbers = [seed_number(seed) for seed in seeds]
        if not numbers or len({*numbers}) < len(numbers):
            raise InputError(f"seeds expects one seed or more, each once, got {list(seeds)}")
        return numbers
    return list(range(count("seeds", seeds)))


def _check_names(options: Mapping[str, Any], each: Sequence[Mapping[str, Any]]) -> None:
    for name in options:
        if name not in FIT_OPTIONS or name == "seed":
            raise InputError(f"fit_many expects options of fit, got {name!r}: " + _instead_of(name))
    if not each:
        raise InputError("each expects the choices of one member or more, got none: leave it out")


def _instead_of(name: str) -> str:
    """What to give in the place of an unknown option."""
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    return "give seeds" if name == "seed" else "give what `make` takes in each, as each=[{...}]"


def _check_choice(make: Callable[..., JointProgram], choice: Mapping[str, Any]) -> None:
    """Refuse in `each` what neither `fit` nor `make` takes."""
    if "seed" in choice:
        raise InputError(f"each expects no seed, got {choice['seed']!r}: give seeds, as seeds=[3, 4]")
    own = {name: value for name, value in choice.items() if name not in FIT_OPTIONS}
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of what is written in C
        return
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    for name in own:
        if name not in signature.parameters and not takes_any:
            raise InputError(
                f"each got {name!r}, which is neither an option of fit nor an argument of make{signature}: "
                "leave it out, or let make take it"
            )
    try:
        signature.bind(**own)
    except TypeError as error:
        raise InputError(f"make{signature} cannot be called with {sorted(own)} of each: {error}") from error


def _check_apart(programs: Sequence[JointProgram]) -> None:
    """Refuse members that would train the same tensor."""
    if len({*map(id, programs)}) < len(programs):
        raise InputError("make expects to make a new model at each call, got the same one twice")
    owners: dict[int, int] = {}
    for number, program in enumerate(programs):
        for name, parameter in program.named_parameters():
            if parameter.requires_grad and owners.setdefault(id(parameter), number) != number:
                raise InputError(
                    f"make expects to make new parameters at each call, got {name!r} in two members: make "
                    "its module within make, or freeze it by requires_grad_(False)"
                )


def _weighs(task: Task) -> bool:
    """Whether its KL term has another weight than 1 in some step."""
    options = task.options
    asked = options.prior_warms_up and asks_for_warm_up(task.program) is not None
    return options.kl_weight != 1 or bool(options.kl_warm_up) or asked


#: A parameter, its gradient, two states of Adam, and the best epoch.
_COPIES = 5


def _check_memory(tasks: Sequence[Task]) -> None:
    """Refuse more members than memory holds."""
    device = resolve_device(tasks[0].options.device)
    sizes = [sum(p.numel() * p.element_size() for p in task.program.parameters()) for task in tasks]
    needed, free = _COPIES * sum(sizes), available(device)
    if needed > free:
        raise InputError(
            f"{len(tasks)} members take {in_words(needed)}, for parameters of {in_words(max(sizes))} each "
            "with gradient, states of the optimiser and a copy of the best, got "
            f"{in_words(free)} free on {device}: give fewer seeds at a time"
        )


def fit_together(
    tasks: Sequence[Task],
    *,
    resume: bool,
    progress: bool | None = None,
    on_start: Callable[[], object] = lambda: None,
    on_begin: Callable[[], object] = lambda: None,
    on_apart: Callable[[str], object] | None = None,
) -> list[Fitted]:
    """Train all at once.

    Args:
        tasks: One or more.
        resume: Go on from their checkpoints.
        progress: Show one progress bar; by default in a terminal and in a notebook.
        on_start: Called when all have been checked, before checkpoints are read.
        on_begin: Called before the first step.
        on_apart: Called with the reason where they turn out not to be batched; by default it is a warning.
    """
    join().only_one("training several models at once")
    _check_memory(tasks)
    weighs = any(_weighs(task) for task in tasks)
    trainers = [
        prepared(task.program, task.data, task.options, task.folder, task.about, weighs=weighs)
        for task in tasks
    ]
    on_start()
    try:
        with ExitStack() as stack:
            for trainer in trainers:
                stack.enter_context(under_way(trainer))
            stack.enter_context(torch.enable_grad())
            total = max(trainer.total_steps for trainer in trainers)
            bar = stack.enter_context(
                progress_bar(
                    progress,
                    total=total,
                    desc=f"training {len(tasks)} models",
                    unit="steps of each",
                    mininterval=0.2,
                    delay=0,
                )
            )
            trainings = [
                Running(Loop(trainer, task.callbacks, bar))
                for trainer, task in zip(trainers, tasks, strict=True)
            ]
            for each in trainings:
                with each.own():
                    begin(each.trainer, resume)
            bar.update(min(trainer.step for trainer in trainers))
            on_begin()
            Together(trainings, bar, on_apart).run()
    finally:
        for trainer in trainers:
            trainer.programs.eval()
    for each, task in zip(trainings, tasks, strict=True):
        if task.options.keep == "best" and each.error is None:
            each.trainer.restore_best()
    return [
        Fitted(task.program, each.trainer.history, each.trainer.seed, {}, each.error)
        for each, task in zip(trainings, tasks, strict=True)
    ]
