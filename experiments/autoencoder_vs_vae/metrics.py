"""Numbers of codes and of pictures; codes are (N, 2)."""

import math

import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

import pyro_vae as pv

#: Pictures whose distances are computed at once.
_AT_ONCE = 1000


def moments(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean m (L,) and covariance S (L, L) over the codes themselves, divided by N."""
    codes = codes.double()
    return codes.mean(0), torch.cov(codes.T, correction=0)


def normal_divergence(codes: Tensor) -> float:
    """KL(N(m, S) ‖ N(0, I)) = ½ (tr S + mᵀm − L − log det S) of the codes' mean and covariance, in nats."""
    mean, covariance = moments(codes)
    trace, log_det = covariance.trace(), covariance.logdet()
    return float(trace + mean.square().sum() - len(mean) - log_det) / 2


def sliced_distance(codes: Tensor, *, directions: int = 90) -> float:
    """Sliced 2-Wasserstein distance of the codes to N(0, I), in units of the code.

    The root of the mean over directions θ of ∫₀¹ (F⁻¹(u) − Φ⁻¹(u))² du, F being the distribution of θᵀz: with
    the i-th smallest projection p_i it is mean p² − 2 Σ_i p_i ∫ Φ⁻¹ + 1, the integral from (i−1)/N to i/N,
    which is a difference of normal densities. Nothing is drawn; the directions are equally spaced. Bonneel,
    Rabin, Peyré & Pfister, "Sliced and Radon Wasserstein Barycenters of Measures" (2015).

    Args:
        codes: (N, 2).
        directions: Their number, over half a turn.

    Raises:
        InputError: where the codes have not two columns.
    """
    if codes.ndim != 2 or codes.shape[1] != 2:
        raise pv.InputError(f"sliced_distance expects codes (N, 2), got {tuple(codes.shape)}")
    angles = torch.arange(directions, dtype=torch.float64) * (math.pi / directions)
    projected = (codes.double() @ torch.stack([angles.cos(), angles.sin()])).sort(0).values
    edges = torch.special.ndtri(torch.linspace(0, 1, len(codes) + 1, dtype=torch.float64))
    density = (-edges.square() / 2).exp() / math.sqrt(2 * math.pi)  # 0 at both ends
    integrals = density[:-1] - density[1:]
    squared = projected.square().mean(0) - 2 * integrals @ projected + 1
    return float(squared.clamp(min=0).mean().sqrt())


def whitened(codes: Tensor) -> Tensor:
    """The codes moved and stretched to mean 0 and covariance I: what is left is their shape."""
    mean, covariance = moments(codes)
    factor = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(factor, (codes.double() - mean).T, upper=False).T


def within_share(codes: Tensor, labels: Tensor) -> float:
    """Share of the codes' variance that lies within classes, the same under any linear map: tr(S⁻¹ W) / L.

    W is the mean over codes of the covariance of their own class: 0 where each class is one point, 1 where
    all classes have one mean.
    """
    codes, total = codes.double(), moments(codes)[1]
    within = torch.zeros_like(total)
    for each in labels.unique():
        own = labels == each
        within += own.double().mean() * moments(codes[own])[1]
    return float(torch.linalg.solve(total, within).trace()) / codes.shape[1]


def neighbour_accuracy(
    codes: Tensor, labels: Tensor, test_codes: Tensor, test_labels: Tensor, *, neighbours: int = 10
) -> float:
    """Share of test codes whose class is that of most of their nearest training codes."""
    classifier = KNeighborsClassifier(neighbours).fit(codes.double().numpy(), labels.numpy())
    return float(classifier.score(test_codes.double().numpy(), test_labels.numpy()))


def hole_share(draws: Tensor, codes: Tensor, held_out: Tensor, *, level: float = 0.99) -> float:
    """Share of draws further from every training code than `level` of the held-out codes are.

    Draws that lie as the codes do have 1 − level.
    """
    search = NearestNeighbors(n_neighbors=1).fit(codes.double().numpy())
    usual = torch.from_numpy(search.kneighbors(held_out.double().numpy())[0])
    found = torch.from_numpy(search.kneighbors(draws.double().numpy())[0])
    return float((found > usual.quantile(level)).double().mean())


def effective_classes(found: Tensor) -> float:
    """Exp of the entropy of the classes' shares: k where k classes are equally common, 0 of nothing."""
    if not len(found):
        return 0.0
    shares = found.unique(return_counts=True)[1].double() / len(found)
    return float((-shares * shares.log()).sum().exp())


def nearest_pixels(pictures: Tensor, images: Tensor) -> float:
    """Mean number of pixels in which a 0/1 picture (N, D) differs from the nearest of the images (M, D)."""
    ones = images.sum(1)
    found = []
    for part in pictures.split(_AT_ONCE):
        # Σ (a − b)² = Σ a + Σ b − 2 Σ a b of zeros and ones
        found.append((part.sum(1, keepdim=True) + ones - 2 * part @ images.T).min(1).values)
    return float(torch.cat(found).double().mean())
