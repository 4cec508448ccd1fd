"""Data: x, and what is given beside it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
from torch import Tensor

from pyro_vae.errors import InputError

#: A Pyro program, called as `program(x, **given)`.
Program = Callable[..., Any]

#: What is known beside x: by name, a tensor (B, …) of each datum, or a constant that is the same for all.
Given = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """B data: x, and what is given beside it, by name.

    A tensor with an axis is known for each datum, (B, …), and is cut, repeated and joined with x; all else
    (a number, a tensor without an axis) is the same for all data.

    Args:
        x: (B, *data_shape).
        given: What programs take besides x, by the names of their arguments.

    Raises:
        InputError: where x is no tensor of one datum or more, is of 16 bits, or something given has another
            first axis.

    >>> batch = Batch(torch.zeros(3, 2), {"label": torch.tensor([0, 1, 2]), "beta": 0.5})
    >>> batch[1:].given["label"], batch.repeat(2).given["label"], len(batch)
    (tensor([1, 2]), tensor([0, 1, 2, 0, 1, 2]), 3)
    """

    x: Tensor
    given: Given = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not isinstance(self.x, Tensor):
            raise InputError(
                f"expected x as one tensor (B, *data_shape), got a {type(self.x).__name__}: use "
                "torch.as_tensor on an array, and give what lies beside x by name, as given={'label': y}"
            )
        if self.x.ndim == 0 or len(self.x) == 0:
            raise InputError(
                f"expected data of shape (B, *data_shape) with B at least 1, got {tuple(self.x.shape)}"
            )
        for tensor in self.tensors:
            if tensor.layout is not torch.strided or tensor.is_meta:
                raise InputError(f"expected dense tensors with data, got {tensor.layout} on {tensor.device}")
        if self.x.dtype in (torch.float16, torch.bfloat16):
            raise InputError(f"expected float32 or float64 data, got {self.x.dtype}: use .float()")
        for name, value in self.given.items():
            if is_per_datum(value) and len(value) != len(self.x):
                raise InputError(
                    f"expected given[{name!r}] for each of {len(self.x)} data, got shape "
                    f"{tuple(value.shape)}: a constant goes into the program, as by functools.partial"
                )

    @classmethod
    def of(cls, x: "Tensor | Batch", given: Given | None) -> "Batch":
        """A batch of x and what is given; of x itself where that is one."""
        if isinstance(x, Batch):
            return x if given is None else Batch(x.x, {**x.given, **given})
        if given is not None and not isinstance(given, Mapping):
            raise InputError(
                f"given expects a dictionary from names of arguments to tensors, got a "
                f"{type(given).__name__}: give a second tensor y of model(x, y) as given={{'y': y}}"
            )
        return cls(x, given or {})

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> "Batch":
        """Some of the data, as by a slice or a tensor of their places."""
        return self._each(lambda tensor: tensor[index])

    @property
    def tensors(self) -> list[Tensor]:
        """x, and all tensors given, in one order."""
        return [self.x, *(value for value in self.given.values() if isinstance(value, Tensor))]

    @property
    def per_datum(self) -> list[Tensor]:
        """x, and the tensors given that are known for each datum."""
        return [tensor for tensor in self.tensors if is_per_datum(tensor)]

    @property
    def device(self) -> torch.device:
        """Where x is."""
        return self.x.device

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Batch":
        """Others in the places of `tensors`."""
        x, *rest = tensors
        others = iter(rest)
        return Batch(
            x, {n: next(others) if isinstance(value, Tensor) else value for n, value in self.given.items()}
        )

    def to(
        self, device: torch.device | str, dtype: torch.dtype | None = None, *, whole: bool = False
    ) -> "Batch":
        """All tensors on `device`; x, and what is given of floating point, in `dtype`.

        Args:
            device: Where to.
            dtype: The type; None for that which each has.
            whole: Leave x as it is, too, where it is of whole numbers.
        """
        x = self.x.to(device, None if whole and not self.x.is_floating_point() else dtype)
        given = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            if isinstance(value, Tensor)
            else value
            for name, value in self.given.items()
        }
        return self if x is self.x and not given else Batch(x, given)

    def repeat(self, num: int) -> "Batch":
        """All data `num` times, one round after the other."""
        return self if num == 1 else self._each(lambda tensor: tensor.repeat(num, *[1] * (tensor.ndim - 1)))

    def clone(self) -> "Batch":
        """A copy that shares no memory."""
        return self.with_tensors([tensor.clone() for tensor in self.tensors])

    def copy_(self, other: "Batch") -> None:
        """Take over the content of another batch of the same shapes, in place."""
        for mine, its in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(its)

    def split(self, size: int) -> Iterator["Batch"]:
        """Batches of `size` data, the last one of fewer."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def call(self, program: Program) -> Any:
        """`program` on these data: x first, what is given by name."""
        return program(self.x, **self.given)

    def offer(self, function: Callable[..., Any]) -> Any:
        """`function` of x, and by name of what is given, as far as its signature takes it.

        >>> Batch(torch.ones(2), {"label": torch.zeros(2)}).offer(lambda x: x + 1)
        tensor([2., 2.])
        """
        taken = signature(function).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            return function(self.x, **{name: value for name, value in self.given.items() if name in taken})
        return self.call(function)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        given = {name: change(value) if is_per_datum(value) else value for name, value in self.given.items()}
        return Batch(change(self.x), given)


def is_per_datum(value: object) -> TypeGuard[Tensor]:
    """Whether what is given is known for each datum: a tensor (B, …), and no constant."""
    return isinstance(value, Tensor) and value.ndim > 0


@dataclass(frozen=True, eq=False)
class BatchOfEach:
    """A batch of B data for each of M members, in tensors of all of them.

    Args:
        x: (M, B, *data_shape).
        given: As of a `Batch`, tensors (M, …) each, and constants that are no tensors.

    >>> batches = BatchOfEach.of([Batch(torch.zeros(3, 2)), Batch(torch.ones(3, 2))])
    >>> batches.x.shape, batches[1].x.sum()
    (torch.Size([2, 3, 2]), tensor(6.))
    """

    x: Tensor
    given: Given = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "BatchOfEach":
        """Those of all members, which are of one shape and have equal constants."""
        x, *rest = (torch.stack(each) for each in zip(*(batch.tensors for batch in batches), strict=True))
        others = iter(rest)
        given = batches[0].given.items()
        return cls(x, {name: next(others) if isinstance(value, Tensor) else value for name, value in given})

    @property
    def tensors(self) -> list[Tensor]:
        """x, and all tensors given, in one order."""
        return [self.x, *(value for value in self.given.values() if isinstance(value, Tensor))]

    def __getitem__(self, member: int) -> Batch:
        """The batch of one member."""
        given = {
            name: value[member] if isinstance(value, Tensor) else value for name, value in self.given.items()
        }
        return Batch(self.x[member], given)
