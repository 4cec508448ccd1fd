"""A classifier that tells draws of q(z|x) from those of p(z|x), and its null distribution by permutation."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Widths of the kernel in the standardised latents and in the features of x, per square root of their number.
_WIDTH, _NEAR, _FAR = 0.6, 0.8, 2.0
#: What of the kernel does not depend on x, and the ridge.
_EVERYWHERE, _RIDGE = 0.3, 30.0
#: Standardised latents count within this.
_MOST = 5.0

Array = NDArray[np.float64]


class Pairs(NamedTuple):
    """For each of N x a draw from p(z|x) and one from q(z|x), standardised: (N, n) each; features (N, k)."""

    true: Tensor
    own: Tensor
    features: Tensor


class Classifier:
    """Kernel ridge regression of ±1, whose mean is 2 P(from p | z, x) − 1; and as many with labels swapped.

    In each pair the two labels are swapped with probability 1/2. Where q(z|x) is p(z|x), all these sets of
    labels have one law given the pairs, so that the permutation test is exact at any N. They share
    one factorisation.

    Args:
        pairs: What it is trained on.
        num_null: H, how many are trained with labels swapped at random.
        generator: Of the swaps.
    """

    def __init__(self, pairs: Pairs, num_null: int, generator: np.random.Generator) -> None:
        from sklearn.kernel_ridge import KernelRidge  # slow to import

        self._z = _within(torch.cat([pairs.true, pairs.own]))
        self._features = np.concatenate([pairs.features.cpu().numpy()] * 2)
        swaps = generator.choice([-1.0, 1.0], size=(len(pairs.true), num_null))
        labels = np.concatenate([np.ones((len(swaps), 1)), swaps], axis=1)
        gram = _kernel(self._z, self._features, self._z, self._features)
        self._ridge = KernelRidge(alpha=_RIDGE, kernel="precomputed")
        self._ridge.fit(gram, np.concatenate([labels, -labels]))

    def statistics(self, z: Tensor, features: Tensor) -> Array:
        """Mean of (2 P − 1)² over draws z (S, n) at one x with features (k,), true labels first: (1 + H,)."""
        rows = np.broadcast_to(features.cpu().numpy(), (len(z), len(features)))
        gram = _kernel(_within(z), rows, self._z, self._features)
        found: Array = np.square(self._ridge.predict(gram)).mean(0)
        return found


def _within(z: Tensor) -> Array:
    found: Array = z.clamp(-_MOST, _MOST).cpu().numpy()
    return found


def _kernel(z: Array, x: Array, other_z: Array, other_x: Array) -> Array:
    """Smooth and quadratic functions of z, times functions of x that change fast, slowly and not at all."""
    from sklearn.metrics.pairwise import rbf_kernel  # slow to import

    size = z.shape[1]
    of_z = rbf_kernel(z, other_z, 1 / (2 * size * _WIDTH**2)) + (1 + z @ other_z.T / size) ** 2 / 4
    if not x.shape[1]:
        return np.asarray(of_z)
    of_x = sum(rbf_kernel(x, other_x, 1 / (2 * x.shape[1] * width**2)) for width in (_NEAR, _FAR))
    return np.asarray(of_z * (_EVERYWHERE + of_x / 2))
