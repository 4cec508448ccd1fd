"""A flat graph of one member, run for several at once.

The graph of one is cut at its random draws. They are made member by member, each from its own random
numbers, as that member would make them alone; all else is one graph over tensors with an axis of members,
by `torch.vmap`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._C._functorch import _set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]

from pyro_vae.compiled.cut import Joined
from pyro_vae.compiled.graph import lift, operations_of, straight_line
from pyro_vae.compiled.passes import use_fast_operations
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.compiled.simplify import own_outputs, simplify
from pyro_vae.errors import one_line
from pyro_vae.randomness import OwnStream, in_each

Outputs = list[Tensor | None]


class BatchedGraph:
    """A flat graph for M members at once.

    Args:
        joined: The graphs of all members as one.
        held: For each tensor that it closes over that of all members, (M, …), or the one that they share.
        stacked: Which of `held` are of all members.
        streams: The random numbers of each member.
        args: Arguments of all members, (M, …) each; the graph is for these shapes only.
        fast: Use operations that are faster and round differently, on a CPU.

    Raises:
        Untraceable: where torch has no batched form of it, or its draws change something else.
    """

    def __init__(
        self,
        joined: Joined,
        held: Sequence[Tensor],
        stacked: Sequence[bool],
        streams: Sequence[OwnStream],
        args: Sequence[Tensor],
        *,
        fast: bool,
    ) -> None:
        self.held, self.streams = list(held), list(streams)
        self._needed = joined.needed
        self._draws = [straight_line(each) for each in joined.draws]
        self._own = [True] * len(args) + list(stacked)
        draws = self.draw([*args, *self.held], keep=True)
        numbers = [
            torch.tensor(each.values, dtype=each.dtype, device=args[0].device) for each in joined.numbers
        ]
        self._last: list[Tensor] = numbers
        example = [each.detach() for each in (*args, *self.held, *draws, *numbers)]
        axes = [0 if own else None for own in (*self._own, *[True] * len(draws), *[True] * len(numbers))]
        try:
            module, self._given = _batched(joined.rest, axes, example)
            constants = lift(module)
            simplify(module, constants)
            if fast:
                use_fast_operations(module)
            own_outputs(module)
        except Untraceable:
            raise
        except Exception as error:  # of an operation without a batched form
            raise Untraceable(f"torch cannot batch an operation of it ({one_line(error)[:200]})") from error
        self._last += constants
        self.module = module
        self._run = straight_line(module, reuse=True)

    @torch.no_grad()
    def draw(self, inputs: Sequence[Tensor], *, keep: bool = False) -> list[Tensor]:
        """The draws of all members, (M, …) each; with `keep` their random numbers stay as they are."""
        needed = [(inputs[place], self._own[place]) for place in self._needed]
        makers = [
            partial(self._draws[member], *(tensor[member] if own else tensor for tensor, own in needed))
            for member in range(len(self.streams))
        ]
        drawn = in_each(self.streams, makers, keep=keep)
        return [torch.stack(each) for each in zip(*drawn, strict=True)]

    @torch.no_grad()
    def __call__(self, args: Sequence[Tensor]) -> Outputs:
        """What the graph gives for other arguments of the same shapes: (M, …) each, or None."""
        inputs = [*args, *self.held]
        found = iter(self._run(*inputs, *self.draw(inputs), *self._last))
        return [next(found) if given else None for given in self._given]


def _batched(
    rest: fx.GraphModule, axes: Sequence[int | None], example: Sequence[Tensor]
) -> tuple[fx.GraphModule, list[bool]]:
    """A graph over an axis of members, and which of its outputs are tensors."""
    (output,) = (node for node in rest.graph.nodes if node.op == "output")
    given = [each is not None for each in output.args[0]]
    output.args = ([each for each in output.args[0] if each is not None],)
    run = straight_line(rest)
    with torch.no_grad():
        try:  # a tensor without an axis of members cannot take in place what has one
            return _traced(torch.func.functionalize(run), axes, example), given
        except RuntimeError:  # of views by strides
            return _traced(run, axes, example), given


def _traced(run: Callable[..., Any], axes: Sequence[int | None], example: Sequence[Tensor]) -> fx.GraphModule:
    """The operations of a function over an axis of members."""
    copies = [each.clone() for each in example]  # since a run may change them
    _set_vmap_fallback_warning_enabled(False)  # what is done one member after the other is right all the same
    try:
        return operations_of(torch.vmap(run, in_dims=tuple(axes)), copies)
    finally:
        _set_vmap_fallback_warning_enabled(True)
