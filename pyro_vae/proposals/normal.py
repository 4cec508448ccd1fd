"""Normals with all correlations, fitted to each datum."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.compiled import Compile, FlatGraph, NotCompiled, Untraceable
from pyro_vae.compiled.policy import GRADIENTS, OTHER_OPERATIONS, agree, choose, tolerance
from pyro_vae.errors import InputError
from pyro_vae.precision import wide
from pyro_vae.programs import Latents
from pyro_vae.proposals.family import NOTHING
from pyro_vae.proposals.fitting import descend
from pyro_vae.proposals.mixture import log_mixture
from pyro_vae.proposals.of_guide import JUDGED
from pyro_vae.proposals.options import LocalProposal
from pyro_vae.randomness import own_draws

#: Draws by which a covariance starts, at the least.
_STARTED = 200
#: Latent numbers of a datum for which the learning rate is meant. The first steps are noise, of equal size in
#: each entry of L, which adds up over the n entries of a row.
_MEANT = 8
#: Standard errors of a correlation that is 0, below which one found by these draws is taken as none.
_NOISE = 4.0

#: u (K, B, n) → the gradient of log p(x, u).
Force = Callable[[Tensor], Tensor]


class FittedNormal:
    """u ~ N(m, L Lᵀ) over the unconstrained latents of all sites, m and L of each datum.

    They start at the mean and covariance of the guide's draws, in whose units they move. The gradient of the
    ELBO is that along the path of u only, E[(∇ log p(x, u) − ∇ log N(u)) · du/d(m, L)], whose variance
    vanishes where the posterior is reached. Roeder, Wu & Duvenaud, "Sticking the landing" (2017).

    Args:
        latents: Of the model.
        batch: Data.
        options: How to fit.
        compile: As in `log_evidence`.
    """

    def __init__(self, latents: Latents, batch: Batch, options: LocalProposal, compile: Compile) -> None:
        if not latents.size:
            raise InputError(NOTHING)
        self.latents, self.pair, self.options = latents, latents.pair, options
        self.compile = compile
        if options.defence:  # refused here where the density is not known
            ends = self.pair.ends(batch)
            with own_draws(batch.device), torch.no_grad():
                self.latents.log_probs(ends, self.latents.from_guide(ends, 3))

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """As `Family` says: m (B, n) and L (B, n, n); a datum whose fit is no better keeps its start."""
        options, (mean, factor) = self.options, self._start(batch)
        shift, free = (torch.zeros_like(each).requires_grad_() for each in (mean, factor))
        force = _force(self.latents, batch, _draws(mean, factor, options.draws)[0], options, self.compile)

        def loss() -> Tensor:
            loc, tril = _moved(mean, factor, shift, free)
            u, noise = _draws(loc, tril, options.draws)
            with torch.no_grad():
                back = torch.linalg.solve_triangular(tril.mT, noise[..., None], upper=True)[..., 0]
                along = force(u.detach()) + back
            return -(along * u).sum() / options.draws

        rate = options.learning_rate * min(1.0, math.sqrt(_MEANT / self.latents.size))
        descend(loss, [shift, free], options.steps, rate, after)
        with torch.no_grad():
            loc, tril = _moved(mean, factor, shift, free)
            better = self._elbo(batch, loc, tril) > self._elbo(batch, mean, factor)
            kept = better[:, None].to(loc.device)
            return [torch.where(kept, loc, mean), torch.where(kept[..., None], tril, factor)]

    def first(self, batch: Batch) -> list[Tensor]:
        """As `Family` says."""
        with own_draws(batch.device):
            return list(self._start(batch))

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """As `Family` says."""
        loc, tril = tensors[0], tensors[1] * self.options.widening
        (u, _), defence = _draws(loc, tril, num), self.options.defence
        if defence:
            of_q = torch.rand(num, len(batch), device=batch.device) < defence
            u = torch.where(of_q[..., None], self.latents.from_guide(batch, num, model=False), u)
        if validate:
            self.pair.check(batch)
        parts = self.latents.log_probs(batch, u, guide=bool(defence))
        log_r = _log_normal(loc, tril, u)
        if defence:
            log_r = log_mixture(log_r, parts.log_qz + parts.log_det, defence)
        return parts.log_px + parts.log_pz + parts.log_det - log_r

    @torch.no_grad()
    def _start(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and Cholesky factor of the guide's draws, (B, n) and (B, n, n)."""
        chunk = max(self.pair.rows // len(batch), 2)
        total = max(_STARTED, 10 * self.latents.size)
        sizes = [min(chunk, total - first) for first in range(0, total, chunk)]
        u = torch.cat([self.latents.from_guide(batch, size, model=False) for size in sizes])
        mean, centred = u.mean(0), u - u.mean(0)
        covariance = torch.einsum("kbi,kbj->bij", centred, centred) / (len(u) - 1)
        # a coordinate that the guide does not move has some width
        covariance = covariance + torch.diag_embed(1e-3 * covariance.diagonal(dim1=-2, dim2=-1) + 1e-12)
        return mean, _factor(covariance, len(u))

    def _elbo(self, batch: Batch, loc: Tensor, tril: Tensor) -> Tensor:
        """The ELBO of each datum by a few draws, (B,)."""
        u, _ = _draws(loc, tril, JUDGED)
        parts = self.latents.log_probs(batch, u, guide=False)
        log_w = parts.log_px + parts.log_pz + parts.log_det - _log_normal(loc, tril, u)
        return wide(log_w).mean(0)


def _factor(covariance: Tensor, number: int) -> Tensor:
    """The Cholesky factor of the covariance of draws, (B, n, n), without correlations that are mere noise."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = covariance / (scale[..., None] * scale[..., None, :])
    seen = torch.where(correlation.abs() > _NOISE / math.sqrt(number), covariance, 0.0)
    factor, failed = torch.linalg.cholesky_ex(seen)
    whole = failed > 0  # to leave some out may leave no covariance
    return (
        torch.where(whole[..., None, None], torch.linalg.cholesky(covariance), factor)
        if whole.any()
        else factor
    )


def _force(latents: Latents, batch: Batch, u: Tensor, options: LocalProposal, compile: Compile) -> Force:
    """The gradient at u of log p(x, u), as a flat graph where that pays and agrees."""

    def eager(u: Tensor) -> tuple[Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            parts = latents.log_probs(batch, u, guide=False)
            density = (parts.log_px + parts.log_pz + parts.log_det).sum()
            return (torch.autograd.grad(density, u, materialize_grads=True)[0],)

    graph = _graph(eager, u) if choose(compile, GRADIENTS, options.steps, 0).graph else None
    if graph is None:
        return lambda u: eager(u)[0]

    def flat(u: Tensor) -> Tensor:
        (gradient,) = graph(u.contiguous())
        assert gradient is not None
        return gradient

    return flat


def _graph(eager: Callable[[Tensor], tuple[Tensor]], u: Tensor) -> FlatGraph | None:
    """A graph with the same results up to rounding; None where there is none."""
    try:
        graph = FlatGraph(eager, (u,), fast=True, inductor=False)
    except (NotCompiled, Untraceable):  # the draws, computed likewise, say why
        return None
    (found,), (expected,) = graph(u), eager(u)
    size = max(float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max()), 1.0)
    return graph if agree(found, expected, tolerance(graph.rounding, OTHER_OPERATIONS), size) else None


def _moved(mean: Tensor, factor: Tensor, shift: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and factor, moved in the units of the start."""
    inner = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
    return mean + (factor @ shift[..., None])[..., 0], factor @ inner


def _draws(loc: Tensor, tril: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """U and the noise that it was made of, (num, B, n) each."""
    noise = torch.randn(num, *loc.shape, dtype=loc.dtype, device=loc.device)
    return loc + (tril @ noise[..., None])[..., 0], noise


def _log_normal(loc: Tensor, tril: Tensor, u: Tensor) -> Tensor:
    """Log density of N(loc, tril trilᵀ) at u (K, B, n): (K, B)."""
    normal = torch.distributions.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
    return normal.log_prob(u)
