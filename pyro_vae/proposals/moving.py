"""Distributions made anew of changed parameters."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import transform_to

#: (a parameter, unconstrained; the unit of its offset) → the moved parameter.
Offset = Callable[[Tensor, Tensor], Tensor]

#: (name of a parameter, itself, the distribution) → the changed parameter, all constrained.
Change = Callable[[str, Tensor, Any], Tensor]

#: One of the parametrisations, where torch knows several.
_NAMES = {torch.distributions.MultivariateNormal: ("loc", "scale_tril")}


class Unusable(Exception):
    """A distribution that cannot be made anew of its parameters."""


def moved(fn: Any, offset: Offset) -> Any:
    """The distribution `fn`, each of its parameters moved; through `Independent` and transforms."""

    def change(name: str, value: Tensor, fn: Any) -> Tensor:
        transform = transform_to(fn.arg_constraints[name])
        return transform(offset(transform.inv(value), _unit(fn, name)))

    return _rebuilt(fn, change)


#: By which power of a factor a parameter changes where the spread is to grow by it, about.
_POWERS = {
    "scale": 1,
    "scale_tril": 1,
    "cov_factor": 1,
    "cov_diag": 2,
    "concentration": -2,
    "concentration0": -2,
    "concentration1": -2,
    "rate": -2,
}


def widened(fn: Any, factor: float) -> Any:
    """The distribution `fn`, wider by a factor; Gamma and Beta keep their means.

    What has no such parameter stays as it is.

    >>> widened(dist.Normal(torch.zeros(2), 2.0).to_event(1), 1.5).stddev
    tensor([3., 3.])
    >>> widened(dist.Gamma(9.0, 3.0), 2.0).mean, widened(dist.Gamma(9.0, 3.0), 2.0).stddev
    (tensor(3.), tensor(2.))
    """
    return _rebuilt(fn, lambda name, value, _: value * factor ** _POWERS.get(name, 0))


def _rebuilt(fn: Any, change: Change) -> Any:
    """A distribution made anew of its changed parameters; through `Independent`, masks and transforms."""
    if isinstance(fn, torch.distributions.Independent):
        return _rebuilt(fn.base_dist, change).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        return _rebuilt(fn.base_dist, change).mask(fn._mask)
    if fn.arg_constraints:
        return _remade(fn, change)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(_rebuilt(fn.base_dist, change), fn.transforms)
    raise Unusable("it has no parameters")


def _remade(fn: Any, change: Change) -> Any:
    names = next((names for kind, names in _NAMES.items() if isinstance(fn, kind)), tuple(fn.arg_constraints))
    try:
        return type(fn)(**{name: change(name, getattr(fn, name), fn) for name in names})
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise Unusable(str(error)) from error


def _unit(fn: Any, name: str) -> Tensor:
    """The unit of an offset: of what has the units of z, the standard deviation; else 1."""
    value = getattr(fn, name)
    if name not in ("loc", "cov_factor", "scale_tril"):
        return torch.ones_like(value)
    spread = fn.stddev.detach()
    spread = torch.where(spread.isfinite(), spread, 1.0)
    if name == "loc":
        return spread
    unit = spread[..., None].expand(value.shape)
    if name == "scale_tril":  # whose diagonal is unconstrained as a logarithm
        return unit.tril(-1) + torch.eye(value.shape[-1]).to(value)
    return unit
