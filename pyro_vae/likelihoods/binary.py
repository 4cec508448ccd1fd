"""Likelihoods of binary data."""

from collections.abc import Iterable

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.forms import AsGiven, Dynamic, Form
from pyro_vae.data.raw import RawValues
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.networks import head


class BernoulliLikelihood(Likelihood):
    """p(x|z) = Π_d Bernoulli(x_d; σ(l_d(z))), for binary data x_d ∈ {0, 1}.

    Grey pixels are refused: their cross-entropy is no log-likelihood.

    Args:
        decoder: Network from z to features, to which the head for the logits l is added.
        data_shape: Shape of one datum.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> likelihood = BernoulliLikelihood(MLP().decoder(5, (1, 8, 8)), (1, 8, 8))
    >>> px = likelihood(torch.zeros(3, 5))
    >>> px.batch_shape, px.event_shape
    (torch.Size([3]), torch.Size([1, 8, 8]))
    """

    support_in_words = "the values 0 and 1"
    remedy = (
        "binarise the data (form Dynamic, Static or Threshold, as --data.form Dynamic), or use "
        "DiscretizedLogisticLikelihood for whole grey levels, ContinuousBernoulliLikelihood for grey in "
        "[0, 1], NormalLikelihood for other numbers"
    )

    @classmethod
    def form_for(cls, raw: RawValues) -> Form | None:
        """`AsGiven` of bits, `Dynamic` of grey values; None where neither fits."""
        if raw.bits:
            return AsGiven()
        return Dynamic() if raw.ends[0] >= 0 and raw.ends[1] <= raw.maximum else None

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.logits = head(decoder, data_shape)
        self.data_shape = self.logits.output_shape

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape `data_shape`."""
        logits = self.logits(self.decoder(z))
        return dist.Bernoulli(logits=logits).to_event(len(self.data_shape))
