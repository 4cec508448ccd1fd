"""Proposals that are fitted to each datum: of the guide's own family, or normal with all correlations."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError
from pyro_vae.programs import Latents, Pair, say
from pyro_vae.proposals.fitting import descend, search, start
from pyro_vae.proposals.mixture import Mixing, knows_densities, log_mixture
from pyro_vae.proposals.options import LocalProposal
from pyro_vae.randomness import own_draws

#: Draws by which it is judged whether a fit is better than its start, and by which a covariance starts.
_JUDGED, _STARTED = 20, 200


class Family(Protocol):
    """A family of proposals with parameters for each datum."""

    pair: Pair

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """The parameters of the best member for each datum, the axis of the data first: (B, …) each."""

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """Log weights of draws from these members, mixed with the guide: (K, B)."""


def family_of(
    model: Program, guide: Program, batch: Batch, options: LocalProposal, *, data_plate: str | None
) -> Family:
    """The family that the options name.

    Raises:
        InputError: as `Pair`; where no latent is continuous; with all correlations, as `Latents`.
    """
    if options.full_covariance:
        return FullNormal(Latents(model, guide, batch, data_plate=data_plate), batch, options)
    pair = Pair(model, guide, batch, density=True, data_plate=data_plate)
    if pair.summed:  # which sums at latents from elsewhere are held by
        pair = Latents(model, guide, batch, data_plate=data_plate, masked=True).pair
    return OfGuide(pair, batch, options)


_NOTHING = (
    "expected a guide with a continuous latent whose distribution can be fitted to each datum, got none: use "
    "proposal='guide' (--method importance)"
)


class OfGuide:
    """The guide's own distributions, with offsets on their parameters for each datum.

    Args:
        pair: Model and guide.
        batch: Data, of which a few are run.
        options: How to fit.
    """

    def __init__(self, pair: Pair, batch: Batch, options: LocalProposal) -> None:
        self.pair, self.options = pair, options
        ends = pair.ends(batch)
        self.template = start(pair, ends)
        if not self.template.offsets:
            raise InputError(_NOTHING)
        local = pair.with_guide_in(self.template)
        with own_draws(batch.device), torch.no_grad():
            #: Whether the guide's density at draws from elsewhere is known.
            self.mixes = (pair.guide_is_held or bool(pair.whole)) and all(
                knows_densities(each, ends) for each in (pair, local)
            )
        if not self.mixes and options.defence:
            say(
                "the guide's density is known at its own draws only, so that the proposal fitted to each "
                "datum is not mixed with the guide: a region that only the guide visits may be missed"
            )

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """As `Family` says; a datum whose fit is no better keeps the guide's own parameters."""
        options, free = self.options, start(self.pair, batch)
        local = self.pair.with_guide_in(free)
        search(local, batch, free.offsets, options.steps, options.draws, options.learning_rate, after)
        with torch.no_grad():
            before, now = (_elbo(each, batch) for each in (self.pair, local))
            free.choose(now > before)
        return free.tensors()

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """As `Family` says."""
        local = self.pair.with_guide_in(self.template.at(tensors, self.options.widening))
        if self.mixes and self.options.defence:
            return Mixing(self.pair, local, self.options.defence).log_weights(batch, num, validate=validate)
        return local.log_weights(batch, num, validate=validate)


def _elbo(pair: Pair, batch: Batch) -> Tensor:
    """The ELBO of each datum by a few draws, (B,)."""
    log_px, log_pz, log_qz = pair.elbo_terms(batch, _JUDGED, validate=False)
    return (log_px + log_pz - log_qz).double().mean(0)


class FullNormal:
    """u ~ N(m, L Lᵀ) over the unconstrained latents of all sites, m and L of each datum.

    They start at the mean and covariance of the guide's draws, in whose units they move.

    Args:
        latents: Of the model.
        batch: Data.
        options: How to fit.
    """

    def __init__(self, latents: Latents, batch: Batch, options: LocalProposal) -> None:
        if not latents.size:
            raise InputError(_NOTHING)
        self.latents, self.pair, self.options = latents, latents.pair, options
        if options.defence:  # refused here where the density is not known
            ends = self.pair.ends(batch)
            with own_draws(batch.device), torch.no_grad():
                self.latents.log_probs(ends, self.latents.from_guide(ends, 3))

    def fit(self, batch: Batch, after: Callable[[], object]) -> list[Tensor]:
        """As `Family` says: m (B, n) and L (B, n, n)."""
        options, (mean, factor) = self.options, self._first(batch)
        shift = torch.zeros_like(mean).requires_grad_()
        free = torch.zeros_like(factor).requires_grad_()

        def loss() -> Tensor:
            loc, tril = _moved(mean, factor, shift, free)
            return -_bound(self, batch, loc, tril, options.draws).sum() / options.draws

        descend(loss, [shift, free], options.steps, options.learning_rate, after)
        with torch.no_grad():
            found = _moved(mean, factor, shift, free)
            now, before = (_bound(self, batch, *each, _JUDGED).mean(0) for each in (found, (mean, factor)))
            better = now > before
            loc, tril = found
            kept = better[:, None]
            return [torch.where(kept, loc, mean), torch.where(kept[..., None], tril, factor)]

    def log_weights(self, batch: Batch, tensors: Sequence[Tensor], num: int, *, validate: bool) -> Tensor:
        """As `Family` says."""
        loc, tril = tensors[0], tensors[1] * self.options.widening
        u, defence = _normal_draws(loc, tril, num), self.options.defence
        if defence:
            of_q = torch.rand(num, len(batch), device=batch.device) < defence
            u = torch.where(of_q[..., None], self.latents.from_guide(batch, num), u)
        if validate:
            self.pair.check(batch)
        parts = self.latents.log_probs(batch, u, guide=bool(defence))
        log_r = _log_normal(loc, tril, u)
        if defence:
            log_r = log_mixture(log_r, parts.log_qz + parts.log_det, defence)
        return parts.log_px + parts.log_pz + parts.log_det - log_r

    @torch.no_grad()
    def _first(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and Cholesky factor of the guide's draws, (B, n) and (B, n, n)."""
        chunk = max(self.pair.rows // len(batch), 2)
        total = max(_STARTED, 10 * self.latents.size)
        sizes = [min(chunk, total - first) for first in range(0, total, chunk)]
        u = torch.cat([self.latents.from_guide(batch, size) for size in sizes])
        mean, centred = u.mean(0), u - u.mean(0)
        covariance = torch.einsum("kbi,kbj->bij", centred, centred) / (len(u) - 1)
        # a coordinate that the guide does not move has some width
        ridge = 1e-3 * covariance.diagonal(dim1=-2, dim2=-1) + 1e-12
        return mean, torch.linalg.cholesky(covariance + torch.diag_embed(ridge))


def _moved(mean: Tensor, factor: Tensor, shift: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and factor, moved in the units of the start."""
    inner = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
    return mean + (factor @ shift[..., None])[..., 0], factor @ inner


def _bound(family: FullNormal, batch: Batch, loc: Tensor, tril: Tensor, num: int) -> Tensor:
    """Log p(x, u) − log N(u) at draws of u: (K, B)."""
    u = _normal_draws(loc, tril, num)
    parts = family.latents.log_probs(batch, u, guide=False)
    return parts.log_px + parts.log_pz + parts.log_det - _log_normal(loc, tril, u)


def _normal_draws(loc: Tensor, tril: Tensor, num: int) -> Tensor:
    """(num, B, n)."""
    noise = torch.randn(num, *loc.shape, dtype=loc.dtype, device=loc.device)
    return loc + (tril @ noise[..., None])[..., 0]


def _log_normal(loc: Tensor, tril: Tensor, u: Tensor) -> Tensor:
    """Log density of N(loc, tril trilᵀ) at u (K, B, n): (K, B)."""
    normal = torch.distributions.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
    return normal.log_prob(u)
