"""The optimisers of several members, as one over their parameters in stacks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, optim
from torch.optim import Optimizer

from pyro_vae.optimisers.single import SingleOptimiser

#: Those that move each element of a parameter by its own gradients alone, so that a stack of several moves
#: as each by itself.
_EACH_ELEMENT: tuple[type[Optimizer], ...] = (optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam)
_EACH_ELEMENT += (optim.Adamax, optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop)

#: States of a parameter that are one number for all its elements.
_COUNTS = ("step", "mu_product")


class Stacked(Protocol):
    """Makes one tensor of those of all members, whose rows these are from then on."""

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """(M, …)."""


class StackedOptimisers:
    """Moves the parameters of several members at once, each as its own optimiser would.

    Where the members' options are equal (their learning rates are, as a rule, also under a schedule) that is
    one step of one torch optimiser over the stacks; else each optimiser takes its own.

    Args:
        singles: The optimisers of the members, each after a step at least.
        stacks: Where the members' tensors lie.
    """

    def __init__(self, singles: Sequence[SingleOptimiser], stacks: Stacked) -> None:
        self.singles, self.stacks = singles, stacks
        self.own = [single.optimiser for single in singles if single.optimiser is not None]
        #: Of each group, the parameters of all members.
        self.groups = [
            [stacks.of(each) for each in zip(*(group["params"] for group in groups), strict=True)]
            for groups in zip(*(one.param_groups for one in self.own), strict=True)
        ]
        #: Of each of these the states that have its shape, by name; None where they are not alike.
        self.states = [
            [self._stacked(number, place) for place in range(len(group))]
            for number, group in enumerate(self.groups)
        ]
        self.whole: Optimizer | None = None
        #: The places of those that have not left.
        self.active = list(range(len(self.own)))

    def let_go(self, member: int) -> None:
        """Move one member no more; its row moves on, and is not its own any longer."""
        self.settle()
        self.active.remove(member)

    def step(self, gradients: Mapping[Tensor, Tensor | None]) -> None:
        """One step of each member.

        Args:
            gradients: By the parameters of the first member, of all members: (M, …).
        """
        held = [parameter for group in self.own[0].param_groups for parameter in group["params"]]
        complete = all(gradients.get(parameter) is not None for parameter in held)
        if complete and self._alike():
            self._together(gradients)
        else:
            self.settle()
            self._apart(gradients)

    def settle(self) -> None:
        """Let each member's optimiser be as after its own steps."""
        if self.whole is None:
            return
        for one in (self.own[member] for member in self.active):
            for stacks, group in zip(self.groups, one.param_groups, strict=True):
                for stack, parameter in zip(stacks, group["params"], strict=True):
                    for name, value in self.whole.state[stack].items():
                        if name in _COUNTS:
                            one.state[parameter][name] = value.clone() if isinstance(value, Tensor) else value
        self.whole = None

    def _alike(self) -> bool:
        """Whether one optimiser can stand for all."""
        first, *others = (self.own[member] for member in self.active)
        hooks = any(one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks for one in self.own)
        if type(first) not in _EACH_ELEMENT or hooks:
            return False
        options = [_options(group) for group in first.param_groups]
        return all([_options(group) for group in one.param_groups] == options for one in others)

    @torch.no_grad()
    def _together(self, gradients: Mapping[Tensor, Tensor | None]) -> None:
        if self.whole is None and not self._begin():
            return self._apart(gradients)
        assert self.whole is not None
        held = [parameter for group in self.own[0].param_groups for parameter in group["params"]]
        self._clip([gradient for p in held if (gradient := gradients[p]) is not None])
        options = self.own[self.active[0]].param_groups
        for whole, group, option in zip(
            self.whole.param_groups, self.own[0].param_groups, options, strict=True
        ):
            whole.update(_options(option))
            for stack, parameter in zip(whole["params"], group["params"], strict=True):
                stack.grad = gradients[parameter]
        self.whole.step()
        return None

    def _begin(self) -> bool:
        """Make the one optimiser, from the states of all; returns whether that can be."""
        first = self.own[self.active[0]]
        groups = zip(first.param_groups, self.groups, strict=True)
        made: Callable[..., Optimizer] = type(first)
        whole = made([{**_options(group), "params": stacks} for group, stacks in groups])
        for number, stacks in enumerate(self.groups):
            for place, stack in enumerate(stacks):
                tensors, counts = self.states[number][place], self._counts(number, place)
                if tensors is None or counts is None:
                    return False
                if tensors or counts:
                    whole.state[stack] = {**counts, **tensors}
        self.whole = whole
        return True

    def _of_members(self, number: int, place: int) -> list[Mapping[str, Any]]:
        """The states of one parameter of each member."""
        return [one.state.get(one.param_groups[number]["params"][place], {}) for one in self.own]

    def _stacked(self, number: int, place: int) -> dict[str, Any] | None:
        """The states of one parameter that have its shape, of all members; None where they are not alike."""
        states = self._of_members(number, place)
        if any(state.keys() != states[0].keys() for state in states):
            return None
        stacked: dict[str, Any] = {}
        for name in (name for name in states[0] if name not in _COUNTS):
            values = [state[name] for state in states]
            if all(isinstance(value, Tensor) for value in values):
                stacked[name] = self.stacks.of(values)
            elif any(value is not None for value in values):
                return None
        return stacked

    def _counts(self, number: int, place: int) -> dict[str, Any] | None:
        """The states of one parameter that are one number; None where members are not at one place."""
        states = self._of_members(number, place)
        first, *others = (states[member] for member in self.active)
        names = [name for name in first if name in _COUNTS]
        if any(float(other[name]) != float(first[name]) for other in others for name in names):
            return None
        return {
            name: first[name].clone() if isinstance(first[name], Tensor) else first[name] for name in names
        }

    def _clip(self, gradients: Sequence[Tensor]) -> None:
        """Bound the norm of each member's gradient, as `torch.nn.utils.clip_grad_norm_` does."""
        bounds = [single.clip_norm for single in self.singles]
        if all(bound is None for bound in bounds):
            return
        norms = [torch.linalg.vector_norm(each.reshape(len(each), -1), dim=1) for each in gradients]
        total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        bound = total.new_tensor([float("inf") if each is None else each for each in bounds])
        shares = (bound / (total + 1e-6)).clamp(max=1.0)
        for each in gradients:
            each.mul_(shares.to(each.dtype).reshape(-1, *[1] * (each.ndim - 1)))

    def _apart(self, gradients: Mapping[Tensor, Tensor | None]) -> None:
        """A step of each optimiser."""
        held = [parameter for group in self.own[0].param_groups for parameter in group["params"]]
        for member in self.active:
            parameters = [p for group in self.own[member].param_groups for p in group["params"]]
            for parameter, first in zip(parameters, held, strict=True):
                gradient = gradients.get(first)
                parameter.grad = None if gradient is None else gradient[member]
            self.singles[member]({parameter for parameter in parameters if parameter.requires_grad})


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options."""
    return {name: value for name, value in group.items() if name != "params"}
