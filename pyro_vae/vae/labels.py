"""p(y), and what is summed over y."""

import math
from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.vae.program import moments


class LabelLogits(nn.Module):
    """Log p(y) up to a constant: (C,), learned or fixed.

    >>> LabelLogits(torch.zeros(3), learned=False)()
    tensor([0., 0., 0.])
    """

    logits: Tensor

    def __init__(self, logits: Tensor, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def forward(self) -> Tensor:
        """The logits: (C,)."""
        return self.logits


def label_logits(kind: str | Sequence[float], num_classes: int) -> LabelLogits:
    """P(y) as a user says it.

    Args:
        kind: `uniform`, `learned`, or a probability for each class.
        num_classes: C.

    Raises:
        InputError: where it is none of these, or they are not positive numbers that sum to 1.

    >>> label_logits((0.5, 0.25, 0.25), 3)().exp()
    tensor([0.5000, 0.2500, 0.2500])
    """
    if isinstance(kind, str):
        if kind not in ("uniform", "learned"):
            raise InputError(f"label_prior expects uniform, learned or probabilities, got {kind!r}")
        return LabelLogits(torch.zeros(num_classes), learned=kind == "learned")
    values = [float(each) for each in kind]
    fine = len(values) == num_classes and min(values) > 0 and math.isclose(sum(values), 1, abs_tol=1e-5)
    if not fine:
        raise InputError(
            f"label_prior expects {num_classes} positive probabilities that sum to 1, got {values}: give one "
            "for each class, or uniform"
        )
    return LabelLogits(torch.tensor(values).log(), learned=False)


def moments_of_mixture(weights: Tensor, qz: TorchDistribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Σ_y w_y q(z|y): (B, L) each.

    Args:
        weights: (B, C).
        qz: Batch shape (C, B), or (B,) where it does not depend on y.
    """
    mean, scale = moments(qz, lambda: qz.sample((1000,)))
    if mean.ndim == 2:
        return mean, scale
    each = weights.T[..., None]
    total = (each * mean).sum(0)
    square = (each * (scale.square() + (mean - total).square())).sum(0)
    return total, square.sqrt()
