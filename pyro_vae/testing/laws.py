"""One law each, of any module whose call returns a distribution."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def shapes_are_right(
    module: nn.Module, inputs: Sequence[Tensor], batch: Sequence[int], event: Sequence[int]
) -> None:
    """Batch shape and event shape are these, and draws and log densities have them.

    Args:
        module: A component, called as `module(*inputs)`.
        inputs: What it is called with.
        batch: Batch shape that its distribution must have.
        event: Event shape.

    Raises:
        AssertionError: with the shape that differs.

    >>> from pyro_vae import StandardNormalPrior
    >>> shapes_are_right(StandardNormalPrior(3), (), (), (3,))
    """
    batch, event = tuple(batch), tuple(event)
    distribution = module(*inputs)
    name = type(module).__name__
    _same(f"batch shape of {name}", tuple(distribution.batch_shape), batch)
    _same(
        f"event shape of {name} (is the event axis declared, by to_event?)",
        tuple(distribution.event_shape),
        event,
    )
    draws = distribution.sample((4,))
    _same(f"shape of four draws from {name}", tuple(draws.shape), (4, *batch, *event))
    _same(
        f"shape of their log densities under {name}", tuple(distribution.log_prob(draws).shape), (4, *batch)
    )


def draws_are_finite(module: nn.Module, inputs: Sequence[Tensor], num: int = 100) -> None:
    """Draws, and their log densities, are finite numbers in the support.

    Args:
        module: A component, called as `module(*inputs)`.
        inputs: What it is called with.
        num: Draws.

    Raises:
        AssertionError: with how many are not.

    >>> from pyro_vae import StudentTPrior
    >>> draws_are_finite(StudentTPrior(3), ())
    """
    distribution, name = module(*inputs), type(module).__name__
    draws = distribution.sample((num,))
    _finite(f"draws from {name}", draws)
    outside = int((~distribution.support.check(draws)).sum())
    assert not outside, f"expected draws from {name} within its own support, got {outside} outside"
    _finite(f"log densities under {name} at its own draws", distribution.log_prob(draws))


def gradients_reach_parameters(module: nn.Module, inputs: Sequence[Tensor], value: Tensor) -> None:
    """The gradient of log p(value) reaches every parameter that requires one.

    Args:
        module: A component, called as `module(*inputs)`; its gradients are left as they were.
        inputs: What it is called with.
        value: What its distribution is over: (B, *event).

    Raises:
        AssertionError: with the names of parameters without a gradient.

    >>> from pyro_vae import MixturePrior
    >>> gradients_reach_parameters(MixturePrior(3), (), torch.randn(6, 3))
    """
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not named:
        return
    total = module(*inputs).log_prob(value).sum()
    wanted = list(named.values())
    found = (
        torch.autograd.grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
    )
    pairs = zip(named, found, strict=True)
    without = [name for name, gradient in pairs if gradient is None or not gradient.abs().sum() > 0]
    assert not without, (
        f"expected a gradient of log p for every parameter of {type(module).__name__}, got none for "
        f"{', '.join(without)}: is a tensor detached, or a parameter not used?"
    )


def leading_axes_equal_a_loop(module: nn.Module, given: Tensor, value: Tensor) -> None:
    """Many at once are what each is alone: log p(value_b | given_kb) by one call and by a loop over k and b.

    Args:
        module: A likelihood or a posterior, called as `module(given)`.
        given: z or x, (K, B, *shape).
        value: x or z, (B, *event).

    Raises:
        AssertionError: with the largest difference.

    >>> from pyro_vae import MLP, DiagonalNormalPosterior
    >>> posterior = DiagonalNormalPosterior(MLP((8,)).encoder((4,)), 2)
    >>> leading_axes_equal_a_loop(posterior, torch.rand(2, 3, 4), torch.randn(3, 2))
    """
    together = module(given).log_prob(value).detach()
    rows = [[module(each).log_prob(x) for each, x in zip(row, value, strict=True)] for row in given]
    loop = torch.stack([torch.stack(row) for row in rows]).detach()
    tolerance = 4096 * torch.finfo(together.dtype).eps  # of sums in another order
    if not torch.allclose(together, loop, rtol=tolerance, atol=tolerance):
        raise AssertionError(
            f"expected log p under {type(module).__name__} of many at once to be that of each alone, got "
            f"differences up to {float((together - loop).abs().max()):.3g}: do axes at the left mix?"
        )


def survives_a_copy(module: nn.Module, inputs: Sequence[Tensor], value: Tensor) -> None:
    """A deep copy has the same density, and parameters of its own.

    Args:
        module: A component, called as `module(*inputs)`.
        inputs: What it is called with.
        value: What its distribution is over.

    Raises:
        AssertionError: where it has not.

    >>> from pyro_vae import MixturePrior
    >>> survives_a_copy(MixturePrior(3), (), torch.randn(6, 3))
    """
    name, twin = type(module).__name__, copy.deepcopy(module)
    expected = module(*inputs).log_prob(value)
    assert torch.equal(twin(*inputs).log_prob(value), expected), (
        f"expected the density of a copy of {name} to be its own"
    )
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(module(*inputs).log_prob(value), expected), (
        f"expected a copy of {name} to have parameters of its own, got some that are shared"
    )


def moves_to_float64(module: nn.Module, inputs: Sequence[Tensor], value: Tensor) -> None:
    """In float64, draws and log densities are float64: constants are buffers. A copy is moved.

    Args:
        module: A component, called as `module(*inputs)`.
        inputs: What it is called with.
        value: What its distribution is over.

    Raises:
        AssertionError: with the type that they have.

    >>> from pyro_vae import LaplacePrior
    >>> moves_to_float64(LaplacePrior(3), (), torch.randn(6, 3))
    """
    distribution = copy.deepcopy(module).double()(*(each.double() for each in inputs))
    name = type(module).__name__
    _same(f"type of draws from {name} in float64", distribution.sample().dtype, torch.float64)
    _same(
        f"type of log densities of {name} in float64",
        distribution.log_prob(value.double()).dtype,
        torch.float64,
    )


def _finite(what: str, values: Tensor) -> None:
    number = int((~values.isfinite()).sum())
    assert not number, f"expected finite {what}, got {number} of {values.numel()} NaN or infinite"


def _same(what: str, got: object, expected: object) -> None:
    assert got == expected, f"expected {expected} as the {what}, got {got}"
