"""A small classifier, and what it finds in pictures."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pyro_vae as pv
from experiments.autoencoder_vs_vae.metrics import effective_classes, nearest_pixels
from pyro_vae.data import Dataset, Split, shuffle
from pyro_vae.randomness import own_randomness

#: Probability above which a class is found confidently.
CONFIDENT = 0.9
#: Training images that pictures are compared with.
NUM_IMAGES = 10_000


def labels_of(split: Split) -> Tensor:
    """The classes (N,)."""
    if split.labels is None:
        raise pv.InputError("expected labelled images, got none: choose data with labels")
    return split.labels


def train_classifier(split: Split, *, epochs: int, hidden_dims: tuple[int, int] = (300, 100)) -> nn.Module:
    """A dense network from pictures to the log-odds of ten classes, trained on freshly binarised images."""
    labels = labels_of(split)
    with own_randomness(0, torch.device("cpu")):
        first, second = hidden_dims
        layers = [nn.Flatten(), nn.Linear(split.data_shape.numel(), first), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator()
    for epoch in range(epochs):
        for index in shuffle(split, generator, seed=0, epoch=epoch).split(128):
            optimiser.zero_grad()
            cross_entropy(network(split.batch(index, generator)), labels[index]).backward()
            optimiser.step()
    return network.eval()


class Verdict(NamedTuple):
    """What a classifier finds in each picture."""

    #: The likeliest class: (N,).
    digit: Tensor
    #: Whether its probability is above `CONFIDENT`: (N,).
    confident: Tensor


class Judge:
    """Judges decoded means as the classifier's training images were made: by a draw of 0/1 pixels.

    Args:
        classifier: From pictures (N, *data_shape) to log-odds (N, 10).
        images: Training images of 0/1 pixels, thresholded at ½, by which likeness is measured.
    """

    def __init__(self, classifier: nn.Module, images: Split) -> None:
        self.classifier = classifier
        self.images = images.subset(NUM_IMAGES).batch().flatten(1)

    @classmethod
    def of(cls, data: Dataset, sharp: Dataset, *, epochs: int) -> "Judge":
        """Trained on `data`; `sharp` are the same data, thresholded."""
        return cls(train_classifier(data.train, epochs=epochs), sharp.train)

    @torch.no_grad()
    def verdict(self, pictures: Tensor) -> Verdict:
        """Of 0/1 pictures."""
        parts = [self.classifier(part).softmax(1).max(1) for part in pictures.split(2000)]
        probability = torch.cat([part.values for part in parts])
        return Verdict(torch.cat([part.indices for part in parts]), probability > CONFIDENT)

    def of_means(self, means: Tensor, labels: Tensor | None = None) -> Mapping[str, float]:
        """Of decoded means, each drawn once and thresholded once."""
        return self.of_pictures(torch.bernoulli(means), (means > 0.5).float(), labels)

    def of_pictures(self, drawn: Tensor, sharp: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Shares of confident digits, how many kinds there are, and the distance to training images.

        Args:
            drawn: Pictures of 0/1 pixels drawn from their grey levels: (N, *data_shape).
            sharp: The same pictures, thresholded at ½.
            labels: Their classes, where they have one: (N,).
        """
        found = self.verdict(drawn)
        numbers = {
            "confident": _mean(found.confident),
            "confident_sharp": _mean(self.verdict(sharp).confident),
            "classes": effective_classes(found.digit[found.confident]),
            "pixels": nearest_pixels(sharp.flatten(1), self.images),
        }
        return numbers if labels is None else {**numbers, "accuracy": _mean(found.digit == labels)}


def _mean(truth: Tensor) -> float:
    return float(truth.double().mean())
