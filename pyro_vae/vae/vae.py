"""The variational autoencoder."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import declared_shape
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.vae.program import JointProgram, given_to, moments


class VAE(JointProgram):
    """Variational autoencoder: z ~ p(z), x ~ p(x|z), with z ~ q(z|x) as the guide.

    Kingma & Welling (2014); Rezende, Mohamed & Wierstra (2014).

    Args:
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x).

    What the parts name as their `conditions` is given beside x, and each gets its own: `model(x, label=y)`
    calls `prior(label=y)` where the prior has `conditions = ("label",)`. It is then p(x|y) that is trained
    and estimated.

    Raises:
        InputError: where the three do not agree on the length of z.

    >>> from pyro_vae import MLP, BernoulliLikelihood, DiagonalNormalPosterior, StandardNormalPrior
    >>> data_shape = (1, 8, 8)
    >>> network = MLP()
    >>> vae = VAE(
    ...     StandardNormalPrior(5),
    ...     BernoulliLikelihood(network.decoder(5, data_shape), data_shape),
    ...     DiagonalNormalPosterior(network.encoder(data_shape), 5),
    ... )
    >>> vae.sample(3).shape
    torch.Size([3, 1, 8, 8])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
        super().__init__()
        check_role("prior", prior, Prior, "latent_dim")
        check_role("likelihood", likelihood, Likelihood, "decoder", "data_shape")
        check_role("posterior", posterior, Posterior, "latent_dim", "encoder")
        decoded = latent_shape(likelihood)
        if not (prior.latent_dim,) == (posterior.latent_dim,) == decoded:
            raise InputError(
                f"expected one latent_dim, got {prior.latent_dim} in the prior, {posterior.latent_dim} in "
                f"the posterior and {decoded} as the input of the likelihood's decoder: build all with one"
            )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The prior, the likelihood and the posterior."""
        return self.prior, self.likelihood, self.posterior

    def model(self, x: Tensor, **given: Tensor) -> Tensor:
        """p(x, z): plate "data"; z ~ prior(); x ~ likelihood(z), observed. x is (B, *data_shape)."""
        self.check_given(given)
        self.register(self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self._p_z(given))
            return pyro.sample("x", self._p_x(z, given), obs=x)

    def guide(self, x: Tensor, **given: Tensor) -> Tensor:
        """q(z|x): plate "data"; z ~ posterior(x)."""
        self.check_given(given)
        self.register(self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self._q_z(x, given))

    def _p_z(self, given: Mapping[str, Any]) -> TorchDistribution:
        return self.prior(**given_to(self.prior, given))

    def _p_x(self, z: Tensor, given: Mapping[str, Any]) -> TorchDistribution:
        return self.likelihood(z, **given_to(self.likelihood, given))

    def _q_z(self, x: Tensor, given: Mapping[str, Any]) -> TorchDistribution:
        return self.posterior(x, **given_to(self.posterior, given))

    @torch.no_grad()
    def check(self, x: Tensor, **given: Tensor) -> None:
        """Refuse data of another shape than the networks', or outside the likelihood's support.

        So is what is given where no part names it or it does not fit, and what is not given and named.
        """
        self.check_given(given)
        self.check_shape(x, self.likelihood.data_shape)
        self.check_conditions(given)
        self.likelihood.check(self._p_x(self._draw(len(x) if given else 1, given), given), x)
        self._check_sees_missing(x, given)

    def _check_sees_missing(self, x: Tensor, given: Mapping[str, Any]) -> None:
        """Refuse an encoder that does not know what NaN is."""
        rows = x.isnan().flatten(1).any(1).nonzero()[:2, 0]  # two, as for batch norm
        if len(rows):
            some = {name: value[rows] for name, value in given.items()}
            with pyro.validation_enabled(False):  # which says NaN, and not why
                qz = self._q_z(x[rows], some)
                try:
                    finite = not bool(qz.sample().isnan().any())
                except RuntimeError:  # of a standard deviation of NaN
                    finite = False
            if not finite:
                raise InputError(
                    f"{type(self.posterior).__name__} gives NaN where entries are missing: put "
                    "ObservedEncoder around its encoder, as assemble does"
                )

    def _draw(self, num: int, given: Mapping[str, Any]) -> Tensor:
        """`num` draws from p(z): (num, L)."""
        pz = self._p_z(given)
        return pz.sample() if pz.batch_shape else pz.sample((num,))

    def code_prior(self, **given: Tensor) -> TorchDistribution:
        """p(z)."""
        return self._p_z(given)

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False, given: Mapping[str, Any] | None = None) -> Tensor:
        """`num` draws x ~ p(x|z), z ~ p(z); with `mean` the means of p(x|z): (num, *data_shape).

        Args:
            num: How many.
            mean: Give means instead of draws.
            given: What the parts depend on, by name: one value for all, or a tensor (num, …).

        Raises:
            InputError: where something is not given that a part names, or does not fit.

        >>> from pyro_vae import Digits, assemble
        >>> vae = assemble(Digits(), condition="label")
        >>> vae.sample(3, given={"label": 7}).shape
        torch.Size([3, 1, 8, 8])
        """
        beside = self.given_for_all(count("num", num), given or {})
        px = self._p_x(self._draw(num, beside), beside)
        return px.mean if mean else px.sample()

    @torch.no_grad()
    def encode(self, x: Tensor, **given: Tensor) -> Tensor:
        """The mean of q(z|x): (B, L), that of a flow by 100 draws. q(z|x) itself is `posterior(x)`."""
        return self._q_z(x, given).mean

    @torch.no_grad()
    def codes(self, x: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), those of a flow by 1000 draws: (B, L) each."""
        qz = self._q_z(x, given)
        return moments(qz, lambda: qz.sample((1000,)))

    @torch.no_grad()
    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        """The mean of p(x|z): (..., *data_shape). The distribution itself is `likelihood(z)`."""
        return self._p_x(z, given).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, **given: Tensor) -> Tensor:
        """The mean of p(x|z) at one draw z ~ q(z|x): (B, *data_shape)."""
        return self.decode(self._q_z(x, given).sample(), **given)


def latent_shape(likelihood: Likelihood) -> tuple[int, ...]:
    """Shape of one z of a likelihood."""
    dim = getattr(likelihood, "latent_dim", None)
    return declared_shape(likelihood.decoder, "input_shape") if dim is None else (dim,)


def check_role(role: str, component: object, base: type, *attributes: str) -> None:
    """Refuse a component of another kind, or one without what its contract asks for."""
    if not isinstance(component, base):
        raise InputError(f"the {role} expects a {base.__name__}, got {type(component).__name__}")
    for attribute in attributes:
        if not hasattr(component, attribute):
            raise InputError(
                f"the {role} {type(component).__name__} has no attribute {attribute}: "
                f"set self.{attribute} in its constructor"
            )
