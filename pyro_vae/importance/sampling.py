"""The draws of importance sampling: batches of data, chunks of draws, rounds until all data are done."""

from collections.abc import Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.batch import Batch
from pyro_vae.compiled import FlatFunction
from pyro_vae.compiled.policy import WEIGHTS, Compile, choose
from pyro_vae.errors import InputError
from pyro_vae.importance.bound import chunks_of
from pyro_vae.importance.halving import Halving
from pyro_vae.importance.pareto import pareto_k, tail_length
from pyro_vae.importance.running import Running, levels_of
from pyro_vae.importance.summary import standard_error
from pyro_vae.programs import Pair
from pyro_vae.storage.resumable import Resumable

#: Draws per datum in the first round of a stopping rule; the second makes them 2000, the third 4000.
FIRST_ROUND = 1000

#: What a round of draws does: data, by their places in x, with the sizes of their chunks of draws.
Plan = list[tuple[Tensor, list[int]]]


class Sampling:
    """Weights of all data, drawn in rounds, after each of which the data that are done stay behind.

    Without `until` there is one round of `num_particles` draws. The whole state can be kept and loaded
    between any two chunks.

    Args:
        pair: The model and the guide.
        data: B data.
        num_particles: Draws per datum, with `until` at the most.
        rows: Draws handled at once.
        until: Monte Carlo standard error, in nats, at which a datum is done.
        compile: How weights are computed, as in `log_evidence`.
    """

    def __init__(
        self, pair: Pair, data: Batch, num_particles: int, *, rows: int, until: float | None, compile: Compile
    ) -> None:
        self.data, self.num_particles, self.rows, self.until = data, num_particles, rows, until
        self.weights, self.whole = _Weights(pair, compile), pair.whole
        self.within_memory = Halving(bool(pair.whole))
        if pair.whole and until is not None:
            raise InputError(
                "until_standard_error expects a guide that can be run on a part of the data, got one for "
                "these very data: leave it out"
            )
        self.levels = levels_of(num_particles)
        columns = {"log_sum": 1, "log_sum_squares": 1, "largest": 1, "pareto_k": 1, "drawn": 1}
        #: What is found, per datum, (·, B) each.
        self.found = {
            name: torch.full((size, len(data)), torch.nan, dtype=torch.float64, device=data.device)
            for name, size in {**columns, "bound": len(self.levels)}.items()
        }
        self.active = torch.arange(len(data), device=data.device)
        #: All data between rounds, where there are several.
        self.pool = self._running(len(data)) if until is not None else None
        #: How many draws the active data have before and after this round.
        self.before, self.after = 0, num_particles if until is None else min(num_particles, FIRST_ROUND)
        self.batch = self.chunk = 0
        self.running: Running | None = None

    def _running(self, num_data: int) -> Running:
        # one more than the tail, over which its excesses are taken
        return Running(num_data, self.levels, tail_length(self.num_particles) + 1, self.data.device)

    def run(self, kept: Resumable, bar: "tqdm[Any]") -> None:
        """Draw until all data are done."""
        if kept.state is not None:
            self._load(kept.state)
        while len(self.active):
            plan = self._plan()
            self.weights.prepare(sum(len(chunks) for _, chunks in plan))
            _announce(bar, plan, self.batch, self.chunk)
            while self.batch < len(plan):
                self._draw(*plan[self.batch], kept, bar)
                self.batch, self.chunk, self.running = self.batch + 1, 0, None
            self._next_round()

    def _plan(self) -> Plan:
        draws = self.after - self.before
        if self.until is None:
            return list(chunks_of(self.active, draws, self.rows, self.whole))
        return rounds_of(self.active, draws, self.rows)

    def _draw(self, where: Tensor, chunks: list[int], kept: Resumable, bar: "tqdm[Any]") -> None:
        """All draws of one batch in this round."""
        batch = self.data[where]
        if self.running is None:
            self.running = self.pool.take(where) if self.pool else self._running(len(where))
        while self.chunk < len(chunks):
            draws = chunks[self.chunk]
            work = partial(self.weights, first=self.chunk == 0)
            self.running.add(self.within_memory(work, batch, draws))
            self.chunk += 1
            bar.update(draws * len(batch))
            kept.keep(self._state)
        self.running.flush()
        self._note(where, self.running)
        if self.pool:
            self.pool.put(where, self.running)

    def _note(self, where: Tensor, running: Running) -> None:
        """What is found of one batch; k̂ of those data that are done."""
        sums, tail = running.tensors["sums"], running.tensors["tail"]
        _refuse_non_finite(sums[0], where, len(self.data))
        drawn = torch.full_like(sums[0], running.drawn)
        for name, found in [
            ("log_sum", sums[0]),
            ("log_sum_squares", sums[1]),
            ("largest", tail[0]),
            ("drawn", drawn),
            ("bound", running.bound()),
        ]:
            self.found[name][:, where] = found
        done = self._done(where).tolist()
        rounding = self.weights.rounding
        k = [
            pareto_k(log_w, running.drawn, rounding=rounding) if now else torch.nan
            for log_w, now in zip(tail.T.cpu(), done, strict=True)
        ]
        self.found["pareto_k"][0, where] = drawn.new_tensor(k)

    def _done(self, where: Tensor) -> Tensor:
        """Whether the data at these places are drawn no further."""
        if self.until is None or self.after == self.num_particles:
            return torch.ones_like(where, dtype=torch.bool)
        names = ("log_sum", "log_sum_squares", "drawn")
        return standard_error(*(self.found[name][0, where] for name in names)) <= self.until

    def _next_round(self) -> None:
        self.active = self.active[~self._done(self.active)]
        self.batch, self.before = 0, self.after
        self.after = min(2 * self.after, self.num_particles)
        if self.pool:
            self.pool.drawn = self.before

    def _state(self) -> dict[str, Any]:
        assert self.running is not None
        places = {name: getattr(self, name) for name in ("active", "before", "after", "batch", "chunk")}
        pool = self.pool.state() if self.pool else None
        weights = {"rounding": self.weights.rounding}
        return {**places, **weights, "found": self.found, "pool": pool, "running": self.running.state()}

    def _load(self, state: Mapping[str, Any]) -> None:
        device = self.data.device
        self.found = {name: found.to(device) for name, found in state["found"].items()}
        self.active = state["active"].to(device)
        for name in ("before", "after", "batch", "chunk"):
            setattr(self, name, state[name])
        self.weights.rounding = state["rounding"]
        self.running = self._running(0)
        self.running.load(state["running"])
        if self.pool:
            self.pool.load(state["pool"])


class _Weights:
    """Log weights of chunks, by Pyro or by a flat graph."""

    def __init__(self, pair: Pair, compile: Compile) -> None:
        if compile not in get_args(Compile):
            raise InputError(f"compile expects 'auto', 'flat', 'inductor' or 'off', got {compile!r}")
        self.pair, self.compile = pair, compile
        self.flat: FlatFunction | None = None
        #: Relative rounding of the weights' type.
        self.rounding = 0.0

    def prepare(self, chunks: int) -> None:
        """Choose by how many chunks come."""
        choice = choose(self.compile, WEIGHTS, chunks, chunks)
        better = self.flat is None or (choice.inductor and not self.flat.inductor and not self.flat.eager)
        if choice.graph and better:
            self.flat = FlatFunction(fast=True, inductor=choice.inductor, who="log_evidence")

    def __call__(self, batch: Batch, draws: int, *, first: bool) -> Tensor:
        """(draws, B); data outside the support are refused by the first chunk."""
        if self.flat is None:
            log_w = self.pair.log_weights(batch, draws, validate=first)
        else:
            if first:
                self.pair.check(batch)

            def log_weights(*tensors: Tensor) -> Tensor:
                return self.pair.log_weights(batch.with_tensors(tensors), draws, validate=False)

            log_w = self.flat(log_weights, batch.tensors, draws)
        self.rounding = torch.finfo(log_w.dtype).eps
        return log_w


def rounds_of(active: Tensor, draws: int, rows: int) -> Plan:
    """Batches and chunks in few different sizes, so that a flat graph serves in several rounds.

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
    """Put the draws of a round on the bar, those that a checkpoint had as done."""
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
