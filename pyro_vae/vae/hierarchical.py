"""A variational autoencoder of several stochastic layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods import Likelihood
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.vae.program import JointProgram, given_to
from pyro_vae.vae.vae import check_role, latent_shape


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

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The prior, and the likelihood and the posterior of each layer."""
        return self.prior, *self.likelihoods, *self.posteriors

    def model(self, x: Tensor, **given: Tensor) -> Tensor:
        """p(x, z): plate "data"; z_T to z_1 from the top; x, observed. x is (B, *data_shape)."""
        self.check_given(given)
        self.register(self.prior, self.likelihoods)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample(f"z{len(self.posteriors)}", self.prior(**given_to(self.prior, given)))
            for layer in range(len(self.posteriors) - 1, 0, -1):
                z = pyro.sample(f"z{layer}", _of(self.likelihoods[layer], z, given))
            return pyro.sample("x", _of(self.likelihoods[0], z, given), obs=x)

    def guide(self, x: Tensor, **given: Tensor) -> Tensor:
        """q(z|x): plate "data"; z_1 to z_T from the bottom."""
        self.check_given(given)
        self.register(self.posteriors)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = x
            for layer, posterior in enumerate(self.posteriors, 1):
                z = pyro.sample(f"z{layer}", _of(posterior, z, given))
            return z

    @torch.no_grad()
    def check(self, x: Tensor, **given: Tensor) -> None:
        """Refuse data of another shape than the networks' or outside the support of p(x|z_1).

        So is what is given where no part names it or it does not fit, and what is not given and named.
        """
        self.check_given(given)
        self.check_shape(x, self.likelihoods[0].data_shape)
        self.check_conditions(given)
        z = self._draw(len(x) if given else 1, given)
        self.likelihoods[0].check(self._px(z, given, mean=False), x)

    def _draw(self, num: int, given: Mapping[str, Any]) -> Tensor:
        """`num` draws from p(z_T): (num, L_T)."""
        pz = self.code_prior(**given)
        return pz.sample() if pz.batch_shape else pz.sample((num,))

    def code_prior(self, **given: Tensor) -> TorchDistribution:
        """p(z_T)."""
        pz: TorchDistribution = self.prior(**given_to(self.prior, given))
        return pz

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False, given: Mapping[str, Any] | None = None) -> Tensor:
        """`num` draws from the top to x; with `mean` the means of p(x|z_1): (num, *data_shape).

        Args:
            num: How many.
            mean: Give means instead of draws.
            given: What the parts depend on, by name: one value for all, or a tensor (num, …).
        """
        beside = self.given_for_all(count("num", num), given or {})
        px = self._px(self._draw(num, beside), beside, mean=False)
        return px.mean if mean else px.sample()

    @torch.no_grad()
    def encode(self, x: Tensor, **given: Tensor) -> Tensor:
        """The code z_T, through the means of all posteriors: (B, L_T)."""
        for posterior in self.posteriors:
            x = _of(posterior, x, given).mean
        return x

    @torch.no_grad()
    def codes(self, x: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z_T|x), by 1000 draws of all layers: (B, L_T) each."""
        z = x
        for layer, posterior in enumerate(self.posteriors):
            z = _of(posterior, z, given).sample((1000,) if layer == 0 else ())
        return z.mean(0), z.std(0)

    @torch.no_grad()
    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        """The mean of p(x|z_1), z_T to z_1 through the means: (..., *data_shape)."""
        return self._px(z, given, mean=True).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, **given: Tensor) -> Tensor:
        """The mean of p(x|z_1) at one draw z_1 ~ q(z_1|x): (B, *data_shape)."""
        z = _of(self.posteriors[0], x, given).sample()
        return _of(self.likelihoods[0], z, given).mean

    def _px(self, z: Tensor, given: Mapping[str, Any], *, mean: bool) -> TorchDistribution:
        """p(x|z_1) below z_T, by draws or by means of the layers between."""
        for likelihood in reversed(self.likelihoods[1:]):
            pz = _of(likelihood, z, given)
            z = pz.mean if mean else pz.sample()
        return _of(self.likelihoods[0], z, given)


def _of(part: nn.Module, value: Tensor, given: Mapping[str, Any]) -> TorchDistribution:
    """A part at its argument, and at what it depends on besides."""
    made: TorchDistribution = part(value, **given_to(part, given))
    return made


def _check_dims(prior: Prior, likelihoods: Sequence[Likelihood], posteriors: Sequence[Posterior]) -> None:
    """Refuse layers of which one ends in another length of z than the next begins with."""
    encoded = [(posterior.latent_dim,) for posterior in posteriors]
    decoded = [latent_shape(likelihood) for likelihood in likelihoods]
    drawn = [*(tuple(likelihood.data_shape) for likelihood in likelihoods[1:]), (prior.latent_dim,)]
    if not encoded == decoded == drawn:
        raise InputError(
            f"expected one length of z in each layer, got {encoded} in the posteriors, {decoded} as inputs "
            f"of the likelihoods' decoders, and {drawn} in the likelihoods over z and the prior"
        )
