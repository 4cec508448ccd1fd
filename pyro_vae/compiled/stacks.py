"""Tensors of several members, each kind of them in one tensor."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.compiled.reads import Untraceable


class _Stack(NamedTuple):
    """One kind of tensor."""

    #: Of each member; None of one that has left.
    members: list[Tensor | None]
    #: What each member's tensor had for its memory.
    own: list[Tensor]
    whole: Tensor


class Stacks:
    """One tensor for each kind that every member has: (M, …), the members' own being its rows.

    So what changes a member's tensor changes the row, and the other way round, until it leaves.

    >>> first, second = torch.zeros(2), torch.ones(2)
    >>> stacks = Stacks()
    >>> whole = stacks.of([first, second])
    >>> _ = whole.add_(1)
    >>> first, second
    (tensor([1., 1.]), tensor([2., 2.]))
    """

    def __init__(self) -> None:
        self._stacks: dict[tuple[int, ...], _Stack] = {}
        self._memory: set[int] = set()

    def of(self, tensors: Sequence[Tensor]) -> Tensor:
        """The tensor whose rows these are, from now on.

        Raises:
            Untraceable: where they are not of one kind, or share memory with others.
        """
        key = tuple(map(id, tensors))
        if key not in self._stacks:
            self._check(tensors)
            own = [tensor.data for tensor in tensors]
            whole = torch.stack(own)
            for tensor, row in zip(tensors, whole, strict=True):
                tensor.data = row
            self._stacks[key] = _Stack(list(tensors), own, whole)
        return self._stacks[key].whole

    def _check(self, tensors: Sequence[Tensor]) -> None:
        if len({(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors}) > 1:
            shapes = {tuple(tensor.shape) for tensor in tensors}
            raise Untraceable(f"tensors of the members differ in shape or type, as {shapes}")
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        apart = len(memory) == len(tensors) and not memory & self._memory
        if not (apart or tensors[0].numel() == 0) or not all(t.is_contiguous() for t in tensors):
            raise Untraceable(f"a tensor of shape {tuple(tensors[0].shape)} is a view of another")
        self._memory |= memory

    @torch.no_grad()
    def let_go(self, member: int) -> None:
        """Give a member its own memory back, with what is in its rows."""
        for stack in self._stacks.values():
            tensor = stack.members[member]
            if tensor is not None:
                stack.own[member].copy_(tensor)
                tensor.data = stack.own[member]
                stack.members[member] = None
