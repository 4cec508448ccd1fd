"""Which labels of the training data are seen."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.fields import UNSEEN
from pyro_vae.errors import InputError, count


def labels_kept(labels: Tensor | None, num: int | None, seed: int) -> Tensor:
    """`num` of the labels, as many of each class, and `UNSEEN` in the places of the others: (N,) int64.

    Args:
        labels: (N,) int64, `UNSEEN` where there is none; None for data without labels.
        num: How many are kept; None for all.
        seed: Of `numpy.random.RandomState`, by which they are chosen.

    Raises:
        InputError: where there are no labels, fewer than one for each class is asked for, or there are too
            few of one.

    >>> labels_kept(torch.tensor([0, 0, 1, 1, 0]), 2, seed=0)
    tensor([ 0, -1,  1, -1, -1])
    """
    seen = torch.zeros(0) if labels is None else labels[labels >= 0]
    if labels is None or not len(seen):
        raise InputError(
            "expected training data with labels, got none: use data that have the field 'label', as MNIST, "
            "or give train_labels"
        )
    if num is None:
        return labels.clone()
    per_class = _per_class(seen.bincount().numpy(), count("the number of labels", num), seed)
    kept = torch.full_like(labels, UNSEEN)
    for label, size in enumerate(per_class):
        rows = np.flatnonzero(labels.numpy() == label)
        chosen = np.random.RandomState([seed, label]).permutation(rows)[:size]
        kept[chosen] = label
    return kept


def _per_class(there: NDArray[np.int64], num: int, seed: int) -> NDArray[np.int64]:
    """How many labels of each class are kept."""
    classes = np.flatnonzero(there)  # a number without data is no class
    if num < len(classes):
        raise InputError(
            f"expected a label of each of {len(classes)} classes at least, got {num} labels: keep more"
        )
    wanted = np.zeros_like(there)
    wanted[classes] = num // len(classes)
    wanted[np.random.RandomState(seed).permutation(classes)[: num % len(classes)]] += 1
    short = np.flatnonzero(wanted > there)
    if len(short):
        label = short[0]
        raise InputError(
            f"expected {wanted[label]} training labels of class {label}, as many of each, got "
            f"{there[label]}: keep fewer than {num}"
        )
    return wanted
