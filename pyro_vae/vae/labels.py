"""p(y), what is summed over y, and which labels of data are seen."""

import math
from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data import DataFacts, Dataset
from pyro_vae.data.fields import LABEL
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


def label_of(data: Dataset | DataFacts, dims: Sequence[int], condition: str | tuple[str, ...] | None) -> str:
    """The condition of a `SemiSupervisedVAE`: the label.

    Raises:
        InputError: where the user chose another, several layers, or data without labels or with gaps.
    """
    if len(dims) > 1:
        raise InputError(
            f"SemiSupervisedVAE has one layer of z, got latent_dim {list(dims)}: give one number"
        )
    if condition not in (None, LABEL, (LABEL,)):
        raise InputError(
            f"SemiSupervisedVAE depends on the label beside x, got condition {condition!r}: leave it out"
        )
    if data.missing:
        raise InputError(
            "SemiSupervisedVAE takes data without missing entries, got some: impute them, or choose VAE"
        )
    if LABEL not in data.field_kinds or data.field_kinds[LABEL].classes is None:
        raise InputError(
            f"SemiSupervisedVAE needs data with labels for some, got {data.name} without: give train_labels, "
            "-1 where a label was not seen"
        )
    return LABEL


def labelled_share(data: Dataset | DataFacts) -> float:
    """Share of the training data whose label programs get; 1 of facts, to be replaced.

    Raises:
        InputError: where programs get none.
    """
    if isinstance(data, DataFacts):
        return 1.0
    labels = data.train.fields[LABEL] if LABEL in data.train.given else None
    if LABEL in data.given:
        raise InputError(
            f"SemiSupervisedVAE gets labels in training only, got {data.name} that gives them of all data: "
            "use data.with_labels() in the place of data.giving('label') (--num_labelled all)"
        )
    if labels is None or not bool((labels >= 0).any()):
        raise InputError(
            f"SemiSupervisedVAE learns from labels that are seen for some, got {data.name} of which programs "
            "get none: say how many they get, as data.with_labels(100) (--num_labelled 100)"
        )
    return float((labels >= 0).double().mean())
