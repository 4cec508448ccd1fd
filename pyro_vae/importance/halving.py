"""Work on many draws at once, and on fewer where they do not fit into memory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError, out_of_memory
from pyro_vae.programs import say

#: What is computed of draws of data: (…, K, B).
Work = Callable[[Batch, int], Tensor]


class Halving:
    """Computes in one go what fits into memory; what does not is halved, and so is all that follows.

    Args:
        whole: Whether the data must stay together.
    """

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        #: Draws of data that may fit.
        self.most = math.inf

    def __call__(self, work: Work, batch: Batch, draws: int) -> Tensor:
        """`work(batch, draws)`, in one go or in parts.

        Raises:
            InputError: where one draw of one datum does not fit.
        """
        rows = draws * len(batch)
        if rows <= self.most:
            try:
                return work(batch, draws)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            self._halve(rows)
        half = draws // 2 or len(batch) // 2
        if draws > 1:
            return torch.cat([self(work, batch, half), self(work, batch, draws - half)], dim=-2)
        if not half or self.whole:
            raise InputError("out of memory with one draw at a time: use smaller networks")
        parts = slice(0, half), slice(half, None)
        return torch.cat([self(work, batch[part], draws) for part in parts], dim=-1)

    def _halve(self, rows: int) -> None:
        self.most = rows // 2
        say(f"{rows} draws at once do not fit into memory: going on with {max(self.most, 1)}")
