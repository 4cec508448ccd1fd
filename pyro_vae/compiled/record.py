"""An eager run of a computation with gradients, with all that it changed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.compiled.guards import Guards

Function = Callable[..., Sequence[Tensor | float]]


class Values(NamedTuple):
    """What a run computes."""

    #: What the function returns.
    values: list[Tensor]
    #: The gradient of each leaf, None where it is not reached.
    gradients: list[Tensor | None]


class State:
    """The contents of some tensors, and the state of torch's random numbers."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.contents = [tensor.clone() for tensor in tensors]
        self.random = torch.get_rng_state()
        self.random_on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    @torch.no_grad()
    def restore(self) -> None:
        """Make all as it was."""
        for tensor, content in zip(self.tensors, self.contents, strict=True):
            tensor.copy_(content)
        torch.set_rng_state(self.random)
        if self.random_on_gpu:
            torch.cuda.set_rng_state_all(self.random_on_gpu)

    def same_random_numbers(self, other: "State") -> bool:
        """Whether the next random numbers are the same."""
        mine, others = [self.random, *self.random_on_gpu], [other.random, *other.random_on_gpu]
        return len(mine) == len(others) and all(map(torch.equal, mine, others))


class EagerRun:
    """An eager run, recorded; the gradients that the leaves had are given back.

    Args:
        function: Gives numbers or scalar tensors, and leaves gradients in the parameters.
        roots: What it depends on besides its arguments.
        args: Its arguments.
        kwargs: Its arguments by name.
    """

    def __init__(
        self, function: Function, roots: Sequence[object], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        before = Guards(roots)
        self.before = State(before.buffers)
        with without_gradients(_leaves(before)), torch.enable_grad():
            with poutine.trace(param_only=True) as capture:
                values = function(*args, **kwargs)
            #: The parameters that the programs register, by their names in the store.
            self.sites: dict[str, Tensor] = {
                name: site["value"].unconstrained() for name, site in capture.trace.nodes.items()
            }
            #: Made after the run, since a first one may create what later ones use.
            self.guards = Guards([*roots, *self.sites.values()])
            self.leaves = _leaves(self.guards)
            self.result = Values([as_tensor(value) for value in values], [leaf.grad for leaf in self.leaves])
        for leaf in self.leaves:
            if id(leaf) not in {id(known) for known in _leaves(before)}:
                leaf.grad = None
        self.after = State(before.buffers)
        self.versions = self.guards.versions()

    def deliver(self, result: Values) -> list[Tensor]:
        """The values of a result, with its gradients added to those in the leaves."""
        add_gradients(self.leaves, result.gradients)
        return result.values


def as_tensor(value: Tensor | float) -> Tensor:
    """A value, a number in Python's precision."""
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


@contextmanager
def without_gradients(leaves: Iterable[Tensor]) -> Iterator[None]:
    """Leaves that have no gradient, and afterwards those that they had."""
    had = [(leaf, leaf.grad) for leaf in leaves]
    for leaf, _ in had:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, gradient in had:
            leaf.grad = gradient


def add_gradients(leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """As `backward` does."""
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _leaves(guards: Guards) -> list[Tensor]:
    """What can get a gradient: tensors that the programs hold, and those in the parameter store."""
    stored = (parameter for _, parameter in pyro.get_param_store().named_parameters())
    found = {id(tensor): tensor for tensor in (*guards.tensors, *stored)}
    return [tensor for tensor in found.values() if tensor.requires_grad and tensor.is_leaf]
