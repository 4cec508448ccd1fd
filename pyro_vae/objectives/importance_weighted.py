"""The importance-weighted bound, with three estimators of its gradient."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.importance import per_datum, plates, sites
from pyro_vae.objectives.bound import Bound, Program, check_reparameterised

Gradient = Literal["dreg", "stl", "plain"]


class ImportanceWeightedELBO(Bound):
    """log 1/K Σ_k w_k, w_k = p(x, z_k) / q(z_k|x): between the ELBO (K = 1) and log p(x).

    Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders" (2016). Three estimators of its
    gradient in the parameters φ of q, with v_k = w_k / Σ_j w_j; that of the model is the same in all:

    * `plain`: Σ_k v_k d log w_k / dφ (Burda et al. 2016); more particles drown it in noise
      (Rainforth et al. 2018).
    * `stl`: Σ_k v_k (∂ log w_k / ∂z_k) (dz_k / dφ), sticking the landing (Roeder et al. 2017): the score
      of q is left out, so that noise vanishes where q is exact. Unbiased for K = 1, biased for K > 1.
    * `dreg`: Σ_k v_k² (∂ log w_k / ∂z_k) (dz_k / dφ), doubly reparameterised (Tucker et al. 2019): unbiased,
      and better the more particles. With a KL weight β, v² becomes v − β v (1 − v).

    Args:
        num_particles: K, draws of z per datum.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: As in Pyro's ELBOs, and without effect: the draws are always made at once.
        gradient: Estimator of the gradient in the parameters of q.

    Raises:
        InputError: where a site of the guide is not reparameterised, a latent site of one program is not in
            the other, or sites lie outside the plate "data" or in a subsampled one.

    >>> import pyro
    >>> from pyro_vae import Digits, assemble
    >>> vae, x = assemble(Digits()), Digits().train.batch(slice(0, 100))
    >>> optimiser = pyro.optim.Adam({"lr": 1e-3})
    >>> loss = pyro.infer.SVI(vae.model, vae.guide, optimiser, ImportanceWeightedELBO(50)).step(x)
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
        *,
        gradient: Gradient = "dreg",
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        if gradient not in ("dreg", "stl", "plain"):
            raise InputError(f"gradient expects 'dreg', 'stl' or 'plain', got {gradient!r}")
        self.gradient = gradient

    def negative_bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """− Σ_b log 1/K Σ_k w_kb."""
        log_weights = self._log_weights(model_trace, guide_trace)
        return math.log(self.num_particles) * log_weights.shape[1] - log_weights.logsumexp(0).sum()

    def _log_weights(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """Log w, with the KL weight: (K, B)."""
        latent, guided = sites(model_trace, observed=False), sites(guide_trace, observed=False)
        if set(latent) != set(guided):
            raise InputError(
                f"expected the guide to sample the model's latent sites {sorted(latent)}, got "
                f"{sorted(guided)}"
            )
        every = sites(model_trace)
        sizes = {frame.name: frame for frame in model_trace.nodes[every[0]]["cond_indep_stack"]}
        data = sizes.get("data")
        if data is None or data.full_size != data.size:
            raise InputError(
                'expected every site inside a pyro.plate named "data" that is not subsampled: the weights of '
                "an importance-weighted bound are those of each datum"
            )
        zero = model_trace.nodes[every[0]]["log_prob"].new_zeros(self.num_particles, data.size)
        log_joint = per_datum(model_trace, every, zero, scaled=True)
        return log_joint - per_datum(guide_trace, guided, zero, scaled=True)

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        names = sites(guide_trace, observed=False)
        check_reparameterised(guide_trace, self)
        factors: list[Tensor] = []
        moved = _with_values(guide_trace, names, lambda name: self._doubly(guide_trace, name, factors))
        model_trace = poutine.trace(poutine.replay(model, trace=moved)).get_trace(*args, **kwargs)
        self._score(model_trace, guide_trace)
        if self.gradient != "plain":
            _leave_out_the_score(guide, guide_trace, moved, names, args, kwargs)
        if self.gradient == "dreg":
            factors.append(self._factor(model_trace, guide_trace))
        return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)

    def _score(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Log densities at all sites, with Pyro's checks where validation is on."""
        if is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, self.max_plate_nesting)
        for trace in (model_trace, guide_trace):
            trace.compute_log_prob()
            if is_validation_enabled():
                for name in sites(trace):
                    check_site_shape(trace.nodes[name], self.max_plate_nesting)

    def _doubly(self, guide_trace: Trace, name: str, factors: list[Tensor]) -> Tensor:
        """The draw at a site, whose gradient from outside the guide will be multiplied by the factor."""
        site = guide_trace.nodes[name]
        value: Tensor = site["value"]
        if self.gradient != "dreg" or not value.requires_grad:
            return value
        axis = plates(guide_trace, name)["data"]
        shape = [1] * int(self.max_plate_nesting) + [1] * len(site["fn"].event_shape)
        event = len(site["fn"].event_shape)

        def multiply(gradient: Tensor) -> Tensor:
            (factor,) = factors
            shape[0], shape[axis - event] = factor.shape
            return gradient * factor.reshape(shape)

        copy = value.view_as(value)
        copy.register_hook(multiply)
        return copy

    def _factor(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """1 − β (1 − v), which turns v of the chain rule into v − β v (1 − v): (K, B)."""
        with torch.no_grad():
            v = self._log_weights(model_trace, guide_trace).softmax(0)
        scales = [guide_trace.nodes[name]["scale"] for name in sites(guide_trace, observed=False)]
        if any(scale is not scales[0] and scale != scales[0] for scale in scales):
            raise InputError("the gradient dreg expects one KL weight for all sites: use gradient plain")
        return 1 - scales[0] * (1 - v)


def _with_values(trace: Trace, names: list[str], value: Callable[[str], Tensor]) -> Trace:
    """A copy of the trace with other values at the named sites, for replay."""
    other = trace.copy()
    for name in names:
        other.nodes[name] = {**trace.nodes[name], "value": value(name)}
    return other


def _leave_out_the_score(
    guide: Program,
    guide_trace: Trace,
    moved: Trace,
    names: list[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Let the gradient of log q at the sites run through the draws only.

    As log q(z; φ) − log q(sg z; φ) + sg log q(z; φ): the parts straight through φ cancel, for any guide.
    """
    fixed = _with_values(guide_trace, names, lambda name: guide_trace.nodes[name]["value"].detach())
    at_draws, at_constants = (
        poutine.trace(poutine.replay(guide, trace=trace)).get_trace(*args, **kwargs)
        for trace in (moved, fixed)
    )
    for trace in (at_draws, at_constants):
        trace.compute_log_prob()
    for name in names:
        score = at_constants.nodes[name]["log_prob"]
        guide_trace.nodes[name]["log_prob"] = at_draws.nodes[name]["log_prob"] - score + score.detach()
