"""The steps and validations of several trainings at once, as batched programs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.batch import Batch, BatchOfEach
from pyro_vae.compiled import Apart, FlatStepsOfMany, Member, Regroup, Stacks, Untraceable
from pyro_vae.data import Split
from pyro_vae.errors import NonFiniteLossError
from pyro_vae.optimisers.stacked import StackedOptimisers
from pyro_vae.randomness import OwnStream
from pyro_vae.training.trainer import Trainer
from pyro_vae.training.validation import Means, Validation

#: Numbers in the validation data of all members beyond which one by itself fills the cores.
_FEW = 2**22

#: Of each member: the ELBO of its batch, or what has ended its training.
Found = dict[int, Tensor | NonFiniteLossError]


class StepsOfMany:
    """Takes the steps of M trainings at once, as `Steps` does of one.

    Each has parameters, options of the optimiser, batches and random numbers of its own, so that its steps
    are those that it would take alone, up to rounding. One that leaves keeps what it has; its row of
    the batched program goes on without it.

    Args:
        trainers: Each after a step, on batches of one size.
        streams: The random numbers of each.

    Raises:
        Untraceable: where their tensors do not go together.
    """

    def __init__(self, trainers: Sequence[Trainer], streams: Sequence[OwnStream]) -> None:
        self.trainers, self.streams = trainers, list(streams)
        self.active = list(range(len(trainers)))
        self.stacks = Stacks()
        way = trainers[0].steps.way
        members = [
            Member(each.steps.loss_and_elbo, each.steps.roots, stream, each.programs.store)
            for each, stream in zip(trainers, streams, strict=True)
        ]
        self.steps = FlatStepsOfMany(members, self.stacks, fast=way.fast)
        self.optimisers: StackedOptimisers | None = None
        self.measures = self._measures()

    def _measures(self) -> "MeasuresOfMany | None":
        """The validations as one batched program, where there are data, and not too many."""
        validations = [each.validation for each in self.trainers]
        split = validations[0].split
        few = len(self.trainers) * len(split) * split.data_shape.numel() <= _FEW
        alike = all(len(each.split) == len(split) for each in validations)
        if not (few and alike and len(split)):
            return None
        return MeasuresOfMany(validations, self.stacks, self.steps.fast)

    def measure(self) -> dict[int, Means] | None:
        """The validation of each member that has not left; None where they are not batched."""
        if self.measures is None or any(each.validation.pair is None for each in self.trainers):
            return None
        for member in self.active:
            self.trainers[member].programs.eval()
        return self.measures()

    def look_again(self) -> None:
        """See what has changed since the last epoch, as by a callback."""
        self.steps.look_again()

    def take(self, indices: Sequence[Tensor]) -> Found:
        """A step of each member that has not left, on the data at its index; those that it ends leave.

        Raises:
            Untraceable: where they cannot be batched; no step was taken then. The noise of the batches is
                drawn where it is `Apart`, which has them.
            Regroup: where those that have not left must be put together anew; no step was taken then.
        """
        for member in self.active:
            self.trainers[member].before_step()
        random = [self.streams[member].state for member in self.active]
        noise = [self.trainers[member].steps.generator for member in self.active]
        before = [each.get_state() for each in noise]
        batches = self._batches(indices)
        try:
            if self.optimisers is None:
                self.optimisers = self._optimisers()
            (losses, elbos), gradients = self.steps(batches)
        except Apart:
            raise
        except (Untraceable, Regroup):
            for generator, earlier in zip(noise, before, strict=True):
                generator.set_state(earlier)
            raise
        found: Found = {}
        finite = torch.isfinite(losses).tolist()
        for member, state in zip(list(self.active), random, strict=True):
            if not finite[member]:
                found[member] = self._failed(member, float(losses[member]), batches[member], state)
                self.let_go(member)
        if self.active:
            self.optimisers.step(dict(zip(self.steps.leaves, gradients, strict=True)))
        for member in self.active:
            self.trainers[member].after_step()
            found[member] = elbos[member]
        return found

    def _batches(self, indices: Sequence[Tensor]) -> BatchOfEach:
        """The batch of each member; in the place of one that has left, any."""
        places = dict(zip(self.active, indices, strict=True))
        rows = [m if m in places else self.active[0] for m in range(len(self.trainers))]
        splits = [self.trainers[m].steps.split for m in self.active]
        if not all(type(each) is Split and _holds_the_same(each, splits[0]) for each in splits):
            made = {m: self.trainers[m].steps.batch(index) for m, index in places.items()}
            return BatchOfEach.of([made[m] for m in rows])
        each = torch.stack(list(indices))
        x = splits[0].batch_of_each(each, [self.trainers[m].steps.generator for m in self.active])
        given = {name: splits[0].fields[name][each] for name in splits[0].given}
        placed = self.trainers[0].programs.place(Batch(x, given))
        if len(self.active) == len(rows):
            return BatchOfEach(placed.x, placed.given)
        at = torch.tensor([self.active.index(m) for m in rows], device=x.device)
        return BatchOfEach(placed.x[at], {name: value[at] for name, value in placed.given.items()})

    def _optimisers(self) -> StackedOptimisers:
        singles = [each.optimising.single for each in self.trainers]
        return StackedOptimisers([each for each in singles if each is not None], self.stacks)

    def _failed(self, member: int, loss: float, batch: Batch, state: list[Tensor]) -> NonFiniteLossError:
        """The error that the member's training would have ended by."""
        trainer = self.trainers[member]
        trainer.steps.number = trainer.step + 1
        with self.streams[member](), trainer.programs.store():
            try:
                trainer.steps.check_finite(loss, batch, state)
            except NonFiniteLossError as error:
                return error
        raise AssertionError("the loss was not finite")

    def settle(self) -> None:
        """Let each training's state be as after its own steps."""
        if self.optimisers is not None:
            self.optimisers.settle()

    def let_go(self, member: int) -> None:
        """Leave a member as it is from now on."""
        if self.optimisers is not None:
            self.optimisers.let_go(member)
        self.stacks.let_go(member)
        self.active.remove(member)
        self.steps.let_go(member)
        if self.measures is not None:
            self.measures.let_go(member)

    def close(self) -> None:
        """Let all go."""
        for member in list(self.active):
            self.let_go(member)


def _holds_the_same(one: Split, other: Split) -> bool:
    """Whether two splits have the very tensors of one another."""
    fields = all(one.fields[name] is other.fields[name] for name in one.given)
    return one.stored is other.stored and one.given == other.given and fields


class MeasuresOfMany:
    """The validations of M trainings at once.

    Args:
        validations: Each measured before.
        stacks: Where the members' tensors lie.
        fast: Use operations that are faster and round differently, on a CPU.
    """

    def __init__(self, validations: Sequence[Validation], stacks: Stacks, fast: bool) -> None:
        self.streams = [OwnStream(each.seed, each.programs.device) for each in validations]
        batches = []
        for each, stream in zip(validations, self.streams, strict=True):
            with stream():
                batches.append(each.batch())
        self.batches = BatchOfEach.of(batches)
        #: Of the random numbers, after those of the batches.
        self.states = [stream.state for stream in self.streams]
        members = [
            Member(each.means, (each.programs.model, each.programs.guide), stream, each.programs.store)
            for each, stream in zip(validations, self.streams, strict=True)
        ]
        self.steps = FlatStepsOfMany(members, stacks, fast=fast)

    def __call__(self) -> dict[int, Means]:
        """ELBO, reconstruction and KL of each member that has not left.

        Raises:
            Untraceable: where they cannot be batched.
        """
        self.steps.look_again()
        for stream, state in zip(self.streams, self.states, strict=True):
            stream.state = state
        values, _ = self.steps(self.batches)
        rows = torch.stack(values, dim=1).tolist()
        return {member: (rows[member][0], rows[member][1], rows[member][2]) for member in self.steps.active}

    def let_go(self, member: int) -> None:
        """Measure a member no more."""
        self.steps.let_go(member)
