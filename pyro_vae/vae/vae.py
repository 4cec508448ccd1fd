"""The variational autoencoder."""

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import declared_shape
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.vae.program import JointProgram, moments


class VAE(JointProgram):
    """Variational autoencoder: z ~ p(z), x ~ p(x|z), with z ~ q(z|x) as the guide.

    Kingma & Welling (2014); Rezende, Mohamed & Wierstra (2014).

    Args:
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x).

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
        decoded = declared_shape(likelihood.decoder, "input_shape")
        if not (prior.latent_dim,) == (posterior.latent_dim,) == decoded:
            raise InputError(
                f"expected one latent_dim, got {prior.latent_dim} in the prior, {posterior.latent_dim} in "
                f"the posterior and {decoded} as the input of the likelihood's decoder: build all with one"
            )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    def model(self, x: Tensor) -> Tensor:
        """p(x, z): plate "data"; z ~ prior(); x ~ likelihood(z), observed. x is (B, *data_shape)."""
        self.register(self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): plate "data"; z ~ posterior(x)."""
        self.register(self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x))

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Refuse data of another shape than the networks' or outside the likelihood's support."""
        self.check_shape(x, self.likelihood.data_shape)
        self.likelihood.check(self.likelihood(self.prior().sample((1,))), x)

    def code_prior(self) -> TorchDistribution:
        """p(z)."""
        return self.prior()

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """`num` draws x ~ p(x|z), z ~ p(z); with `mean` the means of p(x|z): (num, *data_shape)."""
        count("num", num)
        px = self.likelihood(self.prior().sample((num,)))
        return px.mean if mean else px.sample()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x): (B, L), that of a flow by 100 draws. q(z|x) itself is `posterior(x)`."""
        return self.posterior(x).mean

    @torch.no_grad()
    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x), those of a flow by 1000 draws: (B, L) each."""
        qz = self.posterior(x)
        return moments(qz, lambda: qz.sample((1000,)))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z): (..., *data_shape). The distribution itself is `likelihood(z)`."""
        return self.likelihood(z).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z) at one draw z ~ q(z|x): (B, *data_shape)."""
        return self.decode(self.posterior(x).sample())


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
