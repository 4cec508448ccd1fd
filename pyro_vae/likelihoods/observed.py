"""The likelihood of those entries of a datum that were observed."""

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from pyro_vae.distributions import Observed
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood


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
        self.decoder = likelihood.decoder
        self.data_shape = likelihood.data_shape

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x_obs|z): batch shape (...), event shape `data_shape`.

        Raises:
            InputError: where p(x|z) is no product over entries.
        """
        px = self.likelihood(z)
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
        full = px.base_dist.base.to_event(len(px.event_shape))
        self.likelihood.check(full, torch.where(missing, x[~missing][0], x))
