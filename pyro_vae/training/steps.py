"""The steps of a training: by Pyro's SVI, by a flat graph, or by a CUDA graph of the whole step."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, SVI
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vae.batch import Batch, Program
from pyro_vae.compiled import (
    FlatGraph,
    FlatSteps,
    Kept,
    NotExpressible,
    Run,
    State,
    Untraceable,
    WholeStep,
    capture,
)
from pyro_vae.compiled.record import add_gradients
from pyro_vae.compiled.whole_step import rules_of
from pyro_vae.data import Split
from pyro_vae.errors import NonFiniteLossError, one_line, warn
from pyro_vae.networks import in_bfloat16
from pyro_vae.objectives import KLWeight, recorder_of
from pyro_vae.precision import home
from pyro_vae.randomness import own_draws, random_state, set_random_state
from pyro_vae.training.feed import feed_of
from pyro_vae.training.optimising import Optimising
from pyro_vae.training.options import Precision
from pyro_vae.training.refused import non_finite_site, refusals_of_programs
from pyro_vae.training.summed import Sampled
from pyro_vae.training.trained import Trained
from pyro_vae.training.ways import Way
from pyro_vae.training.weights import Weighted, check_objective, weighted

#: Full batches of an epoch before the whole step is captured: those in which the graph is checked, and one.
STEPS_BEFORE_CAPTURE = 3


class Steps:
    """Takes the steps of a training.

    Args:
        programs: What is trained.
        objective: Its loss.
        kl_weight: Handler that weights the KL term, or None.
        optimiser: Of all its parameters.
        split: The training data, on the device of the model.
        batch_size: Data of a full batch.
        way: How steps are taken.
        precision: Of the networks.
        weight: Name of the field of the training data with their weights, or None.
        not_finite: Makes the error from what happened.
    """

    def __init__(
        self,
        programs: Trained,
        objective: ELBO,
        kl_weight: KLWeight | None,
        optimiser: Optimising,
        split: Split,
        batch_size: int,
        way: Way,
        precision: Precision,
        weight: str | None,
        not_finite: Callable[[str], NonFiniteLossError],
    ) -> None:
        self.programs, self.objective, self.optimiser = programs, objective, optimiser
        self.batch_size = batch_size
        self.way, self.precision, self.not_finite = way, precision, not_finite
        self.model, self.guide = map(self.in_steps, (programs.model, programs.guide))
        if weight is not None:
            check_objective(objective)
            split, mean = weighted(split, weight)
            self.model, self.guide = (Weighted(each, weight, mean) for each in (self.model, self.guide))
        #: Of the order and the noise of the batches.
        self.generator = torch.Generator(programs.device)
        #: Gives the batches, which are places in its split.
        self.feed = feed_of(split, batch_size, programs.device, self.generator)
        self.split = self.feed.split
        if kl_weight is not None:
            self.model, self.guide = kl_weight(self.model), kl_weight(self.guide)
        #: Gives the ELBO that is logged, where minus the loss of a step is none.
        self.recorder = recorder_of(objective, weighted=kl_weight is not None or weight is not None)
        #: What a step depends on besides its batch.
        self.roots = (objective, self.model, self.guide)
        #: What the first step draws.
        self.sampled = Sampled()
        self.svi = SVI(self.model, self.guide, self.optimiser, objective.loss, self._finite_loss)
        self.flat = self._flat_steps()
        self.whole: WholeStep | None = None
        self.device = programs.device
        self.number = 0
        self.validated = False
        #: Full batches of this epoch by the flat graph, and the captured step with its input and result.
        self.flat_batches = 0
        self.replay: Callable[[], None] | None = None
        self.index = torch.zeros(0)
        self.elbo = torch.zeros((), dtype=torch.float64, device=home(programs.device))

    def _flat_steps(self) -> FlatSteps:
        """Steps by a flat graph, which is compiled where it is not to be a part of a whole step."""
        return FlatSteps(
            self.loss_and_elbo,
            self.roots,
            backend="inductor" if self.way.inductor and not self.way.whole else "flat",
            fast=self.way.fast,
            who="fit",
            watch=False,
        )

    def in_steps(self, program: Program) -> Program:
        """A program as steps run it."""
        return program

    def take(self, index: Tensor, number: int) -> Tensor:
        """Step `number`, on the data at `index`, as the feed gives it: their unweighted ELBO, summed.

        Raises:
            NonFiniteLossError: where the loss is NaN or infinite, before the parameters change; from a
                CUDA graph the ELBO is then NaN or infinite, after they have.
        """
        self.number = number
        if number < self.way.flat_from:
            return self._by_svi(self.batch(index))
        if self.way.whole and len(index) == self.batch_size:
            return self._by_whole_step(index)
        if self.way.captured and len(index) == self.batch_size:
            self.flat_batches += 1
            ready = self.flat_batches > STEPS_BEFORE_CAPTURE and not self.flat.eager_because
            if ready and self._capture(index):
                return self._by_replay(index)
        return self._by_flat_graph(self.batch(index))

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Around the steps of one epoch; what has changed since the last one, as by a callback, is seen.

        Pyro's validation is off but in the very first step, and NaN is left to the error that we raise.
        """
        self.replay = None  # a whole step is captured anew
        self.flat_batches = 0
        with ExitStack() as stack:
            stack.enter_context(
                in_bfloat16(nn.ModuleList(self.programs.modules), self.precision == "bfloat16")
            )
            stack.enter_context(pyro.validation_enabled(False))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Encountered NaN")
            self.flat.look_again()
            if self.whole is not None and not (self.flat.holds(self.whole.kept) and self.whole.again()):
                self.whole = None
            yield

    def batch(self, index: Tensor) -> Batch:
        """The data at `index`, as the programs get them."""
        return self.programs.place(self.split.take(index, self.generator))

    def look(self, index: Tensor) -> None:
        """Let the programs create their parameters as in a first step, which is not taken."""
        batch = self.batch(index)
        with (
            self.epoch(),
            self._first(),
            poutine.trace(param_only=True) as capture,
            self.sampled.once(self.objective),
        ):
            batch.call(self.loss_and_elbo)
        with self._first():
            self.optimiser.meet(_parameters(capture.trace))
        self.programs.drop_gradients()

    @contextmanager
    def _first(self) -> Iterator[None]:
        """Validation for the first step, and what its programs raise in one line."""
        if self.validated:
            yield
            return
        self.validated = True
        with pyro.validation_enabled(True), refusals_of_programs():
            yield

    def _by_svi(self, batch: Batch) -> Tensor:
        with self._first():
            loss = batch.call(self.svi.step)
        return torch.tensor(-loss, dtype=torch.float64) if self.recorder is None else self.recorder.take()

    def _by_flat_graph(self, batch: Batch) -> Tensor:
        state = random_state(self.device)
        return self._updated(*self._gradients(batch), batch, state)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor, set[Tensor]]:
        """Loss and ELBO by the flat graph, and the parameters that have got a gradient."""
        if self.validated:
            return *batch.call(self.flat), self.optimiser.held
        # the optimiser refuses other parameters than its own
        with self._first(), poutine.trace(param_only=True) as capture, self.sampled.once(self.objective):
            loss, elbo = batch.call(self.flat)
        return loss, elbo, _parameters(capture.trace)

    def _updated(
        self, loss: Tensor, elbo: Tensor, used: set[Tensor], batch: Batch, state: list[Tensor]
    ) -> Tensor:
        """The ELBO of a step that the optimiser takes, unless the loss is not finite."""
        if not self.way.captured:
            self.check_finite(float(loss), batch, state)
        self.optimiser(used)
        return elbo

    def finish(self, run: Run, batch: Batch, number: int) -> Tensor:
        """Step `number`, of which the loss and its gradients are those of a run on `batch`; as `take`.

        Raises:
            NonFiniteLossError: where the loss is NaN or infinite, before the parameters change.
        """
        self.number = number
        run.before.restore()
        state = random_state(self.device)
        run.after.restore()
        add_gradients(run.leaves, run.result.gradients)
        loss, elbo = run.result.values
        self.check_finite(float(loss), batch, state)
        self.optimiser(self.optimiser.held)
        return elbo

    def loss_and_elbo(self, x: Tensor, **given: Any) -> tuple[Tensor | float, Tensor | float]:
        """The loss, with its gradients left in the parameters, and the unweighted ELBO."""
        loss = self.objective.loss_and_grads(self.model, self.guide, x, **given)
        return loss, -loss if self.recorder is None else self.recorder.take()

    def _finite_loss(self, model: Program, guide: Program, x: Tensor, **given: Any) -> float:
        """The loss of the objective in a step of SVI, which is stopped where it is not finite."""
        state = random_state(self.device)
        with self.sampled.once(self.objective):
            loss: float = self.objective.loss_and_grads(model, guide, x, **given)
        self.check_finite(loss, Batch(x, given), state)
        return loss

    def check_finite(self, loss: float, batch: Batch, state: list[Tensor]) -> None:
        """Stop where the loss of a batch, drawn from a state of the random numbers, is not finite."""
        if not math.isfinite(loss):
            raise self.stopped(loss, self.site(batch, state))

    def site(self, batch: Batch, state: list[Tensor]) -> str:
        """The first site that is not finite in a batch, drawn from a state of the random numbers."""
        set_random_state(state, self.device)
        return non_finite_site(self.model, self.guide, batch)

    def stopped(self, loss: float, site: str) -> NonFiniteLossError:
        """The error of this step."""
        return self.not_finite(f"the loss is {loss} at step {self.number}, first at the site {site}")

    def _capture(self, index: Tensor) -> bool:
        """Whether there is a CUDA graph of the whole step, made now where there was none."""
        if self.replay is None:
            self.index = index.clone()
            try:
                self.replay = capture(self._whole_step, self.device, [self.generator])
            except Exception as error:  # of CUDA, or of an optimiser that is not made for it
                for parameter in self.optimiser.held:
                    parameter.grad = None
                self.way = self.way._replace(captured=False)
                warnings.warn(f"fit takes steps that are no CUDA graph: {one_line(error)}", stacklevel=2)
        return self.replay is not None

    def _by_whole_step(self, index: Tensor) -> Tensor:
        """A step by one compiled function."""
        state, whole = random_state(self.device), self.whole
        if whole is not None and whole.kept.changed(watch=False):
            whole = self.whole = None
        if whole is None or not whole.kept.checked:
            return self._by_checked_step(index, self.batch(index), state)
        batch = None if whole.batch else self.batch(index)
        loss, elbo = whole(*([index] if batch is None else batch.tensors))
        if not math.isfinite(loss):
            raise self.stopped(float(loss), self.site(batch or self.batch(index), state))
        return elbo

    def _by_checked_step(self, index: Tensor, batch: Batch, state: list[Tensor]) -> Tensor:
        """A step by the flat graph, taken back for one by the compiled function, where the two agree.

        So a training that is continued takes the same steps as one that never stopped.
        """
        before = State(list(self.programs.state_dict().values()))
        loss, elbo, used = self._gradients(batch)
        found = batch.call(self.flat.graph_for)
        if self.flat.eager_because:
            self.whole, self.way = None, self.way._replace(whole=False)
        elif found is not None and self._has_begun() and math.isfinite(loss):
            after = State(before.tensors)
            before.restore()
            if values := self._held_against(index, *found):
                self.programs.drop_gradients()
                return values[1]
            after.restore()
        return self._updated(loss, elbo, used, batch, state)

    def _has_begun(self) -> bool:
        """Whether the optimiser has taken a step, after which it keeps what later steps go on from."""
        return self.optimiser.single is not None and len(self.optimiser.optimiser.state) > 0

    def _held_against(self, index: Tensor, kept: Kept, tensors: list[Tensor]) -> list[Tensor]:
        """The values of a step by the compiled function, made where there was none; none where it fails."""
        problem, values = "", list[Tensor]()
        try:
            if self.whole is None:
                take = graph_of_batches(self.batch, index, self.generator)
                clip_norm, args = self.optimiser.clip_args["clip_norm"], [index] if take else tensors
                self.whole = WholeStep(kept, take, self.optimiser.optimiser, clip_norm, args)
            values, problem = self.whole.held_against([index] if self.whole.batch else tensors, tensors)
        except NotExpressible:
            pass
        except Exception as error:  # of a compiler
            problem = one_line(error)
        if not values or problem:
            self._leave_whole(problem)
        return [] if problem else values

    def meet(self, optimiser: Optimizer) -> None:
        """Take no whole steps where the optimiser cannot be a part of them."""
        try:
            rules_of(optimiser)
        except NotExpressible:
            self._leave_whole("")

    def _leave_whole(self, problem: str) -> None:
        """Take steps by a flat graph from now on, and say so where that was not to be expected."""
        self.whole, self.way = None, self.way._replace(whole=False)
        if self.way.inductor:
            self.flat = self._flat_steps()
        if problem:
            warn(f"fit takes steps that are not compiled as a whole: {problem}")

    def _whole_step(self) -> None:
        """Batch, noise, loss, gradients and optimiser, from `index` to `elbo`, both in place."""
        _, elbo = self.batch(self.index).call(self.flat)
        self.optimiser(self.optimiser.held)
        self.elbo.copy_(elbo)

    def _by_replay(self, index: Tensor) -> Tensor:
        assert self.replay is not None
        self.index.copy_(index)
        self.replay()
        return self.elbo.clone()


def graph_of_batches(
    batch: Callable[[Tensor], Batch], index: Tensor, generator: torch.Generator
) -> FlatGraph | None:
    """The tensors of a batch by its places in the data; None where a batch has noise of this generator."""
    before = generator.get_state()
    try:
        with own_draws(generator.device):
            graph = FlatGraph(lambda places: tuple(batch(places).tensors), (index,))
    except Untraceable:
        graph = None
    if torch.equal(before, generator.get_state()):
        return graph
    generator.set_state(before)
    return None


def _parameters(trace: poutine.Trace) -> set[Tensor]:
    """The parameters of Pyro's store that a run has used."""
    return {site["value"].unconstrained() for site in trace.nodes.values()}
