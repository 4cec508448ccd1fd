"""The guide's own family, optimised for each datum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import count
from pyro_vae.importance import ELBOEstimate
from pyro_vae.precision import wide
from pyro_vae.programs import Pair, Program, one_at_a_time
from pyro_vae.progress import progress_bar
from pyro_vae.proposals.families import FreeGuide
from pyro_vae.proposals.fitting import search, start
from pyro_vae.randomness import own_draws


@dataclass(frozen=True, eq=False)
class LocalErrors:
    """Monte Carlo standard errors of a `LocalOptimum`, (B,) each."""

    #: Of the guide's −E_q[log p(x|z)].
    distortion: Tensor
    #: Of the guide's KL.
    rate: Tensor
    #: Of the guide's ELBO.
    amortised: Tensor
    #: Of the optimised ELBO.
    elbo: Tensor
    #: Of the difference of the two ELBOs, smaller than theirs by the common random numbers.
    gap: Tensor


@dataclass(frozen=True, eq=False)
class LocalOptimum:
    """The ELBO of the guide, and of the best member of its family for each datum; in nats, float64."""

    #: Of the guide as it is, with its parts, (B,) each.
    amortised: ELBOEstimate
    #: ELBO of the optimised q, (B,).
    elbo: Tensor
    #: `elbo` − `amortised.elbo`, by common random numbers, (B,).
    gap: Tensor
    #: Monte Carlo standard errors.
    errors: LocalErrors
    #: Whether the search reached the whole family; else `gap` is a lower bound of the amortisation gap.
    whole: bool
    #: Draws per datum of the final measurement.
    num_particles: int

    def __repr__(self) -> str:
        bound = "" if self.whole else "at least "
        return (
            f"amortisation gap = {bound}{float(self.gap.mean()):.3f} nats, mean of {len(self.gap)} data "
            f"by {self.num_particles} draws each"
        )


@one_at_a_time
def optimise_locally(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_steps: int = 500,
    num_draws: int = 10,
    learning_rate: float = 0.1,
    num_particles: int = 1000,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> LocalOptimum:
    """The amortisation gap of each datum: max over λ of ELBO(x; q_λ) − ELBO(x; q(z|x)).

    The guide's distributions are given offsets on their unconstrained parameters, zero at the start, free
    for each datum, and moved by Adam on the reparameterised ELBO with a learning rate that falls to zero.
    Both ends are then measured with fresh, common draws. Which of the two is better is judged on draws of
    its own, so that the choice does not bias the gap. The search can fall short, so that the gap is a lower
    bound in any case; besides, where a site depends on other latents (a hierarchical guide), its offset is
    one for all their values, and where its distribution cannot be made anew of its parameters (a flow, a
    mixture), only its draws are shifted and scaled: a part of the family (`whole` is False).
    On MNIST with 20 latent numbers, 1500 steps of 20 draws found 0.03 nats more than the default's 3.3.
    Cremer, Li & Duvenaud, "Inference suboptimality in variational autoencoders" (2018).

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_steps: Steps of Adam.
        num_draws: Draws of z per datum and step.
        learning_rate: Of the first step; a location moves in standard deviations of the guide.
        num_particles: Draws per datum of the final measurement, and as many of the choice.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_weights`; and where a number is not positive.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> found = optimise_locally(vae.model, vae.guide, data.test.batch()[:4], num_steps=30)
    >>> found.whole, bool(found.gap.mean() > 0)
    (True, True)
    """
    for name, number in (
        ("num_steps", num_steps),
        ("num_draws", num_draws),
        ("num_particles", num_particles),
    ):
        count(name, number)
    data = Batch.of(x, given)
    pair = Pair(model, guide, data, density=True, data_plate=data_plate)
    batches = list(data.split(max(pair.rows // num_draws, 1, pair.whole)))
    parts, whole = [], True
    with progress_bar(progress, total=num_steps * len(batches), desc="best q(z|x)", unit="steps") as bar:
        for batch in batches:
            pair.check(batch)
            free = start(pair, batch)
            local = pair.with_guide_in(free)
            search(local, batch, free.offsets, num_steps, num_draws, learning_rate, bar.update)
            parts.append(_measure(pair, local, free, batch, num_particles))
            whole = whole and free.whole
    before, after, errors = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    amortised = ELBOEstimate(before[0] + before[1], before[0], -before[1])
    elbo = after.sum(0)
    return LocalOptimum(amortised, elbo, elbo - amortised.elbo, LocalErrors(*errors), whole, num_particles)


@torch.no_grad()
def _measure(
    pair: Pair, local: Pair, free: FreeGuide, batch: Batch, num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ELBO's two terms under both guides (2, B), and the errors as in `LocalErrors` (5, B)."""
    start, end = _draw(pair, local, batch, num)
    # not a number is not better
    free.choose(end.sum(0).mean(0) > start.sum(0).mean(0))
    start, end = _draw(pair, local, batch, num)
    before, after = start.sum(0), end.sum(0)
    errors = [_error(part) for part in (start[0], start[1], before, after, after - before)]
    return start.mean(1), end.mean(1), torch.stack(errors)


def _draw(pair: Pair, local: Pair, batch: Batch, num: int) -> tuple[Tensor, Tensor]:
    """Log p(x|z) and log p(z) − log q(z|x) under both guides, by common random numbers: (2, num, B) each."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    chunk = max(pair.rows // len(batch), 1)
    for first in range(0, num, chunk):
        draws = min(chunk, num - first)
        with own_draws(batch.device):
            parts[0].append(_terms(pair, batch, draws))
        parts[1].append(_terms(local, batch, draws))
    start, end = (torch.cat(part, dim=1) for part in parts)
    return start, end


def _terms(pair: Pair, batch: Batch, draws: int) -> Tensor:
    log_px, log_pz, log_qz = (wide(part) for part in pair.elbo_terms(batch, draws, validate=False))
    return torch.stack([log_px, log_pz - log_qz])


def _error(values: Tensor) -> Tensor:
    """Standard error of the mean over draws (num, B); NaN for one draw."""
    if len(values) == 1:
        return torch.full_like(values[0], torch.nan)
    return values.std(0) / len(values) ** 0.5
