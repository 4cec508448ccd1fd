"""Around any ELBO: the weight of its KL term, its value without weights, and where the KL is analytic."""

import math
import warnings
from typing import Any, Self

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError
from pyro_vae.programs import sites, unscaled


class KLWeight(Messenger):
    """Handler that multiplies the log densities of the latent sites by β, in model and guide alike.

    Under it `Trace_ELBO` and the other objectives maximise E_q[log p(x|z)] − β KL(q(z|x) ‖ p(z)): the
    β-VAE (Higgins et al. 2017), and KL warm-up (Bowman et al. 2016, Sønderby et al. 2016) where β rises.

    Args:
        weight: β, a tensor that is read at every run and may be changed in place.

    >>> from pyro.infer import Trace_ELBO
    >>> from pyro_vae import Digits, assemble
    >>> vae, x = assemble(Digits()), Digits().train.batch(slice(0, 100))
    >>> beta = KLWeight(torch.tensor(0.5))
    >>> loss = Trace_ELBO().loss(beta(vae.model), beta(vae.guide), x)
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if not message["is_observed"] and not site_is_subsample(message):
            message["scale"] = message["scale"] * self.weight


class ELBORecorder:
    """The unweighted ELBO of the draws on which an objective is computed, at no draw of its own.

    As a context, in which the objective's traces are listened to.

    Args:
        objective: Any of Pyro's or this package's.
    """

    def __init__(self, objective: ELBO) -> None:
        self.objective = objective
        self.elbos: list[Tensor] = []

    def __enter__(self) -> Self:
        self._get_trace = self.objective._get_trace
        self.objective._get_trace = self._listen
        return self

    def __exit__(self, *_: object) -> None:
        del self.objective._get_trace  # uncovers the method of the class

    def _listen(self, *args: Any) -> tuple[Trace, Trace]:
        traces = self._get_trace(*args)
        with torch.no_grad():
            log_joint, log_q = (_log_density(trace) for trace in traces)
        vectorized = self.objective.vectorize_particles
        self.elbos.append((log_joint - log_q) / (self.objective.num_particles if vectorized else 1))
        return traces

    def take(self) -> Tensor:
        """The ELBO since the last call, summed over the data; NaN where it cannot be told.

        That is where the objective makes no trace, or enumerates a site.
        """
        elbos = self.elbos.copy()
        self.elbos.clear()
        return torch.stack(elbos).mean() if elbos else torch.tensor(math.nan)


def _log_density(trace: Trace) -> Tensor:
    """Log density of all sites; NaN where one has an axis for all its values."""
    total = torch.zeros(())
    for name in sites(trace):
        site = trace.nodes[name]
        enumerated = site["infer"].get("_enumerate_dim") is not None
        total = total + (math.nan if enumerated else unscaled(site).sum())
    return total


def check_mean_field(model: Program, guide: Program, data: Tensor | Batch) -> None:
    """What a user of `TraceMeanField_ELBO` must know of these programs.

    Raises:
        InputError: where a latent site is drawn before another in one program and after it in the other,
            since KL terms site by site would then be wrong.

    Warns:
        UserWarning: where a site has no analytic KL, so that Pyro samples it.
    """
    batch = Batch.of(data, None)
    guide_trace = batch.call(poutine.trace(guide).get_trace)
    model_trace = batch.call(poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace)
    latent = sites(guide_trace, observed=False)
    if latent != sites(model_trace, observed=False):
        raise InputError(
            "TraceMeanField_ELBO expects model and guide to draw the same sites in the same order, got "
            f"{sites(model_trace, observed=False)} and {latent}: use Trace_ELBO"
        )
    for name in latent:
        q, p = guide_trace.nodes[name]["fn"], model_trace.nodes[name]["fn"]
        if not has_analytic_kl(q, p):
            warnings.warn(
                f"TraceMeanField_ELBO: no analytic KL from {_kind(q)} to {_kind(p)} is known at the "
                f"site {name!r}, so it is estimated by the draws, as in Trace_ELBO",
                stacklevel=2,
            )


def has_analytic_kl(q: Distribution, p: Distribution) -> bool:
    """Whether torch or Pyro has a closed form of KL(q ‖ p)."""
    try:
        kl_divergence(q, p)
    except NotImplementedError:
        return False
    return True


def _kind(distribution: Distribution) -> str:
    """Name of a distribution's class, that of the coordinates where they are independent."""
    if isinstance(distribution, Independent):
        return f"independent {type(distribution.base_dist).__name__}"
    return type(distribution).__name__
