"""The loop of `pyro_vae.fit` as a function that takes so many steps."""

from collections.abc import Callable

import pyro_vae as pv


def fit_steps(vae: pv.JointProgram, data: pv.Dataset, batch_size: int, compile: str) -> Callable[[int], None]:
    """A function that trains `vae` on for so many steps as `fit` does, and returns when they are done.

    Args:
        vae: Already on its device.
        data: 0/1, binarised before.
        batch_size: Data per step.
        compile: As `fit` takes it: "auto" or "inductor".
    """
    raise NotImplementedError("fit has no compiled loop yet")
