"""The search for a guide's best offsets."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyro_vae.batch import Batch
from pyro_vae.programs import Pair
from pyro_vae.proposals.families import FreeGuide
from pyro_vae.randomness import own_draws


def start(pair: Pair, batch: Batch) -> FreeGuide:
    """Offsets of zero, by a run of the guide that leaves the random numbers as they are."""
    free = FreeGuide(pair.layout("guide", 3, len(batch)), pair.plate)
    first = pair.with_guide_in(free)
    with own_draws(batch.device), torch.no_grad():
        first.elbo_terms(batch, 3, validate=False)
    return free


def search(
    pair: Pair,
    batch: Batch,
    offsets: Sequence[Tensor],
    num_steps: int,
    num_draws: int,
    learning_rate: float,
    after: Callable[[], object],
) -> None:
    """Move offsets to a higher ELBO, `after` being called after each step."""

    def loss() -> Tensor:
        log_px, log_pz, log_qz = pair.elbo_terms(batch, num_draws, validate=False)
        return (log_qz - log_px - log_pz).sum() / num_draws

    if offsets:
        descend(loss, offsets, num_steps, learning_rate, after)


def descend(
    loss: Callable[[], Tensor],
    tensors: Sequence[Tensor],
    num_steps: int,
    learning_rate: float,
    after: Callable[[], object],
) -> None:
    """Steps of Adam on a sum over data, with a learning rate that falls to zero.

    A datum that leaves the finite numbers stays where it is.
    """
    optimiser = Adam(tensors, lr=learning_rate)
    schedule = CosineAnnealingLR(optimiser, num_steps)
    for _ in range(num_steps):
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(), tensors, allow_unused=True)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = None if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
        optimiser.step()
        schedule.step()
        after()
