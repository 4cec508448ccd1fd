"""A device that is the CPU and behaves as Apple's MPS: it has no float64, and its tensors meet no others.

`torch.device("mps")` is taken for the CPU, and each tensor remembers on which of the two it was made. What
MPS refuses is refused: float64 that is made on it or moved to it, and an operation on tensors of both, but
for numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MPS, CPU = torch.device("mps", 0), torch.device("cpu")
#: That of a tensor of which it is not known, which is told from `CPU` as an object.
UNKNOWN = torch.device("cpu")
_REFUSED = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
#: Operations whose first tensor takes what lies on another device, or is looked up by indices from it.
_COPIES, _LOOKS_UP = {"copy_"}, {"index", "index_put_", "index_put", "_unsafe_index", "_index_put_impl_"}


def place_of(tensor: Tensor) -> torch.device | None:
    """Where a tensor was made; None where that is not known."""
    return getattr(tensor, "_place", None)


def put(tensor: Tensor, place: torch.device | None) -> Tensor:
    """The tensor, made there."""
    if place == MPS and tensor.dtype == torch.float64:
        raise TypeError(_REFUSED)
    if place is not None:
        tensor._place = place  # type: ignore[attr-defined]
    return tensor


def _copied(tensor: Tensor) -> Tensor:
    """A copy that a recorded graph has, too: from one device to the other."""
    return torch.ops.aten._to_copy.default(tensor, device=CPU)


class _Move(torch.autograd.Function):
    """The same numbers on the other device; the gradient comes back to the first."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, place: torch.device) -> Tensor:
        ctx.place = place_of(tensor)
        return put(_copied(tensor), place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return put(_copied(gradient), ctx.place), None


def move(tensor: Tensor, place: torch.device) -> Tensor:
    """The tensor there, by a copy unless it is there."""
    if place_of(tensor) == place:
        return tensor
    if place == MPS and tensor.dtype == torch.float64:
        raise TypeError(_REFUSED)
    return put(_Move.apply(tensor, place), place)


def _device(value: Any) -> torch.device | None:
    """What a `device` argument means, if it is one."""
    if value is UNKNOWN:
        return None
    if isinstance(value, str):
        return MPS if value.startswith("mps") else CPU
    if isinstance(value, torch.device):
        return MPS if value.type == "mps" else CPU
    return None


class _Functions(TorchFunctionMode):
    """Devices as Python sees them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        of_graph = isinstance(func, torch._ops.OpOverload) or func is torch.empty_strided
        if of_graph:  # which knows the CPU alone
            return func(*args, **kwargs)
        if func == torch.Tensor.device.__get__:
            return place_of(args[0]) or UNKNOWN
        if func == torch.Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            put(args[0], place_of(args[1]))
            return None
        if func is torch.Tensor.cpu:
            return move(args[0], CPU)
        if func is torch.Tensor.to:
            return self._to(args[0], *args[1:], **kwargs)
        place = _device(kwargs["device"]) if kwargs.get("device") is not None else None
        if place is None:
            found = func(*args, **kwargs)
            is_factory = isinstance(found, Tensor) and not any(
                isinstance(each, Tensor) for each in tree_leaves((args, kwargs))
            )
            return put(found, CPU) if is_factory and place_of(found) is None else found
        found = func(*args, **{**kwargs, "device": CPU})
        return move(found, place) if isinstance(found, Tensor) else found

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        place, dtype, rest = place_of(tensor), None, {}
        for each in (*args, *kwargs.values()):
            if isinstance(each, Tensor):
                place, dtype = place_of(each) or CPU, each.dtype
            elif isinstance(each, torch.dtype):
                dtype = each
            elif (device := _device(each)) is not None:
                place = device
        if kwargs.get("copy"):
            rest["copy"] = True
        if place == CPU and place_of(tensor) == MPS and dtype == torch.float64:
            raise TypeError(_REFUSED)  # the type is changed first
        if place == MPS and place_of(tensor) != MPS and dtype is not None:
            tensor = torch.Tensor.to(tensor, dtype)  # it is changed on the CPU
        moved = tensor if place is None else move(tensor, place)
        return moved if dtype is None and not rest else torch.Tensor.to(moved, dtype or moved.dtype, **rest)  # type: ignore[call-overload]


class _Operations(TorchDispatchMode):
    """What MPS refuses, and where results lie."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        on_mps = [each for each in tensors if place_of(each) == MPS]
        name = func._schema.name.removeprefix("aten::")
        if on_mps:
            self._check(name, tensors)
        found = func(*args, **(kwargs or {}))
        if name == "_to_copy" and (kwargs or {}).get("device") is not None:
            return found  # where to is known to its caller
        known = [place_of(each) for each in tensors if place_of(each)]
        place = place_of(tensors[0]) if name in _COPIES else MPS if on_mps else CPU if known else None
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                put(each, place)
        return found

    def _check(self, name: str, tensors: list[Tensor]) -> None:
        first, others = tensors[0], tensors[1:]
        if name in _COPIES:
            if place_of(first) == CPU and first.dtype == torch.float64 and others[0].dtype != torch.float64:
                raise TypeError(_REFUSED)
            return
        looked_up = name in _LOOKS_UP and place_of(first) == MPS
        far = [each for each in tensors if place_of(each) == CPU and each.ndim]
        if looked_up:
            far = [each for each in far if each.is_floating_point()]
        in_place = name.endswith("_") and place_of(first) == CPU
        if far or in_place:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found mps:0 and cpu in {name} of "
                f"{[(place_of(each), each.dtype, tuple(each.shape)) for each in tensors]}"
            )


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


@contextmanager
def pretended_mps() -> Iterator[torch.device]:
    """Within, `torch.device("mps")` is there."""
    with (
        patch("torch.Generator", _Generator),
        patch("torch.mps.get_rng_state", lambda: torch.get_rng_state()),
        patch("torch.mps.set_rng_state", lambda state: torch.set_rng_state(state)),
        patch("torch.backends.mps.is_available", lru_cache(lambda: True)),
        _Operations(),
        _Functions(),
    ):
        yield MPS
