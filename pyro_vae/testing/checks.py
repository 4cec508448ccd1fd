"""All laws of one kind of component."""

import torch
from torch import Tensor

from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.testing.laws import (
    draws_are_finite,
    gradients_reach_parameters,
    leading_axes_equal_a_loop,
    moves_to_float64,
    shapes_are_right,
    survives_a_copy,
)
from pyro_vae.vae.vae import check_role, latent_shape

#: Data at once.
NUM = 6


def check_prior(prior: Prior) -> None:
    """All laws of a prior p(z): shapes, finite draws, gradients, copies, and float64.

    Args:
        prior: Yours, with no `conditions`. Its parameters stay as they are.

    Raises:
        AssertionError: with the law that does not hold.
        InputError: where it is no `Prior`, or sets no `latent_dim`.

    >>> from pyro_vae import MixturePrior
    >>> check_prior(MixturePrior(3, components=5))
    """
    check_role("prior", prior, Prior, "latent_dim")
    shapes_are_right(prior, (), (), (prior.latent_dim,))
    _check(prior, (), prior().sample((NUM,)))


def check_likelihood(likelihood: Likelihood, x: Tensor) -> None:
    """All laws of a likelihood p(x|z): also any leading axes of z, and data in its support.

    Args:
        likelihood: Yours, with no `conditions`. Its parameters stay as they are.
        x: Some data of the kind that it is a density of, (B, *data_shape), at least one.

    Raises:
        AssertionError: with the law that does not hold.
        InputError: where it is no `Likelihood`, an attribute of the contract is not set, or it refuses x.

    >>> from pyro_vae import MLP, BernoulliLikelihood
    >>> likelihood = BernoulliLikelihood(MLP((8,)).decoder(2, (4,)), (4,))
    >>> check_likelihood(likelihood, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    """
    check_role("likelihood", likelihood, Likelihood, "decoder", "data_shape")
    shape = latent_shape(likelihood)
    for leading in ((), (NUM,), (2, NUM)):
        shapes_are_right(likelihood, (torch.randn(*leading, *shape),), leading, likelihood.data_shape)
    likelihood.check(likelihood(torch.randn(shape)), x)
    value = x.expand(NUM, *x.shape[1:]) if len(x) == 1 else x
    z = torch.randn(2, len(value), *shape)
    leading_axes_equal_a_loop(likelihood, z, value)
    _check(likelihood, (z[0],), value)


def check_posterior(posterior: Posterior, x: Tensor) -> None:
    """All laws of a posterior q(z|x): also any leading axes of x.

    Args:
        posterior: Yours, with no `conditions`. Its parameters stay as they are.
        x: Some data, (B, *data_shape), at least one.

    Raises:
        AssertionError: with the law that does not hold.
        InputError: where it is no `Posterior`, or sets no `encoder` or `latent_dim`.

    >>> from pyro_vae import MLP, FullNormalPosterior
    >>> check_posterior(FullNormalPosterior(MLP((8,)).encoder((4,)), 3), torch.rand(5, 4))
    """
    check_role("posterior", posterior, Posterior, "latent_dim", "encoder")
    event = (posterior.latent_dim,)
    for given in (x[0], x, torch.stack([x, x.flip(0)])):
        shapes_are_right(posterior, (given,), given.shape[: given.ndim - x.ndim + 1], event)
    z = posterior(x).sample()
    leading_axes_equal_a_loop(posterior, torch.stack([x, x.flip(0)]), z)
    _check(posterior, (x,), z)


def _check(component: Prior | Likelihood | Posterior, inputs: tuple[Tensor, ...], value: Tensor) -> None:
    """What holds of every component."""
    draws_are_finite(component, inputs)
    gradients_reach_parameters(component, inputs, value)
    survives_a_copy(component, inputs, value)
    moves_to_float64(component, inputs, value)
