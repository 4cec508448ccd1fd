"""The draws of importance sampling: batches of data, chunks of draws."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.importance.bound import chunks_of
from pyro_vae.importance.halving import Halving
from pyro_vae.importance.pareto import pareto_k, tail_length
from pyro_vae.importance.running import Running, levels_of
from pyro_vae.importance.weights import Weights
from pyro_vae.precision import home, moved
from pyro_vae.randomness import BlockSeeds
from pyro_vae.ranks import workers

#: What is drawn: data, by their places in x, with the sizes of their chunks of draws.
Plan = list[tuple[Tensor, list[int]]]


class Sampling:
    """Weights of all data, batch by batch and chunk by chunk, as many of each datum as it is given.

    Ranks that share the work have a batch each in turn. The whole state can be kept and loaded between any
    two chunks.

    Args:
        weights: How they are computed.
        data: B data.
        draws: K, of each datum, or (B,) for each its own.
        rows: Draws handled at once.
    """

    def __init__(self, weights: Weights, data: Batch, draws: int | Tensor, *, rows: int) -> None:
        self.weights, self.data = weights, data
        self.within_memory = Halving(bool(weights.pair.whole))
        most = draws if isinstance(draws, int) else int(draws.max())
        self.levels, self.tail = levels_of(most), tail_length(most)
        columns = {"log_sum": 1, "log_sum_squares": 1, "largest": 1, "pareto_k": 1, "drawn": 1}
        #: What is found, per datum, (·, B) each.
        self.found = {
            name: torch.full((size, len(data)), torch.nan, dtype=torch.float64, device=home(data.device))
            for name, size in {**columns, "bound": len(self.levels)}.items()
        }
        self.plan = _plan(draws, len(data), rows, weights.pair.whole, data.device)
        self.batch = self.chunk = 0
        self.running: Running | None = None
        self.seeds: BlockSeeds | None = None

    def _running(self, num_data: int) -> Running:
        # one more than the tail, over which its excesses are taken
        return Running(num_data, self.levels, self.tail + 1, self.data.device)

    def run(self, keep: Callable[[], None], bar: "tqdm[Any]") -> Mapping[str, Tensor]:
        """Draw all; gives what was found. `keep` may keep the state after each chunk."""
        self.weights.prepare(sum(len(chunks) for _, chunks in self.plan))
        _announce(bar, self.plan, self.batch, self.chunk)
        self.seeds = self.seeds or BlockSeeds()
        parts = workers().each(partial(self._own, self.seeds, keep, bar))
        self.seeds.begin(len(self.plan))
        for block, (where, _) in enumerate(self.plan) if len(parts) > 1 else ():
            for name, found in parts[block % len(parts)].items():
                place = where.to(self.found[name].device)
                self.found[name][:, place] = found.to(place.device)[:, place]
        return self.found

    def _own(self, seeds: BlockSeeds, keep: Callable[[], None], bar: "tqdm[Any]") -> Mapping[str, Tensor]:
        """What is found of the batches of this rank, on the CPU."""
        ranks = workers()
        while self.batch < len(self.plan):
            where, chunks = self.plan[self.batch]
            if ranks.has(self.batch):
                self._draw(where, chunks, seeds, keep, bar)
            else:
                bar.update(len(where) * sum(chunks))
            self.batch, self.chunk, self.running = self.batch + 1, 0, None
        return {name: found.cpu() for name, found in self.found.items()}

    def _draw(
        self,
        where: Tensor,
        chunks: list[int],
        seeds: BlockSeeds,
        keep: Callable[[], None],
        bar: "tqdm[Any]",
    ) -> None:
        """All draws of one batch."""
        batch = self.data[where]
        if self.running is None:
            seeds.begin(self.batch)
            self.running = self._running(len(where))
        while self.chunk < len(chunks):
            draws = chunks[self.chunk]
            work = partial(self.weights, first=self.chunk == 0)
            self.running.add(self.within_memory(work, batch, draws))
            self.chunk += 1
            bar.update(draws * len(batch))
            keep()
        self.running.flush()
        self._note(where, self.running)

    def _note(self, where: Tensor, running: Running) -> None:
        """What is found of one batch."""
        sums, tail = running.tensors["sums"], running.tensors["tail"]
        _refuse_non_finite(sums[0], where, len(self.data))
        drawn, where = torch.full_like(sums[0], running.drawn), where.to(sums.device)
        rounding = self.weights.rounding
        k = [pareto_k(log_w, running.drawn, rounding=rounding) for log_w in tail.T.cpu()]
        for name, found in [
            ("log_sum", sums[0]),
            ("log_sum_squares", sums[1]),
            ("largest", tail[0]),
            ("pareto_k", drawn.new_tensor(k)),
            ("drawn", drawn),
            ("bound", running.bound()),
        ]:
            self.found[name][:, where] = found

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        running = None if self.running is None else self.running.state()
        places = {"batch": self.batch, "chunk": self.chunk, "rounding": self.weights.rounding}
        first = None if self.seeds is None else self.seeds.first
        return {**places, "seed": first, "found": self.found, "running": running}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.found = {name: moved(found, self.data.device) for name, found in state["found"].items()}
        self.batch, self.chunk, self.weights.rounding = state["batch"], state["chunk"], state["rounding"]
        self.seeds = None if state["seed"] is None else BlockSeeds(state["seed"])
        if state["running"] is not None:
            self.running = self._running(0)
            self.running.load(state["running"])


def _plan(draws: int | Tensor, num: int, rows: int, whole: int, device: torch.device) -> Plan:
    """Batches of data with as many draws each, and the sizes of their chunks."""
    if isinstance(draws, int):
        return list(chunks_of(torch.arange(num, device=device), draws, rows, whole))
    plan: Plan = []
    for each in draws.unique().tolist():
        plan += rounds_of((draws == each).nonzero()[:, 0], each, rows)
    return plan


def rounds_of(active: Tensor, draws: int, rows: int) -> Plan:
    """Batches and chunks in few different sizes, so that a flat graph serves for several numbers of draws.

    The last data, too few for a batch, come in batches whose sizes are powers of two.
    """
    size = max(rows // min(draws, 256), 1)
    full, rest = divmod(len(active), size)
    powers = [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    plan = []
    for where in active.split([size] * full + powers):
        chunk = _even(draws, rows // len(where))
        whole, last = divmod(draws, chunk)
        plan.append((where, [chunk] * whole + [last] * (last > 0)))
    return plan


def _even(draws: int, most: int) -> int:
    """The largest size of chunk that divides `draws`, unless that is less than half of `most`."""
    most = min(draws, most)
    return next((size for size in range(most, most // 2, -1) if draws % size == 0), most)


def _announce(bar: "tqdm[Any]", plan: Plan, batch: int, chunk: int) -> None:
    """Put the draws on the bar, those that a checkpoint had as done."""
    sizes = [len(where) * sum(chunks) for where, chunks in plan]
    bar.total = bar.n + sum(sizes)
    done = sum(sizes[:batch])
    if chunk:
        done += len(plan[batch][0]) * sum(plan[batch][1][:chunk])
    bar.update(done)


def _refuse_non_finite(log_sum: Tensor, where: Tensor, num_data: int) -> None:
    bad = where[log_sum.isnan() | log_sum.isposinf()].tolist()
    if bad:
        raise InputError(
            f"expected log weights that are numbers, got NaN or +inf for {len(bad)} of {len(where)} data "
            f"drawn together, first x[{bad[0]}] of {num_data}: see where log_weights(model, guide, "
            f"x[{bad[0]}:{bad[0] + 1}], 100) comes from"
        )
