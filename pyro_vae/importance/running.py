"""What is kept of log weights as they come: memory does not grow with their number."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.precision import home, moved, wide

#: Numbers gathered before they are summed up, which costs less than to do so chunk by chunk.
_PENDING = 2**16


class Running:
    """Running sums of the weights of B data, their largest weights, and the bound at fewer draws.

    Args:
        num_data: B.
        levels: Numbers of draws K′ at which the bound is taken.
        tail: How many of the largest log weights are kept.
        device: Where all is kept, in float64: at log w of −2000 a float32 sum would no longer see one more
            weight among ten thousand.
    """

    def __init__(self, num_data: int, levels: tuple[int, ...], tail: int, device: torch.device) -> None:
        def filled(size: int, value: float) -> Tensor:
            return torch.full((size, num_data), value, dtype=torch.float64, device=home(device))

        self.levels, self.device = levels, device
        #: How many draws of each datum have been summed up.
        self.drawn = 0
        self.tensors = {
            "sums": filled(2, -math.inf),  # log Σ w and log Σ w²
            "tail": filled(tail, -math.inf),  # the largest log weights, from the largest down
            "partial": filled(len(levels), -math.inf),  # log Σ w of the block that is not full, by level
            "blocks": filled(len(levels), 0.0),  # Σ log mean w of the full blocks, by level
        }
        self._pending: list[Tensor] = []
        self._waiting = 0

    def add(self, log_w: Tensor) -> None:
        """Log weights of further draws (K, B)."""
        self._pending.append(log_w)
        self._waiting += log_w.numel()
        if self._waiting >= _PENDING:
            self.flush()

    def flush(self) -> None:
        """Sum up what is pending."""
        if not self._pending:
            return
        log_w = wide(torch.cat(self._pending))
        self._pending, self._waiting = [], 0
        sums = torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)])
        self.tensors["sums"] = torch.logaddexp(self.tensors["sums"], sums)
        both = torch.cat([self.tensors["tail"], log_w])
        self.tensors["tail"] = both.topk(len(self.tensors["tail"]), dim=0).values
        for number, level in enumerate(self.levels):
            self._add_to_blocks(number, level, log_w)
        self.drawn += len(log_w)

    def _add_to_blocks(self, number: int, level: int, log_w: Tensor) -> None:
        """Fill the open block of one level, then whole blocks, then open the next."""
        partial, blocks = self.tensors["partial"][number], self.tensors["blocks"][number]
        missing = level - self.drawn % level
        torch.logaddexp(partial, log_w[:missing].logsumexp(0), out=partial)
        if len(log_w) < missing:
            return
        whole = (len(log_w) - missing) // level
        end = missing + whole * level
        full = log_w[missing:end].reshape(whole, level, log_w.shape[1]).logsumexp(1)
        blocks += partial + full.sum(0) - (1 + whole) * math.log(level)
        partial.copy_(log_w[end:].logsumexp(0))  # −inf where nothing is left

    def bound(self) -> Tensor:
        """The mean over full blocks of K′ draws of log 1/K′ Σ w: (levels, B); NaN where none is full."""
        full = [self.drawn // level for level in self.levels]
        number = torch.tensor(full, dtype=torch.float64, device=self.tensors["blocks"].device)
        return torch.where(number > 0, (self.tensors["blocks"].T / number), math.nan).T

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {**self.tensors, "pending": self._pending, "drawn": self.drawn}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.tensors = {name: moved(state[name], self.device) for name in self.tensors}
        self._pending = [moved(log_w, self.device) for log_w in state["pending"]]
        self._waiting = sum(log_w.numel() for log_w in self._pending)
        self.drawn = state["drawn"]


def levels_of(num_particles: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, … below K, and K."""
    powers = range(len(str(num_particles)))
    below = [lead * 10**power for power in powers for lead in (1, 2, 5) if lead * 10**power < num_particles]
    return (*below, num_particles)
