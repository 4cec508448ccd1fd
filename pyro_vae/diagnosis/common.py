"""What calibration and the comparison with exact draws share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program

#: The test quantity that depends on the data.
JOINT = "log p(x, z)"


def log_joint(latents: Latents, batch: Batch, u: Tensor) -> Tensor:
    """Log p(x, u) of unconstrained latents u (K, B, n), in float64: (K, B)."""
    parts = latents.log_probs(batch, u, guide=False)
    return wide(parts.log_px) + wide(parts.log_pz) + wide(parts.log_det)


def quantities(latents: Latents, batch: Batch, u: Tensor) -> Tensor:
    """The coordinates of u (K, B, n) and log p(x, u), in float64: (K, B, n + 1)."""
    return torch.cat([wide(u), log_joint(latents, batch, u)[..., None]], dim=-1)


def holm(p_value: Tensor, level: float = 0.05) -> tuple[bool, ...]:
    """Which of several hypotheses are rejected, at `level` over all of them together (Holm 1979).

    >>> holm(torch.tensor([0.03, 0.001, 0.02, 0.9]))
    (False, True, False, False)
    >>> holm(torch.tensor([0.02, 0.001, 0.016, 0.9]))
    (True, True, True, False)
    """
    ordered, order = p_value.flatten().sort()
    bounds = level / torch.arange(len(ordered), 0, -1)
    passed = (ordered <= bounds).long().cumprod(0).bool()
    rejected = torch.zeros_like(passed)
    rejected[order] = passed
    return tuple(rejected.tolist())


@contextmanager
def store_as_found() -> Iterator[None]:
    """Programs with the parameters of Pyro's store, which is given back as it was found."""
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        yield


def prior_of(model: Program) -> Callable[..., Any]:
    """A guide that draws from the model's p(z)."""
    return poutine.block(model, hide_fn=lambda site: site["type"] == "sample" and site["is_observed"])


def unusable(wrong: Tensor, names: tuple[str, ...]) -> InputError:
    """What is NaN, from which (B, Q) are."""
    where = int(wrong.any(0).long().argmax())
    return InputError(
        f"expected numbers for {names[where]}, got NaN on {int(wrong.any(1).sum())} of {len(wrong)} data "
        f"(the first is {int(wrong.any(1).long().argmax())}): bound the scales of the networks"
    )
