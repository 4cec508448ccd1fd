"""p(y|x) = p(x, y) / p(x), by the joint of every class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance import log_evidence
from pyro_vae.precision import home
from pyro_vae.progress import progress_bar


@dataclass(frozen=True, eq=False, repr=False)
class LabelPosterior:
    """Log p(x, y) of each datum with each class, estimated, and what follows from it.

    >>> joint = torch.tensor([[0.02, 0.06], [0.05, 0.05]])  # p(x, y) of two data and two classes
    >>> found = LabelPosterior(joint.log(), torch.zeros(2, 2), torch.zeros(2, 2), num_particles=1000)
    >>> found.probabilities
    tensor([[0.2500, 0.7500],
            [0.5000, 0.5000]])
    >>> found.log_evidence.exp()
    tensor([0.0800, 0.1000])
    """

    #: Log p(x, y): (B, C), in nats.
    log_joint: Tensor
    #: Its Monte Carlo standard errors: (B, C), in nats.
    standard_error: Tensor
    #: Pareto k̂ of its weights, above 0.7 where it is likely too low: (B, C).
    pareto_k: Tensor
    #: Importance samples of each datum and class.
    num_particles: int

    @property
    def log_evidence(self) -> Tensor:
        """Log p(x) = log Σ_y p(x, y): (B,), in nats."""
        return self.log_joint.logsumexp(1)

    @property
    def probabilities(self) -> Tensor:
        """p(y|x): (B, C)."""
        return self.log_joint.softmax(1)

    def __repr__(self) -> str:
        num, classes = self.log_joint.shape
        sure = float(self.probabilities.max(1).values.mean())
        return (
            f"p(y|x) of {num} data over {classes} classes by {self.num_particles} importance samples each; "
            f"the most probable class has {sure:.3f} on average, log p(x) = "
            f"{float(self.log_evidence.mean()):.3f} nats"
        )


def label_posterior(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_classes: int,
    *,
    num_particles: int = 1000,
    label: str = "label",
    label_prior: Sequence[float] | None = None,
    progress: bool | None = None,
) -> LabelPosterior:
    """p(y|x) ∝ p(x, y) for y = 0 … C − 1, log p(x, y) being that of x with the label given.

    For any pair of programs `model(x, label=y)` whose evidence with a label is p(x, y), as that of
    `SemiSupervisedVAE`. Of programs with p(x|y), as a conditional `VAE`, it is the Bayes classifier where
    `label_prior` says p(y). Each log p(x, y) is low on average; where its draws are few, the class with the
    heavier tail is underrated most, which `pareto_k` and `standard_error` show.

    Args:
        model: Pyro program of p(x, z, y).
        guide: Pyro program of q(z|x, y).
        x: Data (B, *data_shape), without the label.
        num_classes: C.
        num_particles: Importance samples of each datum and class.
        label: The name by which the programs take the label.
        label_prior: p(y), a probability for each class, for programs with p(x|y) in the place of p(x, y).
        progress: Show a progress bar over classes; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_evidence`; where x comes with labels, or `label_prior` has another length.

    >>> from pyro_vae import Digits, SemiSupervisedVAE, assemble
    >>> data = Digits().with_labels(100)
    >>> vae, x = assemble(data, program=SemiSupervisedVAE), data.test.batch()[:4]
    >>> found = label_posterior(vae.model, vae.guide, x, 10, num_particles=20)
    >>> found.probabilities.shape, found.log_evidence.shape
    (torch.Size([4, 10]), torch.Size([4]))
    """
    batch = Batch.of(x, None)
    if label in batch.given:
        raise InputError(f"expected data without {label}, got some with: leave it out, since it is asked for")
    draws("num_particles", num_particles)
    shift = _log_prior(label_prior, count("num_classes", num_classes))
    found = []
    for y in progress_bar(progress, iterable=range(num_classes), desc="p(label|x)", unit="classes"):
        labels = torch.full((len(batch),), y, device=batch.device)
        given = Batch(batch.x, {**batch.given, label: labels})
        found.append(log_evidence(model, guide, given, num_particles=num_particles, progress=False))
    return LabelPosterior(
        torch.stack([each.estimate for each in found], 1) + shift.to(home(batch.device)),
        torch.stack([each.standard_error for each in found], 1),
        torch.stack([each.pareto_k for each in found], 1),
        num_particles,
    )


def _log_prior(label_prior: Sequence[float] | None, num_classes: int) -> Tensor:
    if label_prior is None:
        return torch.zeros(num_classes)
    values = [float(each) for each in label_prior]
    if len(values) != num_classes or min(values) <= 0 or not math.isclose(sum(values), 1, abs_tol=1e-5):
        raise InputError(
            f"label_prior expects {num_classes} positive probabilities that sum to 1, got {values}: give one "
            "for each class"
        )
    return torch.tensor(values, dtype=torch.float64).log()
