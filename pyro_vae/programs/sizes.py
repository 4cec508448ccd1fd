"""How many numbers a program holds for each draw."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Sizes(TorchDispatchMode):
    """The shapes of what the operations of a run give, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **kwargs or {})
        if isinstance(result, Tensor):
            self.shapes.add(tuple(result.shape))
        return result

    def largest(self, draws: int, data: int) -> int:
        """Numbers of the largest result for each draw of each datum.

        What has another first axis, as a parameter, does not grow with the draws.

        Args:
            draws: Of each datum, in the run.
            data: In the run.
        """
        rows = draws * data
        sizes = [math.prod(shape) for shape in self.shapes if shape and shape[0] in (draws, rows)]
        return max((size // rows for size in sizes), default=0)
