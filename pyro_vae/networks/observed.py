"""An encoder of data with missing entries."""

from collections.abc import Iterable

import torch
from torch import Size, Tensor, nn

from pyro_vae.errors import InputError
from pyro_vae.networks.base import Shape, declared_shape


class ObservedEncoder(nn.Module):
    """A network that sees `fill` in the place of NaN, and, if it has room for it, which entries are observed.

    A network for twice the channels, (2 C, H, W) or (2 D,), sees the mask as the second half of them: 1 where
    an entry is observed, else 0. One for the shape of the data sees the filled data alone, as in Mattei &
    Frellsen, "MIWAE" (2019).

    Args:
        network: An encoder of inputs of shape `data_shape`, or with twice the first axis.
        data_shape: Shape of one datum.
        fill: What stands for a missing entry, in units of x: a number, or one for each entry.

    Raises:
        InputError: where the network takes inputs of another shape.

    >>> from pyro_vae import MLP
    >>> encoder = ObservedEncoder(MLP().encoder((8,)), (4,))
    >>> encoder(torch.tensor([0.5, torch.nan, torch.nan, 1.0])).isfinite().all()
    tensor(True)
    """

    fill: Tensor

    def __init__(self, network: nn.Module, data_shape: Shape, *, fill: float | Tensor = 0.0) -> None:
        super().__init__()
        self.network = network
        self.input_shape: Shape = tuple(data_shape)
        self.output_shape = declared_shape(network, "output_shape")
        taken, doubled = declared_shape(network, "input_shape"), self.doubled(data_shape)
        if taken not in (self.input_shape, doubled):
            raise InputError(
                f"expected an encoder of shape {self.input_shape}, or {doubled} for one that sees which "
                f"entries are observed, got {taken}: build it for one of these"
            )
        self.sees_mask = taken == doubled
        filled = torch.as_tensor(fill, dtype=torch.get_default_dtype()).expand(data_shape)
        self.register_buffer("fill", filled.clone())  # a number for each entry, which can be written to

    @staticmethod
    def doubled(data_shape: Shape) -> Shape:
        """The shape of data and mask together."""
        return (2 * data_shape[0], *data_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """The features of x: (..., *data_shape) to (..., *output_shape)."""
        if x.shape[x.ndim - len(self.input_shape) :] != Size(self.input_shape):
            raise InputError(
                f"the network expects inputs of shape {self.input_shape}, got a tensor of shape "
                f"{tuple(x.shape)}: build the network for the shape of the data"
            )
        missing = x.isnan()
        seen = torch.where(missing, self.fill, x)
        if self.sees_mask:
            seen = torch.cat([seen, (~missing).to(x.dtype)], dim=-len(self.input_shape))
        features: Tensor = self.network(seen)
        return features


def mean_of_observed(blocks: Iterable[Tensor]) -> Tensor:
    """The mean of each entry over the data in which it is observed; 0 where it never is.

    >>> mean_of_observed([torch.tensor([[1.0, torch.nan], [3.0, torch.nan]])])
    tensor([2., 0.])
    """
    total, number = torch.zeros(2, 1, dtype=torch.float64)
    for block in blocks:
        total = total + block.double().nansum(0)
        number = number + (~block.isnan()).sum(0)
    return (total / number.clamp(min=1)).float()
