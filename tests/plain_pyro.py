"""A training by flat graphs held against the same training by plain Pyro, to the last bit."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from torch import Tensor

import pyro_vae as pv

X = torch.linspace(-1, 1, 6)
#: Makes model, guide and what happens before each step, afresh.
Make = Callable[[], tuple[Callable[..., Any], Callable[..., Any], Callable[[int], Any]]]


def model(x: Tensor) -> None:
    """x ~ N(z, 1/4), z ~ N(0, 1)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def guide_of(shift: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    """A guide that is shifted by what a function makes of x."""

    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.3))
        b = pyro.param("b", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a * x + b * shift(x), 1.0))

    return guide


def trained(make: Make, elbo: Any, steps: int) -> tuple[list[Any], dict[str, Tensor]]:
    """The losses of some steps, and the parameters after them."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    model, guide, before = make()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = []
    for step in range(steps):
        before(step)
        losses.append(svi.step(X + 0.01 * step))
    return losses, {name: p.detach().clone() for name, p in pyro.get_param_store().items()}


def trains_as_plain_pyro(make: Make, elbo: Callable[[], Any], steps: int = 12) -> tuple[str, list[str]]:
    """Hold the trainings against each other; gives why the last steps are no graph's, and all warnings."""
    compiled = pv.CompiledELBO(elbo())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses, parameters = trained(make, elbo(), steps)
        flat_losses, flat_parameters = trained(make, compiled, steps)
    said = [str(warning.message) for warning in caught]
    assert flat_losses == losses, said
    assert flat_parameters.keys() == parameters.keys()
    assert all(torch.equal(flat_parameters[name], value) for name, value in parameters.items())
    (kept,) = compiled._steps.values()
    return kept.eager_because, said
