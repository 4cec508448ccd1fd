"""Several trainings in lock-step: each with a state of its own, their steps taken at once."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from tqdm import tqdm

from pyro_vae.compiled import Apart, Regroup, Run, Untraceable
from pyro_vae.compiled.policy import Speaker
from pyro_vae.errors import NonFiniteLossError
from pyro_vae.precision import wide
from pyro_vae.randomness import OwnStream
from pyro_vae.training.loop import Loop, Measure, Request, TakeSteps
from pyro_vae.training.steps_of_many import StepsOfMany
from pyro_vae.training.trainer import Trainer
from pyro_vae.training.validation import Means


class Running:
    """One of several trainings.

    Args:
        loop: Runs it.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop, self.trainer = loop, loop.trainer
        self.stream = OwnStream(self.trainer.seed, self.trainer.device)
        self.epochs: Generator[Request, Any, None] = loop.epochs()
        #: What it asks for; None once it has ended.
        self.request: Request | None = None
        #: What has ended it before its time.
        self.error: NonFiniteLossError | None = None

    @contextmanager
    def own(self) -> Iterator[None]:
        """Its random numbers, and the names of its parameters."""
        with self.stream(), self.trainer.programs.store():
            yield

    def go_on(self, answer: Any = None) -> None:
        """Answer its request, so that it makes the next one."""
        with self.own():
            try:
                self.request = self.epochs.send(answer)
            except StopIteration:
                self.request = None
            except NonFiniteLossError as error:
                self.end(error)

    def end(self, error: NonFiniteLossError) -> None:
        """End it before its time."""
        self.request, self.error = None, error
        self.epochs.close()


class Together:
    """Runs several trainings from where they are.

    Those with the fewest steps go on, all at once, until they have caught up with the others.

    Args:
        trainings: What is run.
        bar: Moved at each step.
        on_apart: Called with the reason where they turn out not to be batched; by default it is a warning.
    """

    def __init__(
        self,
        trainings: Sequence[Running],
        bar: "tqdm[Any]",
        on_apart: Callable[[str], object] | None = None,
    ) -> None:
        self.trainings, self.bar, self.on_apart = trainings, bar, on_apart
        for each in trainings:
            each.trainer.pace.share /= len(trainings)
        self.speaker = Speaker("fit_many")
        #: Why they are not batched; empty while they are.
        self.apart_because = _obstacle([each.trainer for each in trainings])
        self.told = False
        self.steps: StepsOfMany | None = None
        #: Those that the batched programs are of.
        self.batched: list[Running] = []

    def run(self) -> None:
        """Until all have ended."""
        try:
            for each in self.trainings:
                each.go_on()
            while waiting := [each for each in self.trainings if each.request is not None]:
                fewest = min(each.trainer.step for each in waiting)
                now = [each for each in waiting if each.trainer.step == fewest]
                self._answer(now)
        finally:
            self._close()

    def _answer(self, waiting: Sequence[Running]) -> None:
        """Do what those ask for that are last in their epoch, or else what all ask for."""
        kind = min((type(each.request) for each in waiting), key=(Measure, TakeSteps).index)
        now = [each for each in waiting if type(each.request) is kind]
        answers = self._take_steps(now) if kind is TakeSteps else self._measure(now)
        for each, answer in zip(now, answers, strict=True):
            if answer is not None:
                each.go_on(answer)
            if each.request is None:
                self._let_go(each)

    def _take_steps(self, now: Sequence[Running]) -> list[float | None]:
        """The steps of an epoch of each; None for one that they have ended."""
        parts = [_parts(each) for each in now]
        sums: list[float | Tensor] = [0.0] * len(now)
        seen = [0] * len(now)
        with ExitStack() as stack:
            for each in now:
                stack.enter_context(each.trainer.steps.epoch())
            if self.steps is not None:
                self.steps.look_again()
            while indices := _next(now, parts):
                found = self._step([now[number] for number in indices], [*indices.values()])
                for (number, index), elbo in zip(indices.items(), found, strict=True):
                    seen[number] += len(index)
                    if isinstance(elbo, NonFiniteLossError):
                        now[number].end(elbo)
                    else:
                        sums[number] = sums[number] + wide(elbo)
                self._show(found, [*indices.values()], len(now[0].trainer.history.epochs) + 1)
            if self.steps is not None:
                self.steps.settle()
        return [
            float(total) / number if each.request else None
            for total, number, each in zip(sums, seen, now, strict=True)
        ]

    def _step(self, now: Sequence[Running], indices: Sequence[Tensor]) -> list[Tensor | NonFiniteLossError]:
        """One step of each."""
        if len(now) > 1 and not self.apart_because and all(each.trainer.steps.validated for each in now):
            try:
                found = self._engine(now).take(indices)
                return [found[self.batched.index(each)] for each in now]
            except Regroup:
                self._close()
                return self._step(now, indices)
            except Untraceable as error:
                self.apart_because = str(error)
                self._say()
                if isinstance(error, Apart):
                    self._close()
                    return [_finished(each, error, self.batched.index(each)) for each in now]
        if len(now) > 1 and self.apart_because:
            self._say()
        self._close()
        return [_alone(each, index) for each, index in zip(now, indices, strict=True)]

    def _say(self) -> None:
        """Say once why they are not batched."""
        if self.told:
            return
        self.told = True
        if self.on_apart is not None:
            self.on_apart(self.apart_because)
            return
        self.speaker.say(f"takes the steps of one after the other, not batched: {self.apart_because}")

    def _engine(self, now: Sequence[Running]) -> StepsOfMany:
        """The batched program of these and no others, or of few others that have ended."""
        if self.steps is not None:
            going = [self.batched[place] for place in self.steps.active]
            if going == list(now) and 2 * len(going) > len(self.batched):
                return self.steps
        self._close()
        self.batched = list(now)
        self.steps = StepsOfMany([each.trainer for each in now], [each.stream for each in now])
        return self.steps

    def _measure(self, now: Sequence[Running]) -> list[Means]:
        """The validation of each."""
        if self.steps is not None and [self.batched[place] for place in self.steps.active] == list(now):
            try:
                found = self.steps.measure()
            except Regroup:
                found = None
            except Untraceable as error:
                self.steps.measures = None
                self.speaker.say(f"measures one validation after the other: {error}")
                found = _measured_by_runs(error.runs) if isinstance(error, Apart) else None
            if found is not None:
                return [found[place] for place in self.steps.active]
        return [_measured(each) for each in now]

    def _let_go(self, one: Running) -> None:
        """Leave one as it is, which has ended."""
        if self.steps is not None and one in self.batched:
            place = self.batched.index(one)
            if place in self.steps.active:
                self.steps.let_go(place)

    def _close(self) -> None:
        if self.steps is not None:
            self.steps.close()
            self.steps = None

    def _show(
        self, found: Sequence[Tensor | NonFiniteLossError], indices: Sequence[Tensor], epoch: int
    ) -> None:
        """Move the bar; of the ELBOs the mean."""
        if self.bar.update() and not self.bar.disable:
            pairs = zip(found, indices, strict=True)
            elbos = [float(each) / len(index) for each, index in pairs if isinstance(each, Tensor)]
            mean = sum(elbos) / len(elbos) if elbos else math.nan
            self.bar.set_postfix_str(f"epoch {epoch}, mean ELBO {mean:.2f}", refresh=False)


def _obstacle(trainers: Sequence[Trainer]) -> str:
    """Why trainings cannot be batched, as far as their options say; empty where nothing is against it."""
    if len(trainers) == 1:
        return ""
    if trainers[0].options.compile == "off":
        return "compile is 'off'"
    names = ("batch_size", "steps", "num_particles", "precision", "weight", "compile")
    for name in names:
        values = list(dict.fromkeys(getattr(each.options, name) for each in trainers))
        if len(values) > 1:
            return f"{name} is {values[0]!r} for one and {values[1]!r} for another"
    sizes = {len(each.train) for each in trainers}
    return f"their training data are of {len(sizes)} sizes" if len(sizes) > 1 else ""


def _parts(one: Running) -> Iterator[Tensor]:
    """The order of its data, batch by batch."""
    assert isinstance(one.request, TakeSteps)
    return one.trainer.steps.feed.batches(one.request.order)


def _next(now: Sequence[Running], parts: Sequence[Iterator[Tensor]]) -> dict[int, Tensor]:
    """The next batch of each that has one in this epoch and in its budget, by its place."""
    going = [
        place
        for place, each in enumerate(now)
        if each.request is not None and each.trainer.step < each.trainer.total_steps
    ]
    found = ((place, next(parts[place], None)) for place in going)
    return {place: index for place, index in found if index is not None}


def _measured(one: Running) -> Means:
    """The validation of one by itself."""
    with one.trainer.programs.store():
        return one.trainer.validation.measure()


def _measured_by_runs(runs: Mapping[int, Run]) -> dict[int, Means]:
    """The validation of each by itself, as it was run to be held against a batched one."""
    means = {}
    for place, run in runs.items():
        elbo, reconstruction, kl = map(float, run.result.values)
        means[place] = elbo, reconstruction, kl
    return means


def _alone(one: Running, index: Tensor) -> Tensor | NonFiniteLossError:
    """A step of one by its own engine."""
    with one.own():
        try:
            return one.trainer.take_step(index)
        except NonFiniteLossError as error:
            return error


def _finished(one: Running, found: Apart, place: int) -> Tensor | NonFiniteLossError:
    """A step of one whose gradients are those of a run that has been done."""
    with one.own():
        try:
            return one.trainer.finish_step(found.runs[place], found.batches[place])
        except NonFiniteLossError as error:
            return error
