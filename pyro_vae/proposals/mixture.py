"""Log weights under a mixture of a fitted proposal and the guide."""

from typing import NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.programs import Drawn, Layout, Pair, sites
from pyro_vae.programs.enumeration import Summation
from pyro_vae.programs.layout import Place
from pyro_vae.programs.sites import imputed


def log_mixture(log_local: Tensor, log_q: Tensor, defence: float) -> Tensor:
    """Log of (1 − a) · local + a · q."""
    share = torch.tensor(defence, dtype=log_q.dtype, device=log_q.device)
    return torch.logaddexp(log_local + (-share).log1p(), log_q + share.log())


class Mixing(NamedTuple):
    """A guide and its fitted copy, both around the same model."""

    pair: Pair
    local: Pair
    defence: float

    def log_weights(self, batch: Batch, num: int, *, validate: bool) -> Tensor:
        """Log p(x, z) − log r(z) at draws z ~ r, each of q with the probability a: (K, B)."""
        pair = self.pair
        layout, model_layout = (pair.layout(what, num, len(batch)) for what in ("guide", "model"))
        values = self._draw(batch, layout, validate)
        q, local = (each.run_guide(batch, layout, values) for each in (pair, self.local))
        model = pair.run_model(batch, model_layout, values, validate=validate)
        if pair.summed:
            pair.verified.check_model(pair, batch, model, model_layout, lambda: values)
        else:
            pair.verified.check_run(pair, batch, Drawn(q, model, layout, model_layout), first=validate)
        log_local, log_q = log_guide(self.local, local, layout), log_guide(pair, q, layout)
        log_joint = _log_joint(pair, model, model_layout, set(q.nodes))
        return log_joint - log_mixture(log_local, log_q, self.defence)

    def _draw(self, batch: Batch, layout: Layout, validate: bool) -> dict[str, Tensor]:
        """Values of r at each site, in the shapes that they have in a plate of particles."""
        q, local = (
            each.values(each.run_guide(batch, layout, validate=validate, summing=False), layout)
            for each in (self.pair, self.local)
        )
        of_q = torch.rand(layout.num, layout.size, device=batch.device) < self.defence
        return {
            name: torch.where(_over(of_q, value, self.pair.places[name], layout), q[name], value)
            for name, value in local.items()
        }


def knows_densities(pair: Pair, batch: Batch) -> bool:
    """Whether a guide has at given values the density with which it draws them."""
    layout = pair.layout("guide", 3, len(batch))
    drawn = pair.run_guide(batch, layout, summing=False)
    found = log_guide(pair, pair.run_guide(batch, layout, pair.values(drawn, layout)), layout)
    if pair.summed:  # whose own density is that of what was summed out, too
        return bool(found.isfinite().all())
    return torch.allclose(found, log_guide(pair, drawn, layout), rtol=1e-3, atol=1e-3)


def log_guide(pair: Pair, trace: Trace, layout: Layout) -> Tensor:
    """Log q(z|x) of a run of a guide, what is enumerated summed out: (K, B)."""
    if pair.summed:
        return Summation(trace, None, layout, pair.plate).log_guide()
    return pair.total(trace, layout, sites(trace))


def _log_joint(pair: Pair, trace: Trace, layout: Layout, drawn: set[str]) -> Tensor:
    """Log p(x, z) of a run of the model at draws, without entries of x that are left open: (K, B)."""
    if pair.summed:
        return Summation(None, trace, layout, pair.plate).log_joint()
    skipped = imputed(trace) - drawn
    return pair.total(trace, layout, [name for name in sites(trace) if name not in skipped])


def _over(mask: Tensor, value: Tensor, place: Place, layout: Layout) -> Tensor:
    """A mask (K, B) along the particles and the data of a value."""
    shape = [1] * value.ndim
    shape[layout.particles(place)], shape[place.data] = mask.shape
    return mask.reshape(shape)
