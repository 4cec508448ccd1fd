"""Numbers that training moves further with each step than its learning rate says.

Adam moves a parameter by about its learning rate, whatever the gradient: at 1e-3, a log scale needs 3000
steps from 0 to −3. Times a constant in the forward pass it moves that many times as far, as in the equalised
learning rate of Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation"
(2018).
"""

import torch
from torch import Tensor, nn

from pyro_vae.networks.base import Network, Shape

#: How many times as far.
GAIN = 10.0


class FreeNumbers(nn.Module):
    """Learned numbers that no network gives, as one scale of all pixels: `GAIN` times a parameter.

    Called with features, as a head is, which make no difference.

    Args:
        start: What they are at the start.

    >>> FreeNumbers(torch.zeros(3))()
    tensor([0., 0., 0.], grad_fn=<MulBackward0>)
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.raw = nn.Parameter(start / GAIN)

    def forward(self, features: Tensor | None = None) -> Tensor:
        """The numbers."""
        return GAIN * self.raw


class Amplified(nn.Module):
    """`GAIN` times a head, whose weights start at as much less, so that its outputs start as they would.

    Args:
        head: Network from features to outputs; its parameters are divided in place.
    """

    def __init__(self, head: Network) -> None:
        super().__init__()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.div_(GAIN)
        self.raw = head
        self.output_shape: Shape = head.output_shape

    def forward(self, features: Tensor) -> Tensor:
        """The outputs."""
        outputs: Tensor = self.raw(features)
        return GAIN * outputs
