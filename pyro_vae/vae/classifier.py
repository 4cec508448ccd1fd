"""q(y|x): a network that ends in a distribution over classes."""

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.errors import count
from pyro_vae.networks import head


class Classifier(nn.Module):
    """q(y|x) = Cat(y; softmax of a linear layer over an encoder's features).

    Args:
        encoder: Network from data to features.
        num_classes: C; classes are numbered 0 to C − 1.

    Raises:
        InputError: where the encoder does not say its `output_shape`, or there are no classes.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> qy = Classifier(MLP().encoder((1, 8, 8)), 10)(torch.zeros(3, 1, 8, 8))
    >>> qy.batch_shape, qy.logits.shape
    (torch.Size([3]), torch.Size([3, 10]))
    """

    def __init__(self, encoder: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = count("num_classes", num_classes)
        self.logits = head(encoder, (num_classes,))

    def forward(self, x: Tensor) -> dist.Categorical:
        """q(y|x): batch shape (...)."""
        return dist.Categorical(logits=self.logits(self.encoder(x)))
