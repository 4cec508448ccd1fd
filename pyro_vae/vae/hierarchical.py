"""A variational autoencoder of several stochastic layers."""

from collections.abc import Sequence
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
from pyro_vae.vae.program import JointProgram
from pyro_vae.vae.vae import check_role


class HierarchicalVAE(JointProgram):
    """T stochastic layers: z_T ~ p(z_T), z_t ~ p(z_t|z_{t+1}), x ~ p(x|z_1), with a bottom-up guide.

    The guide is z_1 ~ q(z_1|x), z_{t+1} ~ q(z_{t+1}|z_t), as in Burda, Grosse & Salakhutdinov,
    "Importance Weighted Autoencoders" (2016). With T = 1 it is `VAE`. The parts are the same components:
    p(z_t|z_{t+1}) is a likelihood over data of shape (L_t,), q(z_{t+1}|z_t) a posterior given them. Sites
    are "z1" to "zT" and "x". The code that `encode` gives and `decode` takes is z_T.

    Args:
        prior: p(z_T).
        likelihoods: p(x|z_1), p(z_1|z_2), …, T of them; `NormalLikelihood` with scale per_pixel for those
            over z.
        posteriors: q(z_1|x), q(z_2|z_1), …, T of them.

    Raises:
        InputError: where there is not one posterior for each likelihood, or neighbours do not agree on the
            length of z.

    >>> from pyro_vae import Digits, assemble
    >>> vae = assemble(Digits(), program=HierarchicalVAE, latent_dim=(8, 4))
    >>> vae.encode(Digits().test.batch()[:3]).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, prior: Prior, likelihoods: Sequence[Likelihood], posteriors: Sequence[Posterior]
    ) -> None:
        super().__init__()
        if not 0 < len(likelihoods) == len(posteriors):
            raise InputError(
                f"expected one posterior for each likelihood, got {len(posteriors)} and {len(likelihoods)}"
            )
        check_role("prior", prior, Prior, "latent_dim")
        for likelihood, posterior in zip(likelihoods, posteriors, strict=True):
            check_role("likelihood", likelihood, Likelihood, "decoder", "data_shape")
            check_role("posterior", posterior, Posterior, "latent_dim", "encoder")
        _check_dims(prior, likelihoods, posteriors)
        self.prior = prior
        self.likelihoods: Any = nn.ModuleList(likelihoods)  # Any, since the list types its items as modules
        self.posteriors: Any = nn.ModuleList(posteriors)

    def model(self, x: Tensor) -> Tensor:
        """p(x, z): plate "data"; z_T to z_1 from the top; x, observed. x is (B, *data_shape)."""
        self.register(self.prior, self.likelihoods)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample(f"z{len(self.posteriors)}", self.prior())
            for layer in range(len(self.posteriors) - 1, 0, -1):
                z = pyro.sample(f"z{layer}", self.likelihoods[layer](z))
            return pyro.sample("x", self.likelihoods[0](z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): plate "data"; z_1 to z_T from the bottom."""
        self.register(self.posteriors)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = x
            for layer, posterior in enumerate(self.posteriors, 1):
                z = pyro.sample(f"z{layer}", posterior(z))
            return z

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Refuse data of another shape than the networks' or outside the support of p(x|z_1)."""
        self.check_shape(x, self.likelihoods[0].data_shape)
        self.likelihoods[0].check(self._px(self.prior().sample((1,)), mean=False), x)

    def code_prior(self) -> TorchDistribution:
        """p(z_T)."""
        return self.prior()

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """`num` draws from the top to x; with `mean` the means of p(x|z_1): (num, *data_shape)."""
        px = self._px(self.prior().sample((count("num", num),)), mean=False)
        return px.mean if mean else px.sample()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The code z_T, through the means of all posteriors: (B, L_T)."""
        for posterior in self.posteriors:
            x = posterior(x).mean
        return x

    @torch.no_grad()
    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z_T|x), by 1000 draws of all layers: (B, L_T) each."""
        z = x
        for layer, posterior in enumerate(self.posteriors):
            z = (
                posterior(z).sample((1000,))
                if layer == 0
                else posterior(z.flatten(0, 1)).sample().unflatten(0, z.shape[:2])
            )
        return z.mean(0), z.std(0)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z_1), z_T to z_1 through the means: (..., *data_shape)."""
        return self._px(z, mean=True).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z_1) at one draw z_1 ~ q(z_1|x): (B, *data_shape)."""
        return self.likelihoods[0](self.posteriors[0](x).sample()).mean

    def _px(self, z: Tensor, *, mean: bool) -> TorchDistribution:
        """p(x|z_1) below z_T, by draws or by means of the layers between."""
        for likelihood in reversed(self.likelihoods[1:]):
            pz = likelihood(z)
            z = pz.mean if mean else pz.sample()
        return self.likelihoods[0](z)


def _check_dims(prior: Prior, likelihoods: Sequence[Likelihood], posteriors: Sequence[Posterior]) -> None:
    """Refuse layers of which one ends in another length of z than the next begins with."""
    encoded = [(posterior.latent_dim,) for posterior in posteriors]
    decoded = [declared_shape(likelihood.decoder, "input_shape") for likelihood in likelihoods]
    drawn = [*(tuple(likelihood.data_shape) for likelihood in likelihoods[1:]), (prior.latent_dim,)]
    if not encoded == decoded == drawn:
        raise InputError(
            f"expected one length of z in each layer, got {encoded} in the posteriors, {decoded} as inputs "
            f"of the likelihoods' decoders, and {drawn} in the likelihoods over z and the prior"
        )
