"""Steps that several processes, ranks, take together, each on its part of every batch."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyro_vae.batch import Batch, Program
from pyro_vae.compiled.untouched import Untouched
from pyro_vae.errors import InputError, one_line, warn
from pyro_vae.objectives import PenalisedELBO
from pyro_vae.precision import home, wide
from pyro_vae.randomness import own_draws, random_state, set_random_state
from pyro_vae.ranks import Ranks, here
from pyro_vae.training.shares import PLACE, Place, Share, Unplaced, plates
from pyro_vae.training.steps import Steps

#: Data of each rank, at the most, on which the sum of all parts is held against the whole; and at the least.
_COMPARED, _LEAST = 64, 2


class DistributedSteps(Steps):
    """Takes the steps of a training on several ranks: those of one process, up to rounding.

    Each rank has its rows of every batch, and the random numbers of all of it (`Share`). Gradients are
    summed over the ranks before the optimiser's step, which all take alike. At the start of an epoch, ranks
    take over parameters, buffers and the state of the random numbers from the first one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ranks: Ranks = here()
        if not getattr(self.objective, "adds_up", True):
            raise InputError(
                "several ranks expect an objective that is a sum over the data, got "
                f"{type(self.objective).__name__}: use another, or train in one process"
            )
        if isinstance(self.objective, PenalisedELBO):
            self.objective.penalty = Unplaced(self.objective.penalty)
        self.optimiser.before_update = self._sum_gradients
        #: Steps taken here, and whether one was held against that of one process.
        self.taken = 0
        self.compared = False
        #: What the programs held before that, while it is done; and what could not be given back.
        self.untouched: Untouched | None = None
        self.left = ""

    def in_steps(self, program: Program) -> Program:
        """A program as steps run it: on a part of a batch."""
        return Share(program)

    def take(self, index: Tensor, number: int) -> Tensor:
        """Step `number`, on this rank's part of the data at `index`: the ELBO of all of them, summed."""
        if self.taken and not self.compared and len(index) >= self.ranks.size:
            self.compared = True  # all that the first step creates is there
            size = self.ranks.size  # one rank has the whole, which is no more than its part of a batch
            self._compare(index[: min(_COMPARED * size, max(_LEAST * size, len(index) // size))])
        self.taken += 1
        rows = self.ranks.rows(len(index))
        own = super().take(index, number) if rows.start < rows.stop else self._without_data(number)
        # where all ranks have theirs: one by Pyro is on the CPU, one without data is not
        return self.ranks.sum(wide(own).to(home(self.device)))

    def _without_data(self, number: int) -> Tensor:
        """A step on a batch of fewer data than ranks, none of them here."""
        self.number = number
        if number < self.way.flat_from or not self.way.captured:
            self._check_sum(0.0, lambda: "")
        self.optimiser(self.optimiser.held)
        return torch.zeros((), device=self.device)

    def batch(self, index: Tensor) -> Batch:
        """The part of this rank of the data at `index`, with noise that is drawn for all of them."""
        return self._part(index, self.ranks.rows(len(index)))

    def _part(self, index: Tensor, rows: slice) -> Batch:
        if self.split.resample or self.split.dequantise:
            batch = self.split.take(index, self.generator)[rows]
        else:
            batch = self.split.take(index[rows])
        given = {**batch.given, PLACE: tuple(Place(rows.start, len(index)))}
        return self.programs.place(Batch(batch.x, given))

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Around the steps of one epoch, at whose start all ranks are as the first one."""
        tensors = {id(each): each for each in (*self.programs.leaves(), *self.programs.state_dict().values())}
        self.ranks.copy_from_first(each for each in tensors.values() if not is_lazy(each))
        set_random_state(self.ranks.from_first(lambda: random_state(self.device)), self.device)
        with super().epoch():
            yield

    def check_finite(self, loss: float, batch: Batch, state: list[Tensor]) -> None:
        """Stop all ranks where the loss of one of them is not finite."""
        self._check_sum(loss, lambda: self.site(batch, state))

    def _check_sum(self, loss: float, site: Callable[[], str]) -> None:
        total = float(self.ranks.sum(torch.tensor(loss, dtype=torch.float64)))
        if not math.isfinite(total):
            sites = self.ranks.all("" if math.isfinite(loss) else site())
            raise self.stopped(total, next(filter(None, sites), "unknown"))

    def _capture(self, index: Tensor) -> bool:
        """Never: what ranks tell one another is in no CUDA graph."""
        return False

    def _trained(self) -> list[Tensor]:
        """What the optimiser moves, in its order."""
        groups = self.optimiser.optimiser.param_groups
        return [each for group in groups for each in group["params"] if each in self.optimiser.held]

    def _sum_gradients(self) -> None:
        trained = self._trained()
        if self.taken == 1:
            self.ranks.check_alike({"parameters of shapes": [tuple(each.shape) for each in trained]})
        self.ranks.sum_gradients(trained)

    def _compare(self, index: Tensor) -> None:
        """Hold the sum of all parts of a batch against the whole of it, and say where they differ."""
        self.untouched = Untouched(self.roots)
        parts, whole = self._both(index)
        self.untouched = None
        if self.left and self.ranks.first:
            warn(
                f"{self.left} changes as the programs run, also where they are run to see whether steps on "
                f"{self.ranks.size} ranks are those of one process: keep in a buffer or an attribute what "
                "counts for their results"
            )
        found = [self.ranks.sum(each) for each in parts]
        rounding = torch.finfo(self.programs.dtype or torch.get_default_dtype()).eps ** 0.5
        bound = 0.05 if self.precision == "bfloat16" else rounding
        names = ("loss", "ELBO", "gradient")
        for name, one, other in zip(names, found, whole, strict=True):
            off = float((one - other).norm() / other.norm().clamp(min=1e-9))
            if not off < 10 * bound and self.ranks.first:
                warn(
                    f"steps on {self.ranks.size} ranks are not those of one process: the {name} of "
                    f"{len(index)} data differs by {off:.1e} of it, since something depends on the whole "
                    "batch, as batch norm, or is drawn by rejection or outside of sites, as gamma and "
                    "dropout: each rank has its own"
                )
                return

    def _check_plates(self, index: Tensor) -> None:
        """Refuse a plate of something else that has as many places as a part of a batch has data.

        Raises:
            InputError: where there is one, since it would be taken for the plate of the data.
        """
        several, fewer = (self._plates(each) for each in (index, index[1:]))
        whole = {self.batch_size, len(self.split) % self.batch_size} - {0}
        parts = {
            each // self.ranks.size for number in whole for each in (number, number + self.ranks.size - 1)
        }
        for name, size in several.items():
            of_data = (size, fewer.get(name)) == (len(index), len(index) - 1)
            if not of_data and size in parts:
                raise InputError(
                    f"expected another number of data for each of {self.ranks.size} ranks than the {size} "
                    f"places of the plate {name!r}, got batches of {self.batch_size} from "
                    f"{len(self.split)}: give another batch_size, or train in one process"
                )

    @contextmanager
    def _trial(self) -> Iterator[None]:
        """Around a run by draws that are not used up, which leaves all as it is, but for what is `left`."""
        assert self.untouched is not None
        noise = self.generator.get_state()
        with own_draws(self.device):
            yield
        self.generator.set_state(noise)
        self.left = self.untouched.give_back()

    def _plates(self, index: Tensor) -> dict[str, int]:
        """The plates of both programs on a batch."""
        with self._trial(), torch.no_grad():
            batch = self._part(index, slice(0, len(index)))
            guide = batch.call(poutine.trace(self.guide).get_trace)
            model = batch.call(poutine.trace(poutine.replay(self.model, trace=guide)).get_trace)
        return {**plates(guide), **plates(model)}

    def _both(self, index: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What is measured on the part of this rank, and on the whole batch.

        Raises:
            InputError: where programs run on one number of data only, or `_check_plates` refuses them.
        """
        try:
            self._check_plates(index)
            part = self._measure(index, self.ranks.rows(len(index)))
            return part, self._measure(index, slice(0, len(index)))
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:
            raise InputError(
                "several ranks expect programs of any number of data, got such as hold something for each "
                f"datum of their part ({one_line(error)}): train them in one process"
            ) from error

    def _measure(self, index: Tensor, rows: slice) -> list[Tensor]:
        """Loss, ELBO and gradient of rows of a batch."""
        parameters = self._trained()
        had = [each.grad for each in parameters]
        for each in parameters:
            each.grad = None
        with self._trial():
            loss, elbo = self._part(index, rows).call(self.loss_and_elbo)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        for each, gradient in zip(parameters, had, strict=True):
            each.grad = gradient
        numbers = [torch.as_tensor(each, dtype=torch.float64).reshape(1) for each in (loss, elbo)]
        return [*numbers, torch.cat([wide(each).reshape(-1) for each in gradients])]
