"""How far probabilities of classes can be believed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.errors import InputError, count
from pyro_vae.precision import home, wide


@dataclass(frozen=True, eq=False, repr=False)
class Reliability:
    """Accuracy and calibration of probabilities of classes on data whose class is known.

    The confidence of a datum is its largest probability. Bins are (m/M, (m+1)/M], empty ones included.

    >>> found = reliability(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 0]), bins=4)
    >>> found.counts.tolist(), found.accuracies.tolist()  # sure by 0.9, and right; by 0.7, and wrong
    ([0, 0, 1, 1], [nan, nan, 0.0, 1.0])
    """

    #: N.
    num_data: int
    #: Share of the data whose most probable class is theirs.
    accuracy: float
    #: Its standard error, √(a (1 − a) / N).
    standard_error: float
    #: Mean confidence.
    confidence: float
    #: Expected calibration error: Σ_m n_m/N |accuracy_m − confidence_m|.
    expected_calibration_error: float
    #: Maximum calibration error: the largest |accuracy_m − confidence_m| of a bin that is not empty.
    maximum_calibration_error: float
    #: Mean of −log p(y|x), in nats.
    negative_log_likelihood: float
    #: Mean of Σ_c (p_c − [c = y])², from 0 to 2.
    brier_score: float
    #: By bin: data, mean confidence and accuracy, NaN where there are no data: (M,) each.
    counts: Tensor
    confidences: Tensor
    accuracies: Tensor

    def content(self) -> dict[str, Any]:
        """All numbers, as for JSON; None in the place of NaN."""
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}
        bins = {name: _plain(getattr(self, name)) for name in ("counts", "confidences", "accuracies")}
        return {**plain, "bins": bins}

    def __repr__(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f} ± {self.standard_error:.4f} at a mean confidence of "
            f"{self.confidence:.4f} on {self.num_data} data; expected calibration error "
            f"{self.expected_calibration_error:.4f} in {len(self.counts)} bins, negative log-likelihood "
            f"{self.negative_log_likelihood:.4f} nats, Brier score {self.brier_score:.4f}"
        )


def reliability(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Reliability:
    """Accuracy, calibration errors and proper scores of probabilities of classes.

    Expected calibration error and the reliability table: Guo, Pleiss, Sun & Weinberger, "On Calibration of
    Modern Neural Networks" (2017), with 15 bins as there. It depends on the bins and is biased upwards by few
    data: over N data of a calibrated classifier it is about √(M/N) of the spread of a bin, not 0. The
    negative log-likelihood and the Brier score (Brier 1950) have no bins.

    Args:
        probabilities: (N, C), each row summing to 1.
        labels: (N,) whole numbers from 0 to C − 1.
        bins: M, of equal width.

    Raises:
        InputError: where shapes do not fit, rows are no probabilities, or a label is no class.

    >>> found = reliability(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 0]), bins=10)
    >>> found.accuracy, round(found.expected_calibration_error, 3)
    (0.5, 0.4)
    """
    labels = labels.to(home(labels.device))
    p = _checked(probabilities, labels)
    count("bins", bins)
    confidence, chosen = p.max(1)
    right = chosen.eq(labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    counts = place.bincount(minlength=bins)
    sums = [torch.zeros_like(p[:1, 0].expand(bins)).index_add(0, place, each) for each in (confidence, right)]
    confidences, accuracies = (each / counts for each in sums)
    gaps = (accuracies - confidences).abs().nan_to_num(0.0)
    accuracy, own = float(right.mean()), p.gather(1, labels[:, None])[:, 0]
    one_hot = torch.nn.functional.one_hot(labels, p.shape[1])
    return Reliability(
        num_data=len(labels),
        accuracy=accuracy,
        standard_error=(accuracy * (1 - accuracy) / len(labels)) ** 0.5,
        confidence=float(confidence.mean()),
        expected_calibration_error=float((counts / len(labels) * gaps).sum()),
        maximum_calibration_error=float(gaps.max()),
        negative_log_likelihood=float(-own.log().mean()),
        brier_score=float((p - one_hot).square().sum(1).mean()),
        counts=counts,
        confidences=confidences,
        accuracies=accuracies,
    )


def _checked(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The probabilities in float64, beside the labels."""
    p = wide(torch.as_tensor(probabilities)).to(labels.device)
    if p.ndim != 2 or labels.shape != p.shape[:1] or not len(labels):
        raise InputError(
            f"reliability expects probabilities (N, C) and labels (N,), got {tuple(p.shape)} and "
            f"{tuple(labels.shape)}: give a row for each label"
        )
    if labels.dtype != torch.int64 or int(labels.min()) < 0 or int(labels.max()) >= p.shape[1]:
        raise InputError(
            f"reliability expects labels (int64) from 0 to {p.shape[1] - 1}, got {labels.min():g} to "
            f"{labels.max():g} of {labels.dtype}: leave out data whose label was not seen"
        )
    if not bool((p >= 0).all()) or not torch.allclose(p.sum(1), torch.ones_like(p[:, 0]), atol=1e-4):
        raise InputError(
            "reliability expects rows of probabilities that sum to 1, got others: use softmax on logits"
        )
    return p


def _plain(values: Tensor) -> list[float | int | None]:
    return [None if value != value else value for value in values.tolist()]
