"""A whole step of a training as one compiled function: batch, noise, loss, gradients and Adam."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Adam, AdamW, Optimizer

from pyro_vae.compiled.ahead import compiled_ahead
from pyro_vae.compiled.graph import FlatGraph, lift, straight_line
from pyro_vae.compiled.kept import Kept
from pyro_vae.compiled.passes import leave_to_mkl
from pyro_vae.compiled.policy import CANCELLED, OTHER_OPERATIONS_IN_SUMS, agree, size_of, tolerance
from pyro_vae.compiled.record import State, ValuesAndGradients
from pyro_vae.errors import one_line


class NotExpressible(Exception):
    """The step is not one that can be written as one graph; the text says why."""


class Rule(NamedTuple):
    """What Adam does with the parameters of a group, but for its rate, which may change at each step."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    #: Whether weights decay beside the gradient, as in AdamW.
    decoupled: bool

    @classmethod
    def of(cls, group: dict[str, Any]) -> "Rule":
        """That of a group of torch's optimiser."""
        if any(group[name] for name in ("amsgrad", "maximize", "differentiable")):
            raise NotExpressible("amsgrad, maximize and differentiable are not written out")
        decoupled = bool(group.get("decoupled_weight_decay", False))
        beta1, beta2 = map(float, group["betas"])
        return cls(beta1, beta2, float(group["eps"]), float(group["weight_decay"]), decoupled)

    def rates(self, lr: float, step: float) -> tuple[float, float, float]:
        """What changes from step to step, counted from 1: lr, lr / (1 − β₁ᵗ) and √(1 − β₂ᵗ)."""
        return lr, lr / (1 - self.beta1**step), math.sqrt(1 - self.beta2**step)

    def moments(
        self, parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The moments after a step."""
        if self.weight_decay and not self.decoupled:
            gradient = gradient + self.weight_decay * parameter
        first = first + (1 - self.beta1) * (gradient - first)
        return first, self.beta2 * second + (1 - self.beta2) * gradient * gradient

    def moved(self, parameter: Tensor, first: Tensor, second: Tensor, rates: Tensor) -> Tensor:
        """The parameter after a step with these moments, as by torch's fused Adam up to rounding."""
        lr, scaled, root = rates.to(parameter.dtype).unbind()
        if self.weight_decay and self.decoupled:
            parameter = parameter * (1 - lr * self.weight_decay)
        return parameter - scaled * first / (second.sqrt() / root + self.eps)


def rules_of(optimiser: Optimizer) -> list[Rule]:
    """Those of its groups; NotExpressible where it is another optimiser than can be written out."""
    hooks = optimiser._optimizer_step_pre_hooks or optimiser._optimizer_step_post_hooks
    if type(optimiser) not in (Adam, AdamW) or hooks:
        raise NotExpressible(f"{type(optimiser).__name__} is no Adam without hooks")
    return [Rule.of(group) for group in optimiser.param_groups]


class Moved:
    """What a step of Adam moves, in the order of the optimiser: tensors of its state, and its rules.

    Raises:
        NotExpressible: where the optimiser does something else, or has not yet taken a step.
    """

    def __init__(self, optimiser: Optimizer) -> None:
        self.groups, self.rules = optimiser.param_groups, rules_of(optimiser)
        pairs = [(i, p) for i, group in enumerate(self.groups) for p in group["params"] if p.requires_grad]
        self.group_of = [i for i, _ in pairs]
        self.parameters = [parameter for _, parameter in pairs]
        states = [optimiser.state.get(parameter, {}) for parameter in self.parameters]
        if not all({"step", "exp_avg", "exp_avg_sq"} <= state.keys() for state in states):
            raise NotExpressible("a parameter has not been moved yet")
        self.firsts = [state["exp_avg"] for state in states]
        self.seconds = [state["exp_avg_sq"] for state in states]
        self.steps = [state["step"] for state in states]
        if len({float(step) for step in self.steps}) != 1:
            raise NotExpressible("parameters have taken different numbers of steps")

    @property
    def tensors(self) -> list[Tensor]:
        """All that a step changes in place."""
        return [*self.parameters, *self.firsts, *self.seconds, *self.steps]

    def rates(self) -> Tensor:
        """(groups, 3): those of the next step."""
        step = self.steps[0].item() + 1
        rows = [
            rule.rates(float(group["lr"]), step) for rule, group in zip(self.rules, self.groups, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def alike(self, other: "Moved") -> bool:
        """Whether a graph for the one is a graph for the other."""
        same = self.rules == other.rules and self.group_of == other.group_of
        return same and [*map(_layout, self.tensors)] == [*map(_layout, other.tensors)]


class WholeStep:
    """A step of a training on a CPU as one compiled function.

    It draws the noise that the flat graph draws, and changes parameters and the optimiser's state in place,
    where they are as after a step of torch's Adam, up to rounding. Where the loss is not finite, they stay
    as they are. It is for full batches, for these programs and this optimiser with whatever rates.

    Args:
        kept: The flat graph of loss and gradients, held against eager Pyro.
        batch: Gives the tensors that `kept` takes from places in the data; None where it is given these.
        optimiser: That has taken a step.
        clip_norm: Bound on the norm of the whole gradient.
        args: Inputs of a step: places in the data, or the tensors that `kept` takes.

    Raises:
        NotExpressible: where it cannot be one graph.
        Exception: of a compiler.
    """

    def __init__(
        self,
        kept: Kept,
        batch: FlatGraph | None,
        optimiser: Optimizer,
        clip_norm: float | None,
        args: Sequence[Tensor],
    ) -> None:
        self.kept, self.batch, self.optimiser, self.clip_norm = kept, batch, optimiser, clip_norm
        self.moved = Moved(optimiser)
        self._gradients = self._places_of_gradients()
        held = [*self.moved.tensors, *kept.graph.tensors, *(batch.tensors if batch else ())]
        self._held = list({id(each): each for each in held}.values())
        self._check_memory()
        inputs = [*args, self.moved.rates(), *self._bound()]
        module = self._module(inputs, len(args))
        self._inputs = inputs[len(args) + 1 :]
        self._run = compiled_ahead(module, inputs)

    def __call__(self, *args: Tensor) -> list[Tensor]:
        """The values of the flat graph, of a step that is taken."""
        return self._run([*args, self.moved.rates(), *self._inputs])

    def again(self) -> bool:
        """Whether it still holds for the optimiser, whose state may have been loaded since."""
        try:
            moved = Moved(self.optimiser)
        except NotExpressible:
            return False
        if not self.moved.alike(moved):
            return False
        new = {id(old): each for old, each in zip(self.moved.tensors, moved.tensors, strict=True)}
        if any(id(each) not in map(id, self.moved.parameters) for each in moved.parameters):
            return False
        self._held = [new.get(id(each), each) for each in self._held]
        self.moved, self._inputs = moved, self._bound()
        return True

    @torch.no_grad()
    def held_against(self, args: Sequence[Tensor], tensors: Sequence[Tensor]) -> tuple[list[Tensor], str]:
        """A step that is taken, and how it differs from that of the flat graph; if it does, it is taken back.

        Args:
            args: Its inputs.
            tensors: Those of the flat graph for the same batch.
        """
        buffers = [each for each in self.kept.guards.buffers if not each.requires_grad]
        before, rates = State([*self.moved.tensors, *buffers]), self.moved.rates()
        expected = self.kept.run(tensors)
        after = State(buffers)
        before.restore()
        try:
            values = self(*args)
            problem = self._deviation(values, expected, before, rates)
            now = State(buffers)
            if not now.same_random_numbers(after):
                problem = "the compiled step draws other random numbers"
            elif not all(map(self._agree, now.contents, after.contents)):
                problem = "the compiled step gives another buffer"
        except Exception as error:  # of an operation that takes other inputs than in the trace
            values, problem = [], one_line(error)
        if problem:
            before.restore()
        return values, problem

    def _places_of_gradients(self) -> list[int]:
        """Where the gradient of each parameter is in the output of the flat graph."""
        (output,) = (node for node in self.kept.graph.module.graph.nodes if node.op == "output")
        outputs, leaves = list(output.args[0]), [*map(id, self.kept.leaves)]
        first = len(outputs) - len(leaves)
        trained = {id(parameter) for parameter in self.moved.parameters}
        places = {leaf: first + i for i, leaf in enumerate(leaves) if outputs[first + i] is not None}
        if places.keys() != trained:
            raise NotExpressible("not all parameters of the optimiser, or others, have a gradient")
        self._num_values = first
        return [places[id(parameter)] for parameter in self.moved.parameters]

    def _check_memory(self) -> None:
        """Refuse tensors that share memory with one that is changed."""
        devices = {each.device.type for each in self._held}
        memory = [each.untyped_storage().data_ptr() for each in self._held if each.numel()]
        changed = {each.untyped_storage().data_ptr() for each in self.moved.tensors if each.numel()}
        if devices != {"cpu"} or any(memory.count(place) > 1 for place in changed):
            raise NotExpressible("parameters share memory, or are not on the CPU")

    def _bound(self) -> list[Tensor]:
        return [each.detach() for each in self._held]

    @torch.no_grad()
    def _module(self, inputs: Sequence[Tensor], num_args: int) -> fx.GraphModule:
        """The graph of a step."""
        flat = straight_line(self.kept.graph.module)
        take = straight_line(self.batch.module) if self.batch else None
        ids = [*map(id, self._held)]

        def step(*inputs: Tensor) -> list[Tensor]:
            args, rates, held = (
                inputs[:num_args],
                inputs[num_args],
                dict(zip(ids, inputs[num_args + 1 :], strict=True)),
            )
            if take is not None:
                assert self.batch is not None
                args = take(*args, *[held[id(each)] for each in self.batch.tensors])  # type: ignore[assignment]
            outputs = flat(*args, *[held[id(each)] for each in self.kept.graph.tensors])
            self._move(held, outputs, rates)
            return [each for each in outputs[: self._num_values] if each is not None]

        module: fx.GraphModule = make_fx(step, tracing_mode="fake")(*inputs)
        leave_to_mkl(module)
        if lift(module):
            raise NotExpressible("a step has constants of its own")
        return module

    def _move(self, held: dict[int, Tensor], outputs: Sequence[Tensor | None], rates: Tensor) -> None:
        """Adam, written out in the graph; nothing moves where the loss is not finite."""
        found = [outputs[place] for place in self._gradients]
        gradients = self._clipped([gradient for gradient in found if gradient is not None])
        assert outputs[0] is not None
        fine, moved = outputs[0].isfinite(), self.moved
        state = zip(moved.parameters, gradients, moved.firsts, moved.seconds, moved.group_of, strict=True)
        for parameter, gradient, first, second, group in state:
            old, rule = (held[id(parameter)], held[id(first)], held[id(second)]), moved.rules[group]
            moments = rule.moments(old[0], gradient, *old[1:])
            for to, new in zip(old, (rule.moved(old[0], *moments, rates[group]), *moments), strict=True):
                to.copy_(torch.where(fine, new, to))
        for step in moved.steps:
            held[id(step)].add_(fine)

    def _clipped(self, gradients: list[Tensor]) -> list[Tensor]:
        """As by `clip_grad_norm_`."""
        if self.clip_norm is None:
            return gradients
        norm = torch.stack([torch.linalg.vector_norm(each) for each in gradients]).norm()
        share = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [each * share for each in gradients]

    def _agree(self, new: Tensor, old: Tensor, size: float | None = None) -> bool:
        return agree(new, old, tolerance(self.kept.graph.rounding, OTHER_OPERATIONS_IN_SUMS), size)

    def _deviation(
        self, values: Sequence[Tensor], expected: ValuesAndGradients, before: State, rates: Tensor
    ) -> str:
        """What a step has given otherwise than the flat graph and Adam do.

        A parameter is held against the moments that it was moved by, since Adam divides rounding by rounding
        where a gradient cancels, as that of a bias before batch norm.
        """
        if not all(map(self._agree, values, expected.values)):
            return "the compiled step gives another value"
        if not math.isfinite(float(values[0])):
            return ""
        moved, rounds = self.moved, range(len(self.moved.parameters))
        rules = [moved.rules[group] for group in moved.group_of]
        old = [before.contents[i * len(rounds) : (i + 1) * len(rounds)] for i in range(3)]
        found = [expected.gradients[place - self._num_values] for place in self._gradients]
        gradients = self._clipped([gradient for gradient in found if gradient is not None])
        wanted = [rules[i].moments(old[0][i], gradients[i], old[1][i], old[2][i]) for i in rounds]
        for which, now in enumerate((moved.firsts, moved.seconds)):
            sizes = [size_of(each[which]) for each in wanted]
            least = CANCELLED ** (which + 1) * max(sizes)
            if not all(self._agree(now[i], wanted[i][which], max(sizes[i], least)) for i in rounds):
                return "the compiled step gives another moment of a gradient"
        for i in rounds:
            by_now = rules[i].moved(old[0][i], moved.firsts[i], moved.seconds[i], rates[moved.group_of[i]])
            if not self._agree(moved.parameters[i].detach(), by_now):
                return "the compiled step moves a parameter otherwise than Adam"
        return ""


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
