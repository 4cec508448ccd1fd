"""The likelihood of those entries of a datum that were observed."""

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.distributions import Observed
from pyro_vae.distributions.observed import inside
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.networks import Shape


class ObservedLikelihood(Likelihood):
    """p(x_obs|z) = Π over the observed entries d of p(x_d|z), for data in which NaN means not observed.

    With it the ELBO is a bound on log p(x_obs), as in Nazábal, Olmos, Ghahramani & Valera, "Handling
    incomplete heterogeneous data using VAEs" (2020), and Mattei & Frellsen, "MIWAE" (2019). It is right where
    entries are missing at random: whether one is missing may depend on what is observed, not on its value.
    Draws and means are those of all entries. `assemble` puts it around the likelihood of data that are made
    with `missing=True`.

    Args:
        likelihood: p(x|z), a product over entries, as are all of this package.

    >>> from pyro_vae import MLP, NormalLikelihood
    >>> full = NormalLikelihood(MLP().decoder(5, (4,)), (4,))
    >>> likelihood = ObservedLikelihood(full)
    >>> z, x = torch.zeros(5), torch.tensor([0.5, torch.nan, torch.nan, 1.0])
    >>> entries = full(z).base_dist.log_prob(x.nan_to_num())
    >>> bool(torch.isclose(likelihood(z).log_prob(x), entries[0] + entries[3]))
    True
    """

    takes_missing = True

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.conditions = likelihood.conditions

    @property
    def latent_dim(self) -> int | None:
        """L, where the likelihood inside says so."""
        return getattr(self.likelihood, "latent_dim", None)

    @property
    def decoder(self) -> nn.Module:  # type: ignore[override]
        """That of the likelihood inside."""
        return self.likelihood.decoder

    @property
    def data_shape(self) -> Shape:  # type: ignore[override]
        """Shape of one datum."""
        return self.likelihood.data_shape

    def check_conditions(self, **given: Tensor) -> None:
        """As the likelihood inside."""
        self.likelihood.check_conditions(**given)

    def forward(self, z: Tensor, **given: Tensor) -> TorchDistribution:
        """p(x_obs|z): batch shape (...), event shape `data_shape`.

        Raises:
            InputError: where p(x|z) is no product over entries.
        """
        px = self.likelihood(z, **given)
        try:
            return Observed.entries(px)
        except InputError as error:
            raise InputError(f"{type(self.likelihood).__name__} takes no missing entries: {error}") from error

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """Refuse data of which an observed entry lies outside the support of p(x|z).

        Raises:
            InputError: with the range of x and the remedy.
        """
        missing = x.isnan()
        if bool(missing.all()):
            return
        entries = px.base_dist.base
        first = (~missing).to(torch.uint8).argmax(0, keepdim=True)
        observed = x.gather(0, first)  # of each entry one value, NaN where it is never observed
        observed = torch.where(observed.isnan(), inside(entries.support), observed)
        full = entries.to_event(len(px.event_shape))
        self.likelihood.check(full, torch.where(missing, observed, x))
