"""Networks: tensors to tensors, no probability.

A network ends in *features*. The component that owns the density (a posterior, a likelihood) adds
the linear heads that turn features into the parameters of its distribution, so every network fits
every component. An `Architecture` makes the encoder and the decoder of one kind, which fit each other.
"""

from pyro_vae.networks.base import (
    Architecture,
    Network,
    Shape,
    bounded,
    check_bounds,
    declared_shape,
    head,
    in_bfloat16,
)
from pyro_vae.networks.columns import ColumnsEncoder
from pyro_vae.networks.conditions import Conditions, conditions_of
from pyro_vae.networks.convolutional import Convolutional, ResidualBlock, ResidualConvolutional
from pyro_vae.networks.dense import MLP, GatedMLP
from pyro_vae.networks.gain import Amplified, FreeNumbers
from pyro_vae.networks.observed import ObservedEncoder, mean_of_observed

__all__ = [
    "MLP",
    "Amplified",
    "Architecture",
    "ColumnsEncoder",
    "Conditions",
    "Convolutional",
    "FreeNumbers",
    "GatedMLP",
    "Network",
    "ObservedEncoder",
    "ResidualBlock",
    "ResidualConvolutional",
    "Shape",
    "bounded",
    "check_bounds",
    "conditions_of",
    "declared_shape",
    "head",
    "in_bfloat16",
    "mean_of_observed",
]
