"""What each number of the latent vector carries."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import InputError, count
from pyro_vae.importance.bound import chunks_of
from pyro_vae.precision import home, wide
from pyro_vae.programs import Drawn, Latents, Layout, Program, one_at_a_time


@dataclass(frozen=True, eq=False)
class Units:
    """Activity and KL of each of the n unconstrained numbers of the latents."""

    #: A name of each, as z[3].
    names: tuple[str, ...]
    #: Var_x(E_q[u_d|x]), (n,), in float64; by Monte Carlo without bias, so that it can be slightly negative.
    activity: Tensor
    #: Whether `activity` is above the threshold, (n,).
    active: Tensor
    #: E_q[log q − log p] of each, in nats per datum, (n,); None where q or p does not factorise.
    kl: Tensor | None
    #: Its standard error over the data, (n,); None as `kl`.
    kl_error: Tensor | None
    #: Why there is no `kl`; empty where there is.
    reason: str

    @property
    def num_active(self) -> int:
        """How many are active."""
        return int(self.active.sum())

    @property
    def inactive(self) -> tuple[str, ...]:
        """The names of those that are not active."""
        return tuple(
            name for name, active in zip(self.names, self.active.tolist(), strict=True) if not active
        )

    def __repr__(self) -> str:
        text = f"{self.num_active} of {len(self.names)} latent units active"
        return text if not self.inactive else f"{text}, inactive: {some(self.inactive)}"


@one_at_a_time
@torch.no_grad()
def latent_units(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_draws: int = 100,
    threshold: float = 0.01,
    rows: int | None = None,
    data_plate: str | None = None,
) -> Units:
    """Activity Var_x(E_q(z|x)[u_d]) and KL of each unconstrained number u_d of the latents.

    A unit is active where its activity is above `threshold`, which is meant for a prior of scale one (Burda,
    Grosse & Salakhutdinov 2016, section 5). The variance over x of the mean of S draws is too large by
    E_x Var_q(u_d) / S, which is taken off. The KL is given where both q and p are independent over the
    numbers of each site; in a hierarchy it is E_q[log q(u_d|·) − log p(u_d|·)], which can be negative.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), at least two.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_draws: S, draws of z per datum, at least two.
        threshold: Activity above which a unit is active.
        rows: Draws handled at once.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: where there are fewer than two data or draws; where a latent site is discrete or masked.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=3)
    >>> latent_units(vae.model, vae.guide, data.test.batch()).names
    ('z[0]', 'z[1]', 'z[2]')
    """
    data = Batch.of(x, given)
    if len(data) < 2 or count("num_draws", num_draws) < 2:
        raise InputError(f"expected two data and two draws at least, got {len(data)} and {num_draws}")
    latents = Latents(model, guide, data, data_plate=data_plate)
    latents.check_numbers()
    reason = _reason(latents, latents.pair.ends(data))
    parts = []
    for batch, chunks in chunks_of(
        data, num_draws, latents.pair.rows if rows is None else rows, latents.pair.whole
    ):
        sums = torch.zeros(3, len(batch), latents.size, dtype=torch.float64, device=home(data.device))
        for draws in chunks:
            if reason:
                u = wide(latents.from_guide(batch, draws))
                kl = torch.zeros_like(u)
            else:
                drawn = latents.pair.draw(batch, draws)
                u = wide(latents.pack(drawn.model, drawn.model_layout))
                kl = _log_ratios(latents, drawn)
            sums += torch.stack([u.sum(0), u.square().sum(0), kl.sum(0)])
        parts.append(sums / num_draws)
    mean, square, kl = torch.cat(parts, dim=1)
    within = (square - mean.square()).mean(0) / (num_draws - 1)
    activity = mean.var(0) - within
    error = None if reason else kl.std(0) / math.sqrt(len(data))
    values = None if reason else kl.mean(0)
    return Units(tuple(latents.columns()), activity, activity > threshold, values, error, reason)


def some(names: tuple[str, ...], most: int = 8) -> str:
    """The names, the first of them where they are many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _reason(latents: Latents, two: Batch) -> str:
    """Why there is no KL of each number; empty where there is."""
    if latents.pair.summed:
        return f"{', '.join(sorted(latents.pair.summed))} are summed out"
    drawn = latents.pair.draw(two, 3)
    for trace, what in ((drawn.guide, "guide"), (drawn.model, "prior")):
        for name in latents.names:
            if _coordinates(trace.nodes[name]["fn"]) is None:
                kind = type(trace.nodes[name]["fn"]).__name__
                return f"the {what} of {name} is a {kind}, which is not independent over its numbers"
    return ""


def _coordinates(fn: Any) -> Any:
    """The independent distributions of a vector's numbers; None where they are not independent."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return None if fn.event_shape else fn


def _log_ratios(latents: Latents, drawn: Drawn) -> Tensor:
    """Log q − log p of each number: (C, B, n)."""
    parts = []
    for name in latents.names:
        log_q, log_p = (
            _by_coordinate(latents, name, trace.nodes[name], layout)
            for trace, layout in ((drawn.guide, drawn.guide_layout), (drawn.model, drawn.model_layout))
        )
        ratio = (log_q - log_p).movedim(latents.axis(name), 1)
        parts.append(ratio.reshape(*ratio.shape[:2], -1))
    return torch.cat(parts, dim=-1)


def _by_coordinate(latents: Latents, name: str, site: Mapping[str, Any], layout: Layout) -> Tensor:
    """The log density of each number of a site's value, in the shape of the value."""
    log_prob = _coordinates(site["fn"]).log_prob(site["value"]).expand(site["value"].shape)
    return wide(layout.unfold(log_prob, latents.pair.places[name]))
