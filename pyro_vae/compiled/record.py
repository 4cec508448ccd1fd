"""An eager run of a computation with gradients, with all that it changed."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyro_vae.batch import Batch
from pyro_vae.compiled.guards import Guards

Function = Callable[..., Sequence[Tensor | float]]


class ValuesAndGradients(NamedTuple):
    """What a run computes."""

    #: What the function returns.
    values: list[Tensor]
    #: The gradient of each leaf, None where it is not reached.
    gradients: list[Tensor | None]


class State:
    """The contents of some tensors, and the state of torch's random numbers."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = [tensor for tensor in tensors if not is_lazy(tensor)]
        self.contents = [tensor.clone() for tensor in self.tensors]
        self.random = torch.get_rng_state()
        self.random_on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.random_on_mps = [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []

    @torch.no_grad()
    def restore(self) -> None:
        """Make all as it was."""
        for tensor, content in zip(self.tensors, self.contents, strict=True):
            tensor.copy_(content)
        torch.set_rng_state(self.random)
        if self.random_on_gpu:
            torch.cuda.set_rng_state_all(self.random_on_gpu)
        for state in self.random_on_mps:
            torch.mps.set_rng_state(state)

    def same_random_numbers(self, other: "State") -> bool:
        """Whether the next random numbers are the same."""
        mine, others = ([each.random, *each.random_on_gpu, *each.random_on_mps] for each in (self, other))
        return len(mine) == len(others) and all(map(torch.equal, mine, others))


class Store:
    """What Pyro's parameter store holds, and how often each tensor has been changed."""

    def __init__(self) -> None:
        self.tensors = dict(pyro.get_param_store().named_parameters())
        self.versions = {name: tensor._version for name, tensor in self.tensors.items()}

    def overwritten(self, known: Iterable[Tensor]) -> str:
        """What a run has put in the place of something else, as the running average of a baseline.

        Not where it is a tensor of the programs themselves, as a module that takes the names of another one.
        """
        now, held = Store(), {id(tensor) for tensor in known}
        for name, tensor in self.tensors.items():
            new = now.tensors.get(name)
            if id(new) in held and new is not tensor:
                continue
            if new is not tensor or now.versions[name] != self.versions[name]:
                return f"the parameter {name!r} of Pyro's store"
        return ""

    def created(self, known: Iterable[Tensor]) -> str:
        """What a run has put into the store anew, or in the place of what was there under its name."""
        held = {id(tensor) for tensor in known}
        for name, tensor in Store().tensors.items():
            before = self.tensors.get(name)
            if (before is None and id(tensor) not in held) or (before is not None and before is not tensor):
                return name
        return ""


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
        before = Guards([*roots, *(parameter for _, parameter in pyro.get_param_store().named_parameters())])
        self.before = State(before.buffers)
        known = _leaves(before)
        elsewhere, store = _random_numbers_elsewhere(), Store()
        versions = [arg._version for arg in args if isinstance(arg, Tensor)]
        with without_gradients(known), torch.enable_grad():
            with poutine.trace(param_only=True) as capture:
                values = function(*args, **kwargs)
            #: The parameters that the programs register, by their names in the store.
            self.sites: dict[str, Tensor] = {
                name: site["value"].unconstrained() for name, site in capture.trace.nodes.items()
            }
            #: Made after the run, since a first one may create what later ones use.
            self.guards = Guards([*roots, *self.sites.values()])
            self.leaves = _leaves(self.guards)
            self.result = ValuesAndGradients(
                [as_tensor(value) for value in values], [leaf.grad for leaf in self.leaves]
            )
        had = {id(leaf) for leaf in known}
        for leaf in self.leaves:
            if id(leaf) not in had:  # it was made in this run
                leaf.grad = None
        self.after = State(before.buffers)
        #: Why there can be no graph of such runs; empty where nothing is known against it.
        self.problem = ""
        #: What a first run has made, as later ones may not: there can be no graph of this one.
        self.created = before.changed() or store.created(before.tensors)
        if before.unprepared:
            self.created = "an autoguide"
        elif overwritten := before.overwritten() or store.overwritten(before.tensors):
            self.problem = f"{overwritten} changes as it runs: keep it out of the program, or in a buffer"
        elif versions != [arg._version for arg in args if isinstance(arg, Tensor)]:
            self.problem = "an argument changes as it runs: change a copy, as x = x.clone()"
        elif elsewhere != _random_numbers_elsewhere():
            self.problem = "it draws random numbers that are not torch's: draw by torch, or pyro.sample"

    def reaches_only(self, leaves: list[Tensor]) -> bool:
        """Whether no other tensors have a gradient; these are then those of the run.

        Others may have come into the parameter store since, or have left it, with programs of their own.
        """
        found = {id(leaf): each for leaf, each in zip(self.leaves, self.result.gradients, strict=True)}
        gradients = [found.pop(id(leaf), None) for leaf in leaves]
        if any(gradient is not None for gradient in found.values()):
            return False
        self.leaves, self.result = leaves, self.result._replace(gradients=gradients)
        return True

    def deliver(self, result: ValuesAndGradients) -> list[Tensor]:
        """The values of a result, with its gradients added to those in the leaves."""
        add_gradients(self.leaves, result.gradients)
        return result.values


class PlainRun:
    """A further eager run, of what an earlier one has recorded: values, gradients and buffers only.

    Args:
        function: As of the earlier one.
        batch: Its arguments.
        earlier: The run that says what is reached.
    """

    def __init__(self, function: Function, batch: Batch, earlier: EagerRun) -> None:
        self.before, self.leaves = State(earlier.before.tensors), earlier.leaves
        with without_gradients(earlier.leaves), torch.enable_grad():
            values = batch.call(function)
            self.result = ValuesAndGradients(
                [as_tensor(value) for value in values], [leaf.grad for leaf in earlier.leaves]
            )
        self.after = State(earlier.before.tensors)


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


def _random_numbers_elsewhere() -> tuple[object, ...]:
    """The states of Python's and NumPy's random numbers."""
    state = np.random.get_state(legacy=False)["state"]
    return random.getstate(), state["pos"], state["key"].tobytes()


def _leaves(guards: Guards) -> list[Tensor]:
    """What can get a gradient: tensors that the programs hold, and those in the parameter store."""
    stored = (parameter for _, parameter in pyro.get_param_store().named_parameters())
    found = {id(tensor): tensor for tensor in (*guards.tensors, *stored)}
    return [t for t in found.values() if t.requires_grad and t.is_leaf and not is_lazy(t)]
