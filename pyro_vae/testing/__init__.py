"""The laws of components, to run on a class of one's own: in a test, `check_prior(MyPrior(3))`.

Each check raises an `AssertionError` that says which law does not hold, what was expected and what was got.
They are the laws that this package holds its own components to.
"""

from pyro_vae.testing.checks import check_likelihood, check_posterior, check_prior
from pyro_vae.testing.laws import (
    draws_are_finite,
    gradients_reach_parameters,
    leading_axes_equal_a_loop,
    moves_to_float64,
    shapes_are_right,
    survives_a_copy,
)

__all__ = [
    "check_likelihood",
    "check_posterior",
    "check_prior",
    "draws_are_finite",
    "gradients_reach_parameters",
    "leading_axes_equal_a_loop",
    "moves_to_float64",
    "shapes_are_right",
    "survives_a_copy",
]
