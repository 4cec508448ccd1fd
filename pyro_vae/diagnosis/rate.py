"""The rate's split into mutual information and the marginal KL."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.annealing import InformationBounds
from pyro_vae.batch import Batch, Given
from pyro_vae.errors import count
from pyro_vae.importance.bound import chunks_of
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time


@dataclass(frozen=True, eq=False)
class Information:
    """Mutual information between a datum's index and its code, each datum's part of it, in float64."""

    #: E_q(z|x_b)[log q(z|x_b) − log q(z)], in nats, (B,); its mean is I(b; z), at most log B.
    information: Tensor
    #: Its Monte Carlo standard error, (B,); NaN for one draw.
    standard_error: Tensor
    #: Draws per datum.
    num_draws: int

    @property
    def mean(self) -> float:
        """I(b; z), in nats."""
        return float(self.information.mean())

    @property
    def limit(self) -> float:
        """Log B, which it cannot exceed."""
        return math.log(len(self.information))

    @property
    def saturated(self) -> bool:
        """Whether it is near its limit, so that more data would have more."""
        return self.mean > 0.8 * self.limit

    def exceeded_by(self, bounds: InformationBounds | None, rate: float) -> bool:
        """Whether bounds by annealing take its place.

        So it is where this is near its limit, and the lower one lies above it and within the rate, which no
        mutual information exceeds.
        """
        return bounds is not None and self.saturated and self.mean < bounds.mean_lower <= rate

    def __repr__(self) -> str:
        return (
            f"mutual information = {self.mean:.3f} nats of at most log {len(self.information)} = "
            f"{self.limit:.3f}, by {self.num_draws} draws per datum"
        )


@one_at_a_time
@torch.no_grad()
def mutual_information(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_draws: int = 10,
    rows: int | None = None,
    data_plate: str | None = None,
) -> Information:
    """Mutual information of index and code: 1/B Σ_b KL(q(z|x_b) ‖ q(z)) with q(z) = 1/B Σ_b q(z|x_b).

    The rate splits into it and KL(q(z) ‖ p(z)). Both are those of the data given: the information is at most
    log B, so the more data, the more of the rate it can hold; that of the model's own data has no such limit
    (`bidirectional_gap(...).information`). Every draw's density under every datum's guide
    is computed, B² · `num_draws` densities, though the guide's network runs once per chunk.
    Hoffman & Johnson, "ELBO surgery: yet another way to carve up the variational evidence lower bound"
    (2016).

    Of discrete sites that are summed out, it has none.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_draws: Draws of z per datum.
        rows: Densities computed at once.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `log_weights`; where a latent site is discrete or masked.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> found = mutual_information(vae.model, vae.guide, data.test.batch()[:20])
    >>> found.mean < found.limit  # the logarithm of 20
    True
    """
    data = Batch.of(x, given)
    latents = Latents(model, guide, data, data_plate=data_plate)
    latents.check_numbers()
    count("num_draws", num_draws)
    rows = max(2**22 // max(latents.size, 1), 1) if rows is None else count("rows", rows)
    parts, start = [], 0
    for batch, chunks in chunks_of(data, num_draws, max(rows // len(data), 1), latents.pair.whole):
        drawn = [_information(latents, data, batch, draws, start) for draws in chunks]
        parts.append(torch.cat(drawn))
        start += len(batch)
    values = torch.cat(parts, dim=1)
    error = values.std(0) / math.sqrt(num_draws) if num_draws > 1 else torch.full_like(values[0], math.nan)
    return Information(values.mean(0), error, num_draws)


def _information(latents: Latents, data: Batch, batch: Batch, draws: int, start: int) -> Tensor:
    """Log q(z|x_b) − log q(z) of draws for a batch that starts at `start`: (draws, b)."""
    values = {}
    for name, drawn in latents.draws(batch, draws).items():
        # the draws of all data side by side, each put before every datum
        axis = latents.axis(name)
        value = drawn.movedim(axis, 1).flatten(0, 1)
        value = value.unsqueeze(1).expand(-1, len(data), *value.shape[1:])
        values[name] = value.movedim(1, axis)
    log_q = wide(latents.log_guide(data, values)).reshape(draws, len(batch), len(data))
    own = log_q[:, torch.arange(len(batch)), torch.arange(start, start + len(batch))]
    return own - (log_q.logsumexp(-1) - math.log(len(data)))
