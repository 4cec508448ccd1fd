"""A local test: whether q(z|x) is the posterior at a given x."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.diagnosis.classifier import Classifier, Pairs
from pyro_vae.diagnosis.common import holm, store_as_found
from pyro_vae.diagnosis.standardised import Features, look
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.programs import Latents, Program, one_at_a_time, simulate
from pyro_vae.randomness import own_randomness

#: Numbers that x is reduced to.
_FEATURES = 5
#: Between the seed of the simulated data and that of the permutations.
_APART = 2**32 + 2


@dataclass(frozen=True, eq=False)
class LocalTest:
    """Whether a classifier tells q(z|x) from p(z|x) at each observed x; in float64 on the CPU.

    >>> found = LocalTest(
    ...     statistic=torch.tensor([0.02, 0.31]),
    ...     null_mean=torch.tensor([0.02, 0.03]),
    ...     p_value=torch.tensor([0.41, 0.01]),
    ...     num_data=1000,
    ...     num_null=99,
    ... )
    >>> found.rejected.tolist(), found.rejected_anywhere
    ([False, True], True)
    """

    #: Mean of (2 P(from p | z, x) − 1)² over draws from q(z|x), by the classifier; 0 where q is exact, (B,).
    statistic: Tensor
    #: Its mean by classifiers that were trained with labels swapped at random, (B,).
    null_mean: Tensor
    #: Probability of a statistic at least as large where q is the posterior, by the H swaps, (B,).
    p_value: Tensor
    #: Simulated data on which the classifier was trained.
    num_data: int
    #: H.
    num_null: int

    @property
    def rejected(self) -> Tensor:
        """At which x q(z|x) is told from p(z|x), each by a test at 5 % of its own, (B,)."""
        return self.p_value <= 0.05

    @property
    def rejected_anywhere(self) -> bool:
        """Whether it is at any x, by Holm's (1979) test at 5 % over all of them together.

        For B data it needs H of 20 B − 1 at least, since no p-value is below 1 / (H + 1).
        """
        return any(holm(self.p_value))

    def __repr__(self) -> str:
        how = f"{self.num_data} data drawn from the model, {self.num_null} permutations"
        number, total = int(self.rejected.sum()), len(self.p_value)
        if not number:
            return f"q(z|x) is not rejected at any of {total} data (smallest p-value {self._smallest}; {how})"
        worst = int((self.statistic / self.null_mean.clamp(min=1e-300)).argmax())
        return (
            f"q(z|x) is rejected at {number} of {total} data, each at 5 %, most clearly at datum {worst} "
            f"(smallest p-value {self._smallest}; {how})"
        )

    @property
    def _smallest(self) -> str:
        return f"{float(self.p_value.min()):.2g}"


@one_at_a_time
@torch.no_grad()
def local_test(
    model: Program,
    guide: Program,
    x_observed: Tensor | Batch,
    *,
    given: Given | None = None,
    num_data: int = 1000,
    num_null: int = 200,
    num_draws: int = 200,
    seed: int = 0,
    data_plate: str | None = None,
) -> LocalTest:
    """Whether q(z|x) is p(z|x) at each observed x, by a classifier (L-C2ST).

    A classifier is trained to tell (z, x) with z ~ p(z|x), drawn jointly from the model, from (z, x) with
    z ~ q(z|x) at the same x; at the observed x, it should not be able to tell for z ~ q(z|x) either:

        statistic(x) = mean over z ~ q(z|x) of (2 P(from p | z, x) − 1)²,

    whose null distribution is that of classifiers trained with the two labels of each x swapped at random.
    p-value = (1 + number of those at least as large) / (1 + `num_null`), exact where q(z|x) is p(z|x) at
    every x. Where it is wrong at other x only, the classifier may carry that over to near ones. It is a
    kernel ridge regression on the unconstrained latents in standard deviations of q(z|x), and on the first
    principal components of x, what is given beside it and the mean of q(z|x); all permutations share one
    factorisation, so that they cost next to nothing. Linhart, Gramfort & Rodrigues (2023), "L-C2ST: local
    diagnostics for posterior approximations in simulation-based inference".

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)`, that observes all of x.
        guide: Pyro program of q(z|x), called likewise.
        x_observed: Data (B, *data_shape) to test at. Simulated data are as many, whose given is theirs.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_data: N, data to draw; memory grows as 16 N² numbers, time as N³.
        num_null: H, permutations; at least 19, since no p-value is below 1 / (H + 1).
        num_draws: Draws from q(z|x) at each observed x.
        seed: Of torch's random numbers, whose global state is given back as it was.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `calibrate`; where `num_data` is below 50 or above 10,000, or `num_null` below 19.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = local_test(vae.model, vae.guide, data.test.batch()[:3], num_data=100, num_null=19)
    >>> found.p_value.shape
    torch.Size([3])
    """
    _check(count("num_data", num_data), count("num_null", num_null))
    count("num_draws", num_draws)
    observed = Batch.of(x_observed, given)
    with own_randomness(seed_number(seed), observed.device), store_as_found():
        latents = Latents(model, guide, observed, data_plate=data_plate)
        latents.pair.check(observed)
        pairs, features = _pairs(latents, observed, num_data)
        classifier = Classifier(pairs, num_null, np.random.default_rng(seed + _APART))
        found = torch.stack([_at(latents, classifier, features, one, num_draws) for one in observed.split(1)])
    exceeding = (found[:, 1:] >= found[:, :1]).sum(1)
    p_value = (1 + exceeding.double()) / (1 + num_null)
    return LocalTest(found[:, 0], found[:, 1:].mean(1), p_value, num_data, num_null)


def _check(num_data: int, num_null: int) -> None:
    if not 50 <= num_data <= 10_000:
        raise InputError(f"num_data expects a number from 50 to 10000, got {num_data}: take 1000 or 2000")
    if num_null < 19:
        raise InputError(
            f"num_null expects 19 at least, so that a p-value can be 5 %, got {num_null}: take 200"
        )


def _pairs(latents: Latents, like: Batch, num_data: int) -> tuple[Pairs, Features]:
    """A draw from p(z|x) and one from q(z|x) for each of the simulated data, and how x is reduced."""
    batch, truth = simulate(latents, like, num_data)
    guide, (own,) = look(latents, batch, 1)
    blocks = guide.features(batch)
    features = Features(blocks, _FEATURES)
    return Pairs(guide.standard(truth), guide.standard(own), features(blocks)), features


def _at(latents: Latents, classifier: Classifier, features: Features, one: Batch, num: int) -> Tensor:
    """The statistics at one observed datum: (1 + H,)."""
    guide, draws = look(latents, one, num)
    found = classifier.statistics(guide.standard(draws)[:, 0], features(guide.features(one))[0])
    return torch.as_tensor(found, dtype=torch.float64)
