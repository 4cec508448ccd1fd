"""The mean of a discretised logistic, at the cost of a few draws instead of one sum over all levels."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch.nn.functional import softplus

#: Scales, in bins, from which the sum over levels is an integral with corrections at its ends.
_SMOOTH = 2.0
#: Scales, in units of x, above which the difference of two softplus would lose digits.
_WIDE = 1.0
#: Elements that stay in the cache of a core.
_BLOCK = 2**17

#: Of the midpoint rule by Euler and Maclaurin, B_2j(1/2) / (2j)!, with the other sign: our f falls in u.
_COEFFICIENTS = (1 / 24, -7 / 5760, 31 / 967680, -127 / 154828800, 73 / 3503554560)


def _derivatives() -> list[list[float]]:
    """Those of the logistic function of odd order, as polynomials in tanh²(x/2), lowest power first."""
    factor = Polynomial([0.5, 0, -0.5])  # dt/dx of t = tanh(x/2)
    found, derivative = [], factor * 0.5
    for _ in _COEFFICIENTS:
        found.append(list(np.asarray(derivative.coef)[::2]))
        derivative = (derivative.deriv() * factor).deriv() * factor
    return found


_DERIVATIVES = _derivatives()


def logistic_mean(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """1/n Σ_k σ((loc − (k − ½)/n) / scale), k = 1 … n, of n = levels − 1: the mean of P on the levels k/n.

    Where the scale is 2 bins or more, the sum is ∫₀¹ σ((loc − u) / scale) du, which is a difference of two
    softplus, and the corrections of Euler and Maclaurin at 0 and 1, to within 1e-12. Where it is less, all
    summands are 0 or 1 but for those of levels near `loc`. In both cases it is the sum to the rounding of
    its type.

    Args:
        loc: Of any shape.
        scale: Of the same shape, positive.
        levels: Number of levels, 2 or more.

    >>> logistic_mean(torch.tensor([0.3]), torch.tensor([0.1]), levels=256)
    tensor([0.3048])
    """
    last = levels - 1
    digits = -math.log(torch.finfo(loc.dtype).eps)  # from where σ(digits) is 1
    near = math.ceil(_SMOOTH * (1 + digits))  # levels to either side of loc at which it is not
    if last <= 2 * near:
        return _in_blocks(lambda m, s: _sum(m, s, torch.zeros_like(m), last, last), loc, scale)
    narrow = scale * last < _SMOOTH
    terms = 2 if torch.finfo(loc.dtype).eps > 1e-8 else len(_COEFFICIENTS)
    smooth = _in_blocks(
        lambda m, s: _smooth(m.clamp(-digits * s, 1 + digits * s), s, last, terms),
        loc,
        scale.where(~narrow, _SMOOTH / last),
    )
    if not bool(narrow.any()):
        return smooth
    few = _in_blocks(lambda m, s: _sum_near(m, s, near, last), loc[narrow], scale[narrow])
    return smooth.masked_scatter(narrow, few)


def _in_blocks(function: Callable[[Tensor, Tensor], Tensor], loc: Tensor, scale: Tensor) -> Tensor:
    """The function of each element, on a CPU a block after the other."""
    size = _BLOCK if loc.device.type == "cpu" else max(1, loc.numel())
    blocks = zip(loc.flatten().split(size), scale.flatten().split(size), strict=True)
    return torch.cat([function(*block) for block in blocks]).view(loc.shape)


def _sum_near(loc: Tensor, scale: Tensor, near: int, last: int) -> Tensor:
    """The sum over the levels within `near` of `loc`, those below counting 1."""
    below = (loc.detach() * last - near).floor().clamp(0, last)
    return _sum(loc, scale, below, 2 * near + 1, last)


def _sum(loc: Tensor, scale: Tensor, below: Tensor, number: int, last: int) -> Tensor:
    """The sum over `number` levels after the first `below`, which count 1 each; the others count 0."""
    total = below
    for step in range(1, number + 1):
        summand = torch.sigmoid((loc - (below + (step - 0.5)) / last) / scale)
        total = total + summand.where(below + step <= last, 0)
    return total / last


def _smooth(loc: Tensor, scale: Tensor, last: int, terms: int) -> Tensor:
    """The integral, and the corrections at its ends."""
    low, high = loc / scale, (loc - 1) / scale
    total = softplus(low) - softplus(high)
    wide = scale > _WIDE
    if bool(wide.any()):
        by_ratio = torch.log1p(torch.sigmoid(high) * torch.expm1(1 / scale.clamp(min=_WIDE)))
        total = torch.where(wide, by_ratio, total)
    total = scale * total
    at_low, at_high = ((2 * torch.sigmoid(end) - 1).square() for end in (low, high))  # tanh²
    bins = 1 / (scale * last)
    power = bins / last
    for coefficient, polynomial in zip(_COEFFICIENTS[:terms], _DERIVATIVES, strict=False):
        difference = _horner(polynomial, at_high) - _horner(polynomial, at_low)
        total = total + coefficient * power * difference
        power = power * bins.square()
    return total


def _horner(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
