"""Draws of z with what p(x|z) says of the missing entries."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.programs import Drawn, Pair, entries_of, rows_of, sites
from pyro_vae.randomness import own_draws


class Drawing:
    """Log weights of draws of z, with mean and variance of p(x|z) and draws from it, as one tensor.

    So that what does not fit into memory can be halved and put together again.

    Args:
        pair: The model and the guide.
        columns: Which entries of a datum are asked for, C of them.
    """

    def __init__(self, pair: Pair, columns: Tensor) -> None:
        self.pair, self.columns = pair, columns
        self.entries: Mapping[str, Tensor] = {}
        #: Relative rounding of the weights' type.
        self.rounding = 0.0

    def __call__(self, batch: Batch, draws: int, *, first: bool) -> Tensor:
        """(1 + 3 C, draws, B); the first looks whether the programs and the data can be used."""
        drawn = self.pair.draw(batch, draws, validate=first)
        if first:
            names = sites(drawn.model, observed=True)
            self.entries, _ = entries_of(self.pair.model, batch, names)
            _check_independent(self.pair, batch, drawn, self.entries)
        log_w = self.pair.log_weights_of(drawn)
        self.rounding = torch.finfo(log_w.dtype).eps
        moments = _moments_of(self.pair, batch, drawn, self.entries)[..., self.columns]
        return torch.cat([log_w[None], moments.movedim(-1, 1).flatten(0, 1)])

    def parts(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of what a call gives: log weights (K, B), and means, variances and draws (K, B, C)."""
        mean, variance, values = found[1:].unflatten(0, (3, len(self.columns))).movedim(1, -1)
        return found[0], mean, variance, values


def _check_independent(pair: Pair, batch: Batch, drawn: Drawn, names: Iterable[str]) -> None:
    """Refuse p(x|z) that depends on x itself, since what is missing would be drawn under NaN."""
    x = batch.x.roll(1, 0) if len(batch) > 1 else batch.x.flatten(1).flip(1).reshape(batch.x.shape)
    values = pair.values(drawn.guide, drawn.guide_layout)
    with own_draws(batch.device), pyro.validation_enabled(False):
        other = pair.run_model(Batch(x, batch.given), drawn.model_layout, values)
        for name in names:
            value = drawn.model.nodes[name]["fn"].sample()
            one, two = (trace.nodes[name]["fn"].log_prob(value) for trace in (drawn.model, other))
            if not torch.allclose(one, two, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise InputError(
                    f"expected entries that are independent given z, got a density at the site {name!r} that "
                    "depends on x itself (as of an autoregressive decoder): what is missing has no mean there"
                )


def _moments_of(pair: Pair, batch: Batch, drawn: Drawn, entries: Mapping[str, Tensor]) -> Tensor:
    """Mean and variance of p(x|z), and draws from it: (3, K, B, numbers of a datum)."""
    trace = drawn.model
    size = (3, drawn.model_layout.num, len(batch), batch.x[0].numel())
    out = torch.zeros(size, dtype=batch.x.dtype, device=batch.device)
    for name, index in entries.items():
        for number, value in enumerate(_moments(trace.nodes[name]["fn"])):
            out[number][..., index] = rows_of(pair, drawn, name, value).to(out)
    return out


def _moments(fn: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance, and one draw; what a distribution does not know of itself is taken from the draw."""
    drawn: Tensor = fn.sample()
    try:
        mean = fn.mean
    except (NotImplementedError, AttributeError):
        return drawn, torch.zeros_like(drawn), drawn
    try:
        return mean, fn.variance, drawn
    except (NotImplementedError, AttributeError):
        return mean, (drawn - mean).square(), drawn
