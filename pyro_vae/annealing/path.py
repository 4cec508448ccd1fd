"""The geometric path from a start to the joint density, and its gradients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.batch import Batch
from pyro_vae.compiled import FlatGraph, NotCompiled, Untraceable
from pyro_vae.compiled.graph import Outputs
from pyro_vae.compiled.policy import GRADIENTS, OTHER_OPERATIONS, Speaker, agree, choose, size_of, tolerance
from pyro_vae.programs import Latents
from pyro_vae.randomness import own_draws


class Point(NamedTuple):
    """Where chains are, and all that is known there."""

    #: Unconstrained latents, (C, B, n).
    u: Tensor
    #: Log density of the start, (C, B).
    log_start: Tensor
    #: log p(x, z) less that of the start, (C, B): what an inverse temperature multiplies.
    log_ratio: Tensor
    #: Gradients of both, (C, B, n).
    grad_start: Tensor
    grad_ratio: Tensor

    def where(self, chosen: Tensor, other: "Point") -> "Point":
        """These where `chosen` (C, B), else the others."""
        pairs = zip(self, other, strict=True)
        return Point(*[torch.where(chosen if a.ndim == 2 else chosen[..., None], a, b) for a, b in pairs])

    def log_density(self, beta: Tensor) -> Tensor:
        """(1 − β) log start + β log p(x, z): (C, B)."""
        return self.log_start + beta * self.log_ratio

    def gradient(self, beta: Tensor) -> Tensor:
        """The gradient of `log_density`: (C, B, n)."""
        return self.grad_start + beta[..., None] * self.grad_ratio


class AnnealingPath:
    """(1 − β) log start(u) + β log p(x, u) over the unconstrained latents u, for one batch of data at a time.

    Args:
        latents: Of the model.
        batch: The first one; `place` takes others of its shape.
        options: The start, the number of chains, and how to compile.
        gradients: How many there will be, about.
    """

    def __init__(self, latents: Latents, batch: Batch, options: AnnealingOptions, gradients: int) -> None:
        self.latents, self.start = latents, options.start
        self.batch = batch.clone()
        self._point: Callable[..., Outputs] = self._eager_point
        self._force: Callable[..., Outputs] = self._eager_force
        self._graphs: list[FlatGraph] = []
        self._speaker = Speaker("annealing")
        numbers = options.num_chains * batch.x.numel() * gradients
        choice = choose(options.compile, GRADIENTS, gradients, numbers)
        if choice.graph:
            self._build(options.num_chains, choice.inductor)

    def place(self, batch: Batch) -> None:
        """Go over to another batch of data of the same shape."""
        self.batch.copy_(batch)
        for graph in self._graphs:
            graph.settle()

    def draw(self, num_chains: int) -> Tensor:
        """Draws of u from the start: (C, B, n)."""
        with torch.no_grad():
            if self.start == "prior":
                return self.latents.from_prior(self.batch, num_chains)
            return self.latents.from_guide(self.batch, num_chains)

    def point(self, u: Tensor) -> Point:
        """Densities and gradients at u."""
        return Point(u, *self._point(u.contiguous()))  # type: ignore[arg-type]

    def force(self, u: Tensor, beta: Tensor) -> Tensor:
        """The gradient at u of the log density at β (B,): (C, B, n)."""
        (gradient,) = self._force(u.contiguous(), beta.contiguous())  # compiled for these strides
        assert gradient is not None
        return gradient

    def _densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of the start, and what the joint has more."""
        found = self.latents.log_probs(self.batch, u, guide=self.start == "guide")
        prior = self.start == "prior"
        log_start = (found.log_pz if prior else found.log_qz) + found.log_det
        masked = found.masked_pz if prior else found.masked_qz
        if masked is not None:  # where a latent is masked it moves by the start alone
            log_start = log_start + masked
        return log_start, found.log_px if prior else found.log_px + found.log_pz - found.log_qz

    def _eager_point(self, u: Tensor) -> Outputs:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            parts = self._densities(u)
            gradients = [_gradient(part, u) for part in parts]
        return *[part.detach() for part in parts], *gradients

    def _eager_force(self, u: Tensor, beta: Tensor) -> Outputs:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            log_start, log_ratio = self._densities(u)
            return (_gradient(log_start + beta * log_ratio, u),)

    def _build(self, num_chains: int, inductor: bool) -> None:
        """Flat graphs in the place of the programs, where there can be any that agree with them."""
        with own_draws(self.batch.device):
            u = self.draw(num_chains)
        beta = u.new_full((len(self.batch),), 0.5)
        try:
            point = self._graph(lambda u: self._eager_point(u), (u,), inductor)
            force = self._graph(lambda u, beta: self._eager_force(u, beta), (u, beta), inductor)
        except NotCompiled as error:
            self._speaker.without_inductor(str(error))
            return self._build(num_chains, inductor=False)
        except Untraceable as error:
            self._speaker.as_plain_pyro(str(error))
            return None
        self._graphs, self._point, self._force = [point, force], point, force
        return None

    def _graph(self, function: Callable[..., Outputs], args: tuple[Tensor, ...], inductor: bool) -> FlatGraph:
        graph = FlatGraph(function, args, fast=True, inductor=inductor, settled=True)
        expected, found = function(*args), graph(*args)
        if not all(_agree(new, old, graph.rounding) for new, old in zip(found, expected, strict=True)):
            raise Untraceable("the graph gives other values")
        return graph


def _gradient(density: Tensor, u: Tensor) -> Tensor:
    """The gradient in u, zero of what does not depend on it."""
    if not density.requires_grad:
        return torch.zeros_like(u)
    return torch.autograd.grad(density.sum(), u, retain_graph=True, materialize_grads=True)[0]


def _agree(new: Tensor | None, old: Tensor | None, rounding: float) -> bool:
    """Whether two results agree up to rounding, which is relative to the largest number."""
    size = 1.0 if old is None else max(size_of(old), 1.0)
    return agree(new, old, tolerance(rounding, OTHER_OPERATIONS), size)
