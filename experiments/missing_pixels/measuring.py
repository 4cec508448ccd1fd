"""What is measured of a model: log p of the test images, and how well it fills them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.missing_pixels.setting import Data, Options
from pyro_vae.randomness import own_randomness


def measured(vae: pv.VAE, data: Data, options: Options) -> dict[str, Any]:
    """All numbers of one model, for JSON; log p in nats for each image."""
    x, hollow = data.complete.test.batch(), data.incomplete.test.batch()
    with own_randomness(0, vae.device):
        whole, observed = (
            pv.log_evidence(vae.model, vae.guide, each, num_particles=options.particles)
            for each in (x, hollow)
        )
        found = pv.impute(vae.model, vae.guide, hollow, num_particles=options.draws, num_draws=1)
    return {
        "log_px": _rounded(whole.estimate),
        "log_px_observed": _rounded(observed.estimate),
        "monte_carlo_error": round(whole.mean_monte_carlo_error, 4),
        "above": _above(whole.pareto_k),
        "above_observed": _above(observed.pareto_k),
        **scores(found.mean, x, found.missing),
    }


class Annealing(NamedTuple):
    """How many of the images, and by how many temperatures."""

    images: int = 30
    temperatures: int = 200


def annealed(vae: pv.VAE, data: Data, options: Annealing) -> dict[str, Any]:
    """The two log p of the first images by annealing from the prior, which makes no use of the encoder."""
    found = {}
    for name, part in (("log_px", data.complete), ("log_px_observed", data.incomplete)):
        x = part.test.batch()[: options.images]
        with own_randomness(0, vae.device):
            result = pv.annealed_log_evidence(
                vae.model,
                vae.guide,
                x,
                num_temperatures=options.temperatures,
                num_chains=8,
                start="prior",
            )
        found[name] = _rounded(result.estimate)
    return found


def of_means(data: Data) -> dict[str, Any]:
    """The same of independent pixels, each with its share of ones where it was observed in training."""
    x, hollow = data.complete.test.batch(), data.incomplete.test.batch()
    p = pixel_means(data)
    law = torch.distributions.Bernoulli(p)
    each = law.log_prob(x)  # (B, 1, H, W)
    missing = hollow.isnan()
    return {
        "log_px": _rounded(each.flatten(1).sum(1)),
        "log_px_observed": _rounded(each.masked_fill(missing, 0.0).flatten(1).sum(1)),
        **scores(torch.where(missing, p, x), x, missing),
    }


def pixel_means(data: Data) -> Tensor:
    """(1 + ones) / (2 + number) of each pixel over the training images in which it is observed."""
    train = data.incomplete.train.batch().double()
    number = (~train.isnan()).sum(0)
    return ((train.nansum(0) + 1) / (number + 2)).float()


def scores(mean: Tensor, x: Tensor, missing: Tensor) -> dict[str, float]:
    """Of the missing pixels: F1 score of ink, share that is right, and mean squared error of the mean.

    A pixel is filled with 1 where its mean is above 1/2; F1 = 2 TP / (2 TP + FP + FN).

    >>> x, mean = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([0.9, 0.2, 0.8, 0.0])
    >>> scores(mean, x, torch.tensor([True, True, True, False]))["f1"]
    0.5
    """
    truth, guess = x[missing], mean[missing]
    ink, filled = truth > 0.5, guess > 0.5
    right = 2 * int((ink & filled).sum())
    return {
        "f1": round(right / max(right + int((ink ^ filled).sum()), 1), 5),
        "accuracy": round(float((ink == filled).double().mean()), 5),
        "mse": round(float((guess - truth).double().square().mean()), 6),
    }


def _above(pareto_k: Tensor) -> int:
    """How many estimates cannot be believed, or nobody knows."""
    return int((~(pareto_k <= 0.7)).sum())


def _rounded(values: Tensor) -> list[float]:
    return [round(each, 3) for each in values.double().tolist()]
