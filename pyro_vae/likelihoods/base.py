"""The contract of likelihoods, and what several of them share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, TypeVar

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.data.forms import Form
from pyro_vae.data.raw import RawValues
from pyro_vae.errors import InputError, counts
from pyro_vae.networks import Shape, head

Number = TypeVar("Number", float, Tensor)


class Likelihood(nn.Module, ABC):
    """The likelihood p(x|z).

    Contract for the author of the next one: `likelihood(z)` with z of shape (..., L) returns a
    distribution with batch shape (...) and event shape `data_shape`, for any number of leading axes.
    Its `support` is true to the data it is a density for, since `check` holds data against it;
    `support_in_words` and `remedy` complete that message. The constructor takes `decoder` and
    `data_shape` first and its own choices as keyword arguments with defaults; the attributes of these
    names are set. Where NaN in the data means not observed, `assemble` puts `ObservedLikelihood` around it,
    unless its `takes_missing` is True: then its own distribution leaves out of log p(x|z) what is NaN.

    One that depends on something given beside x names it, `conditions = ("label",)`, and is called with it:
    `likelihood(z, label=y)`; `check_conditions` refuses what does not fit.

    Which form of the data it is a density of, `form_for` says; by default the data keep their own.

    On the command line a constructor's parameters named `decoder`, `latent_dim`, `data_shape`, `levels` (the
    number of grey levels of the data) and `columns` (of a table) are filled in; all others become options.

    >>> import pyro.distributions as dist
    >>> import torch
    >>> from pyro_vae import MLP, Counts
    >>> class GeometricLikelihood(Likelihood):
    ...     support_in_words, remedy = "counts from 0", "put counts into the form Counts"
    ...     def __init__(self, decoder, data_shape):
    ...         super().__init__()
    ...         self.decoder, self.data_shape = decoder, tuple(data_shape)
    ...         self.logits = head(decoder, data_shape)
    ...     @classmethod
    ...     def form_for(cls, raw):
    ...         return Counts()
    ...     def forward(self, z):
    ...         return dist.Geometric(logits=self.logits(self.decoder(z))).to_event(len(self.data_shape))
    >>> likelihood = GeometricLikelihood(MLP().decoder(2, (1, 8, 8)), (1, 8, 8))
    >>> px = likelihood(torch.zeros(10, 5, 2))
    >>> px.batch_shape, px.event_shape
    (torch.Size([10, 5]), torch.Size([1, 8, 8]))
    >>> likelihood.check(px, torch.full((5, 1, 8, 8), -1.0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pyro_vae.errors.InputError: GeometricLikelihood expects counts from 0, got -1 among values from -1 to ...
    """

    decoder: nn.Module
    data_shape: Shape
    support_in_words: str = "values in its support"
    remedy: str = "rescale the data or choose another likelihood"
    takes_missing: bool = False

    #: Names of what it depends on besides, given by name.
    conditions: tuple[str, ...] = ()

    def check_conditions(self, **given: Tensor) -> None:
        """Refuse, by InputError, what is given and does not fit; accepts all unless overridden."""

    @classmethod
    def form_for(cls, raw: RawValues) -> Form | None:
        """The form in which these values are what it is a density of; None for that of the data set."""
        return None

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z)."""

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """Refuse data x outside the support of px = p(x|z).

        Raises:
            InputError: with the range of x and the remedy.
        """
        support: Any = px.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        outside = x[~support.check(x)]
        if len(outside):
            if bool(outside.isnan().any()):
                raise InputError(
                    f"{type(self).__name__} expects {self.support_in_words}, got {int(x.isnan().sum())} NaN: "
                    "where that means not observed, make the data with missing=True and the model by "
                    "assemble, or put ObservedLikelihood around it and ObservedEncoder around the encoder; "
                    "else replace what is NaN"
                )
            first = float(outside.flatten()[0])
            raise InputError(
                f"{type(self).__name__} expects {self.support_in_words}, got {first:.4g} among "
                f"values from {float(x.min()):.4g} to {float(x.max()):.4g}: {self.remedy}"
            )


class PixelHead(nn.Module):
    """`num` numbers for each pixel: features to (..., *data_shape, num).

    They are channels of one `head`, which is convolutional where the features are a map.
    """

    def __init__(self, decoder: nn.Module, data_shape: Iterable[int], num: int) -> None:
        super().__init__()
        self.data_shape = counts("data_shape", data_shape)
        self.num = num
        self.layers = head(decoder, (num * self.data_shape[0], *self.data_shape[1:]))

    def forward(self, features: Tensor) -> Tensor:
        """The numbers, those of one pixel on the last axis."""
        channels = -len(self.data_shape)
        raw: Tensor = self.layers(features)  # (..., num · C, H, W)
        return raw.unflatten(channels, (self.num, self.data_shape[0])).movedim(channels - 1, -1)


def bits_per_dim(
    log_px: Number, data_shape: Iterable[int], *, bin_width: float = 1.0, num_observed: float | None = None
) -> Number:
    """Bits per dimension: −(log p(x) + D log bin_width) / (D log 2), with D numbers in a datum.

    With a bin width of 1, log p(x) is that of a mass function over levels. For a density of dequantised
    data, the bin width is the `Dataset.bin_width`, 1/(maximum + 1), and the bits are an upper bound on
    those of the levels (Theis, van den Oord & Bethge 2016, section 3.1). Where log p(x) is a lower bound,
    the bits are an upper bound, too.

    Args:
        log_px: log p(x), in nats per datum: a number, or a tensor of any shape.
        data_shape: Shape of one datum.
        bin_width: Distance of neighbouring levels, in units of x.
        num_observed: D where entries are missing: how many numbers of a datum are observed, on average where
            log p(x) is an average; by default all.

    Raises:
        InputError: where the bin width or the number is not positive and finite.

    >>> bits_per_dim(-64 * math.log(256), (1, 8, 8))
    8.0
    >>> bits_per_dim(0.0, (1, 8, 8), bin_width=1 / 16)
    4.0
    """
    if not 0 < bin_width < math.inf:
        raise InputError(f"bin_width expects a positive number, got {bin_width}")
    dims: float = math.prod(counts("data_shape", data_shape))
    if num_observed is not None:
        if not 0 < num_observed <= dims:
            raise InputError(
                f"num_observed expects a number up to {dims}, those of a datum, got {num_observed}"
            )
        dims = num_observed
    return -(log_px / dims + math.log(bin_width)) / math.log(2)
