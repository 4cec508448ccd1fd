"""All numbers of one trained model."""

from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

import pyro_vae as pv
from experiments.autoencoder_vs_vae import metrics
from experiments.autoencoder_vs_vae.judge import Judge, labels_of
from experiments.grid import grid_log_evidence
from pyro_vae.data import Dataset, Split
from pyro_vae.networks import Network
from pyro_vae.storage.runs import Run

Model = pv.VAE | pv.Autoencoder

#: Steps of a straight line between two codes, both ends included.
STEPS = 11


class Codes(NamedTuple):
    """Codes of training and of test data: (N, 2) each."""

    train: Tensor
    test: Tensor


class Setting(NamedTuple):
    """What all models are measured on."""

    data: Dataset
    judge: Judge
    #: Draws decoded from each distribution.
    num_draws: int
    #: Pairs of test images of two classes, by their numbers: (P, 2).
    pairs: Tensor


def pairs_of_classes(labels: Tensor, num: int) -> Tensor:
    """The first `num` pairs of a fixed random order whose two data differ in class: (num, 2)."""
    random = np.random.RandomState(0)
    order = torch.from_numpy(random.randint(len(labels), size=(20 * num, 2)))
    return order[labels[order[:, 0]] != labels[order[:, 1]]][:num]


def measure(vae: Model, setting: Setting) -> dict[str, Any]:
    """Codes, decoded pictures, lines between codes and the fit of one model."""
    data = setting.data
    x, labels = data.test.batch(), labels_of(data.test)
    codes = encode(vae, data)
    # where codes have a distribution, it is its draws that the prior is to match
    cloud = encode(vae, data, draw=True) if isinstance(vae, pv.VAE) else codes
    neighbours = (codes.train, labels_of(data.train), codes.test, labels)
    found: dict[str, Any] = {
        "codes": of_codes(codes.test),
        "cloud": of_codes(cloud.test),
        "neighbours": metrics.neighbour_accuracy(*neighbours),
        "within": metrics.within_share(codes.test, labels),
        "line": along_lines(vae, codes.test, setting),
        "fit": fit(vae, x, codes.test),
        "reconstructions": setting.judge.of_means(decode(vae, codes.test), labels),
    }
    for name, z in sources(cloud.train, setting.num_draws).items():
        holes = metrics.hole_share(z, cloud.train, cloud.test)
        found[name] = {**setting.judge.of_means(decode(vae, z)), "holes": holes}
    return found


@torch.no_grad()
def encode(vae: Model, data: Dataset, *, draw: bool = False) -> Codes:
    """An autoencoder's codes; a VAE's means of q(z|x), or one draw from each."""

    def each(x: Tensor) -> Tensor:
        return vae.posterior(x).sample() if draw and isinstance(vae, pv.VAE) else vae.encode(x)

    both = (data.train.batch(), data.test.batch())
    return Codes(*(torch.cat([each(part) for part in x.split(2000)]) for x in both))


def decode(vae: Model, z: Tensor) -> Tensor:
    """Decoded means: (N, *data_shape)."""
    return torch.cat([vae.decode(part) for part in z.split(2000)])


def of_codes(codes: Tensor) -> dict[str, Any]:
    """Where the codes lie, how far they spread, and how far they are from N(0, I)."""
    mean, covariance = metrics.moments(codes)
    shortest, longest = torch.linalg.eigvalsh(covariance).sqrt().tolist()
    return {
        "mean": mean.tolist(),
        "covariance": covariance.tolist(),
        "off_centre": float(mean.norm()),
        "longest": longest,
        "shortest": shortest,
        "divergence": metrics.normal_divergence(codes),
        "distance": metrics.sliced_distance(codes),
        "shape_distance": metrics.sliced_distance(metrics.whitened(codes)),
    }


def sources(codes: Tensor, num: int) -> dict[str, Tensor]:
    """Draws z (num, 2) from N(0, I), and from the normal distribution with the codes' mean and covariance."""
    mean, covariance = (each.float() for each in metrics.moments(codes))
    noise = torch.randn(2, num, len(mean))
    return {"standard": noise[0], "fitted": mean + noise[1] @ torch.linalg.cholesky(covariance).T}


def lines(codes: Tensor, pairs: Tensor) -> Tensor:
    """Codes on the straight lines between two: (STEPS, P, 2)."""
    return torch.lerp(codes[pairs[:, 0]], codes[pairs[:, 1]], torch.linspace(0, 1, STEPS)[:, None, None])


def along_lines(vae: Model, codes: Tensor, setting: Setting) -> dict[str, Any]:
    """Shares of confident digits at each step, and of those that are of neither end's class.

    `inner` is the mean over the steps between the ends, `inner_third` how much of it is of neither class.
    """
    z = lines(codes, setting.pairs)
    found = setting.judge.verdict(torch.bernoulli(decode(vae, z.flatten(0, 1))))
    digit, confident = (each.reshape(z.shape[:2]) for each in found)
    ends = labels_of(setting.data.test)[setting.pairs]  # (P, 2)
    third = confident & (digit[..., None] != ends).all(-1)
    shares, thirds = (each.double().mean(1) for each in (confident, third))
    inner, inner_third = float(shares[1:-1].mean()), float(thirds[1:-1].mean())
    return {
        "confident": shares.tolist(),
        "third": thirds.tolist(),
        "ends": float(shares[[0, -1]].mean()),
        "middle": float(shares[STEPS // 2]),
        "inner": inner,
        "inner_third": inner_third / inner if inner else 0.0,
    }


@torch.no_grad()
def fit(vae: Model, x: Tensor, codes: Tensor) -> dict[str, float]:
    """Cross-entropy of test data at their codes, and of a VAE the ELBO, in nats per datum."""
    if isinstance(vae, pv.Autoencoder):
        return {"error": float(vae.error(x).double().mean())}
    terms = pv.elbo(vae.model, vae.guide, x, num_particles=10)
    at_means = -vae.likelihood(codes).log_prob(x).double()
    numbers = {"error": at_means, "error_drawn": -terms.reconstruction, "kl": terms.kl, "elbo": terms.elbo}
    return {name: float(each.mean()) for name, each in numbers.items()}


def evidence(vae: pv.VAE, split: Split, *, num: int, points: int) -> dict[str, Any]:
    """Log p(x) of `num` test data, by a fixed choice, integrated over a grid."""
    found = grid_log_evidence(vae, split.subset(num).batch(), limit=6.0, points=points)
    return {
        "each": found.estimate.tolist(),
        "grid": float(found.estimate.mean()),
        "coarse": float(found.coarse.mean()),
        "num_grid": len(found.estimate),
        "coarse_furthest": float((found.estimate - found.coarse).abs().max()),
    }


def sampled_evidence(run: Run, exact: np.ndarray) -> dict[str, float]:
    """Log p(x) by importance sampling, as the run has it of the same data, against the exact one.

    `short` is the share of data that importance sampling has by more than half a nat too low,
    `short_unseen` the share that has a Pareto k̂ below 0.7 nevertheless.
    """
    with np.load(run.folder / "per_datum.npz") as arrays:
        estimate, k = (arrays[name][: len(exact)] for name in ("log_evidence", "pareto_k"))
    short = exact - estimate > 0.5
    return {
        "importance": float(estimate.mean()),
        "tails": float((k > 0.7).mean()),
        "shortfall": float(np.max(exact - estimate)),
        "short": float(short.mean()),
        "short_unseen": float((short & (k < 0.7)).mean()),
    }


class _Placed(nn.Module):
    """The decoder at m + A u: codes with mean m and covariance A Aᵀ from u ~ N(0, I)."""

    def __init__(self, decoder: nn.Module, mean: Tensor, factor: Tensor) -> None:
        super().__init__()
        self.decoder, self.mean, self.factor = decoder, mean, factor

    def forward(self, u: Tensor) -> Tensor:
        return self.decoder(self.mean + u @ self.factor.T)


def as_vae(autoencoder: pv.Autoencoder, codes: Tensor) -> pv.VAE:
    """The generative model that a normal distribution fitted to its codes makes of an autoencoder.

    z ~ N(m, S), x ~ Bernoulli(x̂(z)), written with u ~ N(0, I) for z = m + A u, A Aᵀ = S; log p(x) does not
    depend on which of the two is called the code. The posterior is not trained.
    """
    mean, covariance = (each.to(autoencoder.dtype) for each in metrics.moments(codes))
    factor = torch.linalg.cholesky(covariance)
    features = cast(tuple[int, ...], autoencoder.decoder.output_shape)
    decoder = Network(_Placed(autoencoder.decoder, mean, factor), (len(mean),), features)
    likelihood = pv.BernoulliLikelihood(decoder, autoencoder.output.output_shape)
    likelihood.logits = autoencoder.output
    posterior = pv.DiagonalNormalPosterior(autoencoder.encoder, len(mean))
    return pv.VAE(pv.StandardNormalPrior(len(mean)), likelihood, posterior).eval()
