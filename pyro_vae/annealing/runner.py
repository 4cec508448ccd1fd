"""Annealing runs over a set of data, batch by batch."""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pyro_vae.annealing.chains import Chains, anneal, begin
from pyro_vae.annealing.kernels import Kernels, pilot_transitions, tune
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.rate_distortion import RECORDED, recorded_steps
from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.precision import moved
from pyro_vae.programs import Latents, Simulated, simulate
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import BlockSeeds, own_draws, own_randomness
from pyro_vae.ranks import workers
from pyro_vae.storage.hashing import fingerprint
from pyro_vae.storage.resumable import Keeper, Resumable


def resumable(
    path: Path | str | None,
    what: str,
    options: AnnealingOptions,
    latents: Latents,
    batch: Batch,
    **more: object,
) -> Resumable:
    """Where the state of a run is kept, for the same estimate, options, data and programs only."""
    kept = " ".join(Kernels._fields)  # so that the file of another version is refused
    settings = {
        "estimate": what,
        "looks": RECORDED,
        "seeds": "of batches",
        "kept": kept,
        **options._asdict(),
        **more,
    }
    if path is not None:
        with own_randomness(0, batch.device), torch.no_grad():
            settings["log weights"] = latents.pair.log_weights(latents.pair.ends(batch), 1, validate=False)
        settings |= {"data": fingerprint(batch), "rows": _rows(latents, options)}
    return Resumable(path, settings, batch.device)


def simulated(latents: Latents, like: Batch, num: int, kept: Keeper) -> Simulated:
    """`num` data drawn from the model, or those of the run that was kept."""
    if kept.state is None:
        return simulate(latents, like, num)
    *tensors, u = (part.to(like.device) for part in kept.state["drawn"])
    return Simulated(like.repeat(-(-num // len(like)))[:num].with_tensors(tensors), u)


def gradients(num_temperatures: int, leapfrog_steps: int, ways: int = 1) -> int:
    """Of a chain, its pilot run included; one at the start of each run is left out."""
    return leapfrog_steps * (pilot_transitions(num_temperatures) + ways * (num_temperatures - 1))


def _rows(latents: Latents, options: AnnealingOptions) -> int:
    return latents.pair.flat_rows if options.rows is None else options.rows


class Weights(NamedTuple):
    """Log weights of all chains, (C, N) float64, and the mean acceptance of each datum, (N,)."""

    log_weights: Tensor
    acceptance: Tensor
    #: What was seen of the chains on their way, (G, 5, N).
    record: Tensor
    #: Λ by the pilot run, (N,).
    barrier: Tensor


@dataclass
class _Progress:
    """How far a run has come: finished batches, and the state of the one at work."""

    batch: int = 0
    way: int = 0
    kernels: Kernels | None = None
    chains: Chains | None = None
    #: The seed of the first batch.
    seed: int | None = None
    #: By way, the `Weights` of each finished batch that is this rank's.
    done: list[list[tuple[Tensor, ...]]] = field(default_factory=list)

    def state(self, data: Batch, ends: Tensor | None) -> dict[str, Any]:
        """All of it as tensors and numbers, with simulated data, which no later call would draw again."""
        kernels, chains = (None if part is None else tuple(part) for part in (self.kernels, self.chains))
        now = {name: getattr(self, name) for name in ("batch", "way", "seed", "done")}
        drawn = None if ends is None else (*data.tensors, ends)
        return {**now, "kernels": kernels, "chains": chains, "drawn": drawn}

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> "_Progress":
        """What `state` gave; a pilot run begins anew, with the random numbers that it had."""
        kept = {name: state[name] for name in ("batch", "way", "seed", "kernels", "chains")}
        there = tree_map_only(Tensor, lambda tensor: moved(tensor, device), kept)
        kernels, chains = there.pop("kernels"), there.pop("chains")
        return cls(
            **there,
            done=state["done"],
            kernels=None if kernels is None else Kernels(*kernels),
            chains=None if chains is None else Chains(*chains),
        )


class Runner:
    """Forward runs, and reverse ones by the same transitions, over data of any number.

    Ranks that share the work have a batch each in turn.

    Args:
        latents: Of the model.
        options: How to anneal.
        data: N data.
        ends: Draws of p(u|x), (N, n), from which the reverse chains start; none for forward runs only.
        progress: Show a progress bar; by default in a terminal and in a notebook.
        resumable: Where the state is kept, entered.
        label: What the progress bar says.
    """

    def __init__(
        self,
        latents: Latents,
        options: AnnealingOptions,
        data: Batch,
        ends: Tensor | None,
        *,
        progress: bool | None,
        resumable: Keeper,
        label: str | None = None,
    ) -> None:
        self.latents, self.options, self.data, self.ends = latents, options, data, ends
        self.resumable = resumable
        self.ways = 1 if ends is None else 2
        self.batches = _slices(
            len(data), max(_rows(latents, options) // options.num_chains, 1, latents.pair.whole)
        )
        #: Steps of a batch: the pilot's, and one for each way and temperature.
        self.pilot = pilot_transitions(options.num_temperatures)
        self.steps = self.pilot + self.ways * options.num_temperatures
        self._now = _Progress(done=[[] for _ in range(self.ways)])
        self._paths: dict[int, AnnealingPath] = {}
        total = len(self.batches) * self.steps
        self._bar = progress_bar(progress, total=total, unit="transitions", desc=label)

    def run(self) -> list[Weights]:
        """The weights of the forward runs, and of the reverse ones where there are ends."""
        if self.resumable.state is not None:
            self._now = _Progress.of(self.resumable.state, self.data.device)
            self._bar.update(self._now.batch * self.steps)
        seeds = BlockSeeds(self._now.seed)
        self._now.seed = seeds.first
        found = workers().each(partial(self._own, seeds))
        seeds.begin(len(self.batches))
        weights = []
        for way in range(self.ways):
            parts = [found[k % len(found)][way][k // len(found)] for k in range(len(self.batches))]
            whole = [moved(torch.cat(each, dim=-1), self.data.device) for each in zip(*parts, strict=True)]
            weights.append(Weights(*whole))
        return weights

    def _own(self, seeds: BlockSeeds) -> list[list[tuple[Tensor, ...]]]:
        """By way, the `Weights` of the batches of this rank, on the CPU."""
        now, ranks = self._now, workers()
        with self._bar:
            for batch in range(now.batch, len(self.batches)):
                now.batch = batch
                if ranks.has(batch):
                    self._batch(self._path(self.data[self.batches[batch]]), seeds)
        return now.done

    def _batch(self, path: AnnealingPath, seeds: BlockSeeds) -> None:
        """One batch from where it is to its end."""
        now, options = self._now, self.options
        if now.kernels is None:
            self._check(path)
            seeds.begin(now.batch)
            now.kernels = tune(path, options, after=self._keep)
        for way in range(now.way, self.ways):
            now.way = way
            if now.chains is None:
                now.chains = begin(self._first(path), self._looks(way))
            chains = anneal(path, now.kernels, now.chains, reverse=way == 1, after=self._advance)
            self._refuse(chains.log_weights)
            # NaN for one temperature, where there are no transitions
            acceptance = chains.acceptance / (options.num_temperatures - 1)
            found = Weights(chains.log_weights, acceptance, chains.record, now.kernels.barrier)
            now.done[way].append(tuple(each.cpu() for each in found))
            now.chains = None
        now.way, now.kernels = 0, None

    def _looks(self, way: int) -> int:
        """How often chains are looked at: only from the prior have they a rate and a distortion."""
        options = self.options
        return len(recorded_steps(options.num_temperatures)) if options.start == "prior" and way == 0 else 0

    def _first(self, path: AnnealingPath) -> Tensor:
        """Where the chains of the batch and way at work start: (C, B, n)."""
        now, num = self._now, self.options.num_chains
        if now.way == 0:
            return path.draw(num)
        assert self.ends is not None
        return self.ends[self.batches[now.batch]].expand(num, -1, -1).contiguous()

    def _check(self, path: AnnealingPath) -> None:
        """Refuse data at which a first weight is no number, and data outside the support."""
        with own_draws(path.batch.device):
            self._refuse(path.point(path.draw(self.options.num_chains)).log_ratio)
        self.latents.pair.check(path.batch)

    def _refuse(self, log_weights: Tensor) -> None:
        """Refuse log weights (C, B) that are NaN or +∞."""
        bad = (log_weights.isnan() | log_weights.isposinf()).any(0).nonzero().flatten().tolist()
        if bad:
            part = self.batches[self._now.batch]
            raise InputError(
                f"expected weights that are finite numbers, got NaN or +inf at {len(bad)} of the data "
                f"{part.start} to {part.stop - 1}, the first being {part.start + bad[0]}: look at x "
                "and at the parameters"
            )

    def _advance(self, chains: Chains) -> None:
        """After each temperature."""
        self._now.chains = chains
        self._keep()

    def _keep(self) -> None:
        """After each transition, the pilot's included."""
        now = self._now
        if now.kernels is None or now.chains is None:
            self._bar.update()
        else:
            passed = self.pilot + now.way * self.options.num_temperatures + now.chains.step
            self._bar.update(now.batch * self.steps + passed - self._bar.n)
        self.resumable.keep(lambda: now.state(self.data, self.ends))

    def _path(self, batch: Batch) -> AnnealingPath:
        size = len(batch)
        if size in self._paths:
            self._paths[size].place(batch)
        else:
            gradients = len(self.batches) * self.steps * self.options.leapfrog_steps
            self._paths[size] = AnnealingPath(self.latents, batch, self.options, gradients)
        return self._paths[size]


def _slices(num: int, most: int) -> list[slice]:
    """The fewest slices of at most `most` data, of nearly equal size, so that they have one of two sizes."""
    number = -(-num // most)
    edges = [num * k // number for k in range(number + 1)]
    return [slice(*pair) for pair in pairwise(edges)]
