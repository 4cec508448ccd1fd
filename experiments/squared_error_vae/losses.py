"""The losses of squared error plus KL, and the scale of the normal likelihood that each of them is."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import mse_loss


class Loss(NamedTuple):
    """A loss of a batch as it is written: a Σ_b ‖x_b − m_b‖² + c Σ_b KL_b, with a and c by its reductions."""

    #: As written, with KL of shape (B, L).
    text: str
    #: The loss of x and m, both (B, D), and KL (B, L).
    value: Callable[[Tensor, Tensor, Tensor], Tensor]
    #: c / a, from the batch size B, the pixels D and the latent dimensions L.
    ratio: Callable[[int, int, int], float]

    def scale(self, batch_size: int, pixels: int, latent_dim: int) -> float:
        """Standard deviation s of the normal likelihood, √(c / 2a)."""
        return implied_scale(1.0, self.ratio(batch_size, pixels, latent_dim))


def implied_scale(squares: float, kl: float) -> float:
    """Scale of the normal likelihood that the loss `squares` · ‖x − m‖² + `kl` · KL has: √(kl / (2 squares)).

    −ELBO = ‖x − m‖² / (2 s²) + KL + D/2 log(2π s²), so that the loss over `kl` is −ELBO less the last term.

    >>> implied_scale(0.5, 1.0)
    1.0
    """
    return math.sqrt(kl / (2 * squares))


def constant(scale: float, pixels: int) -> float:
    """What the loss leaves out: D/2 log(2π s²), in nats per datum, so that −ELBO = loss + this.

    >>> round(constant(1.0, 784), 2)
    720.45
    """
    return pixels / 2 * math.log(2 * math.pi * scale**2)


def best_scale(squares: float, pixels: int) -> float:
    """Scale of the highest ELBO at a mean sum of squares E‖x − m‖²: s² = E‖x − m‖² / D.

    The derivative of −E‖x − m‖² / (2 s²) − D/2 log(2π s²) by s is 0 there, and there alone.
    """
    return math.sqrt(squares / pixels)


def best_elbo(squares: float, kl: float, pixels: int) -> float:
    """ELBO at the best scale: −D/2 (1 + log(2π E‖x − m‖² / D)) − KL."""
    return -pixels / 2 - constant(best_scale(squares, pixels), pixels) - kl


LOSSES = (
    Loss(
        "0.5 * mse_loss(m, x, reduction='sum') + KL.sum()",
        lambda x, m, kl: 0.5 * mse_loss(m, x, reduction="sum") + kl.sum(),
        lambda batch_size, pixels, latent_dim: 2,
    ),
    Loss(
        "mse_loss(m, x, reduction='sum') + KL.sum()",
        lambda x, m, kl: mse_loss(m, x, reduction="sum") + kl.sum(),
        lambda batch_size, pixels, latent_dim: 1,
    ),
    Loss(
        "mse_loss(m, x, reduction='sum') + 4 * KL.sum()",
        lambda x, m, kl: mse_loss(m, x, reduction="sum") + 4 * kl.sum(),
        lambda batch_size, pixels, latent_dim: 4,
    ),
    Loss(
        "mse_loss(m, x, reduction='sum') + KL.sum(1).mean()",
        lambda x, m, kl: mse_loss(m, x, reduction="sum") + kl.sum(1).mean(),
        lambda batch_size, pixels, latent_dim: 1 / batch_size,
    ),
    Loss(
        "mse_loss(m, x) + KL.sum(1).mean()",
        lambda x, m, kl: mse_loss(m, x) + kl.sum(1).mean(),
        lambda batch_size, pixels, latent_dim: pixels,
    ),
    Loss(
        "mse_loss(m, x) + KL.mean()",
        lambda x, m, kl: mse_loss(m, x) + kl.mean(),
        lambda batch_size, pixels, latent_dim: pixels / latent_dim,
    ),
    Loss(
        "mse_loss(m, x) + KL.sum()",
        lambda x, m, kl: mse_loss(m, x) + kl.sum(),
        lambda batch_size, pixels, latent_dim: batch_size * pixels,
    ),
)
