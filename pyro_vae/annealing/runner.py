"""Annealing runs over a set of data, batch by batch."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from pyro_vae.annealing.chains import Chains, anneal, begin
from pyro_vae.annealing.kernels import Kernels, tune
from pyro_vae.annealing.path import Compile, Path, Start
from pyro_vae.annealing.schedules import Schedule
from pyro_vae.checkpoints import Resumable, fingerprint
from pyro_vae.compiled import own_draws
from pyro_vae.errors import InputError, count
from pyro_vae.programs import Latents
from pyro_vae.randomness import own_randomness


class Options(NamedTuple):
    """How to anneal; what each means stands with `annealed_log_evidence`."""

    num_chains: int
    num_temperatures: int
    start: Start
    schedule: Schedule
    leapfrog_steps: int
    target_acceptance: float
    rows: int | None
    compile: Compile

    def resumable(
        self, path: FilePath | str | None, latents: Latents, x: Tensor, **more: object
    ) -> Resumable:
        """Where the state of a run with these options is kept."""
        settings = {**self._asdict(), **more}
        if path is not None:
            with own_randomness(0, x.device), torch.no_grad():
                settings["log weights"] = latents.pair.log_weights(x[:1], 1, validate=False)
            settings["data"] = fingerprint(x)
        return Resumable(path, settings, x.device)

    def check(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("num_chains", "num_temperatures", "leapfrog_steps"):
            count(name, getattr(self, name))
        if not 0 < self.target_acceptance < 1:
            raise InputError(
                f"target_acceptance expects a number between 0 and 1, got {self.target_acceptance}"
            )


class Weights(NamedTuple):
    """Log weights of all chains, (C, N) float64, and the mean acceptance of each datum, (N,)."""

    log_weights: Tensor
    acceptance: Tensor


@dataclass
class _Progress:
    """How far a run has come: finished batches, and the state of the one at work."""

    batch: int = 0
    way: int = 0
    kernels: Kernels | None = None
    chains: Chains | None = None
    #: By way, the log weights (C, B) and acceptance (B,) of each finished batch.
    done: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)

    def state(self, x: Tensor, ends: Tensor | None) -> dict[str, Any]:
        """All of it as tensors and numbers, with simulated data, which no later call would draw again."""
        kernels, chains = (None if part is None else tuple(part) for part in (self.kernels, self.chains))
        now = {"batch": self.batch, "way": self.way, "kernels": kernels, "chains": chains, "done": self.done}
        drawn = None if ends is None else (x, ends)
        return {**now, "drawn": drawn}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> "_Progress":
        """What `state` gave."""
        kept = {name: state[name] for name in ("batch", "way", "kernels", "chains", "done")}
        there = tree_map_only(Tensor, lambda tensor: tensor.to(device), kept)
        kernels, chains = there.pop("kernels"), there.pop("chains")
        return cls(
            **there,
            kernels=None if kernels is None else Kernels(*kernels),
            chains=None if chains is None else Chains(*chains),
        )


class Runner:
    """Forward runs, and reverse ones by the same transitions, over data of any number.

    Args:
        latents: Of the model.
        options: How to anneal.
        x: Data (N, *data_shape).
        ends: Draws of p(u|x), (N, n), from which the reverse chains start; none for forward runs only.
        progress: Show a progress bar.
        resumable: Where the state is kept, entered.
    """

    def __init__(
        self,
        latents: Latents,
        options: Options,
        x: Tensor,
        ends: Tensor | None,
        *,
        progress: bool,
        resumable: Resumable,
    ) -> None:
        options.check()
        self.latents, self.options, self.x, self.ends = latents, options, x, ends
        self.resumable = resumable
        self.ways = 1 if ends is None else 2
        rows = latents.pair.flat_rows if options.rows is None else count("rows", options.rows)
        self.batches = _slices(len(x), max(rows // options.num_chains, 1))
        self.total = len(self.batches) * self.ways * options.num_temperatures
        self._now = _Progress(done=[[] for _ in range(self.ways)])
        self._paths: dict[int, Path] = {}
        self._bar = tqdm(total=self.total, unit="temperature", disable=not progress)

    def run(self) -> list[Weights]:
        """The weights of the forward runs, and of the reverse ones where there are ends."""
        if self.resumable.state is not None:
            self._now = _Progress.of(self.resumable.state, self.x.device)
        now = self._now
        with self._bar:
            for batch in range(now.batch, len(self.batches)):
                now.batch = batch
                self._batch(self._path(self.x[self.batches[now.batch]]))
        return [
            Weights(*[torch.cat(parts, dim=-1) for parts in zip(*done, strict=True)]) for done in now.done
        ]

    def _batch(self, path: Path) -> None:
        """One batch from where it is to its end."""
        now, options = self._now, self.options
        if now.kernels is None:
            self._check(path)
            now.kernels = tune(
                path,
                num_chains=options.num_chains,
                num_temperatures=options.num_temperatures,
                leapfrog_steps=options.leapfrog_steps,
                name=options.schedule,
                target_acceptance=options.target_acceptance,
            )
        for way in range(now.way, self.ways):
            now.way = way
            if now.chains is None:
                now.chains = begin(self._first(path))
            chains = anneal(path, now.kernels, now.chains, reverse=now.way == 1, after=self._keep)
            # NaN for one temperature, where there are no transitions
            acceptance = chains.acceptance / (options.num_temperatures - 1)
            now.done[way].append((chains.log_weights, acceptance))
            now.chains = None
        now.way, now.kernels = 0, None

    def _first(self, path: Path) -> Tensor:
        """Where the chains of the batch and way at work start: (C, B, n)."""
        now, num = self._now, self.options.num_chains
        if now.way == 0:
            return path.draw(num)
        assert self.ends is not None
        return self.ends[self.batches[now.batch]].expand(num, -1, -1).contiguous()

    def _check(self, path: Path) -> None:
        """Refuse data at which a first weight is no number, and data outside the support."""
        with own_draws(path.x.device):
            ratio = path.point(path.draw(self.options.num_chains)).log_ratio
        bad = ratio.isnan().any(0).nonzero().flatten().tolist()
        if bad:
            part = self.batches[self._now.batch]
            raise InputError(
                f"expected weights that are numbers, got NaN at {len(bad)} of the data {part.start} to "
                f"{part.stop - 1}, the first being {part.start + bad[0]}: look at x and at the parameters"
            )
        self.latents.pair.check(path.x)

    def _keep(self, chains: Chains) -> None:
        """After each temperature."""
        now = self._now
        now.chains = chains
        passed = (now.batch * self.ways + now.way) * self.options.num_temperatures + chains.step
        self._bar.update(passed - self._bar.n)
        self.resumable.keep(lambda: self._now.state(self.x, self.ends))

    def _path(self, x: Tensor) -> Path:
        if len(x) in self._paths:
            self._paths[len(x)].place(x)
        else:
            options = self.options
            self._paths[len(x)] = Path(
                self.latents,
                x,
                start=options.start,
                compile=options.compile,
                num_chains=options.num_chains,
                gradients=self.total * options.leapfrog_steps,
            )
        return self._paths[len(x)]


def _slices(num: int, most: int) -> list[slice]:
    """The fewest slices of at most `most` data, of nearly equal size, so that they have one of two sizes."""
    number = -(-num // most)
    edges = [num * k // number for k in range(number + 1)]
    return [slice(*pair) for pair in pairwise(edges)]
