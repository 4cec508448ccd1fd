"""How many numbers a program holds for each draw."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.errors import InputError


class _Sizes(TorchDispatchMode):
    """The numbers that each operation gives, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **kwargs or {})
        self.found.append(result.numel() if isinstance(result, Tensor) else 0)
        return result


def largest_within(run: Callable[[int], object], draws: int) -> int:
    """How much larger the largest result within a program becomes with one draw more.

    What does not grow with the draws, as a parameter, does not count.

    Args:
        run: Runs the program with so many draws.
        draws: The fewest, with which it can be run.

    Returns:
        0 where it is not the same program with more draws, or cannot be run.
    """
    sizes = []
    for number in (draws, 2 * draws):
        with _Sizes() as seen:
            try:
                run(number)
            except InputError:
                return 0
        sizes.append(seen.found)
    few, more = sizes
    if len(few) != len(more):
        return 0
    return max(((after - before) // draws for before, after in zip(few, more, strict=True)), default=0)
