"""The importance-weighted bound, with three estimators of its gradient."""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.distributions.util import is_identically_one, scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor

from pyro_vae.batch import Program
from pyro_vae.errors import InputError
from pyro_vae.objectives.bound import Bound, check_reparameterised
from pyro_vae.programs import Layout, plates, sites

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
            the other, sites lie outside the plate "data" or in a subsampled one, or observed ones are
            scaled; for `dreg`, where latent sites are masked or scaled differently; for `stl` and `dreg`,
            where a guide of several sites is not the same at the same draws (dropout).

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
        depth = int(self.max_plate_nesting) - 1
        layout = Layout(self.num_particles, _check_data_plate(model_trace), depth, repeated=False)
        total = _per_datum(model_trace, every, layout)
        return total - _per_datum(guide_trace, guided, layout) if guided else total

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        names = sites(guide_trace, observed=False)
        check_reparameterised(guide_trace, self)
        _check_data_plate(guide_trace)
        factors: list[Tensor] = []
        moved = _with_values(guide_trace, names, lambda name: self._doubly(guide_trace, name, factors))
        model_trace = poutine.trace(poutine.replay(model, trace=moved)).get_trace(*args, **kwargs)
        self._score(model_trace, guide_trace)
        if self.gradient != "plain" and names:
            self._leave_out_the_score(guide, guide_trace, moved, names, args, kwargs)
        if self.gradient == "dreg" and names:
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
        event = len(site["fn"].event_shape)
        shape = [1] * (int(self.max_plate_nesting) + event)
        shape[0] = self.num_particles
        shape[plates(guide_trace, name)["data"] - event] = -1

        def multiply(gradient: Tensor) -> Tensor:
            (factor,) = factors
            return gradient * factor.reshape(shape)

        copy = value.view_as(value)
        copy.register_hook(multiply)
        return copy

    def _factor(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """1 − β (1 − v), which turns v of the chain rule into v − β v (1 − v): (K, B)."""
        with torch.no_grad():
            v = self._log_weights(model_trace, guide_trace).softmax(0)
        latent = [guide_trace.nodes[name] for name in sites(guide_trace, observed=False)]
        scales = [site["scale"] for site in latent]
        if any(scale is not scales[0] and scale != scales[0] for scale in scales):
            raise InputError("the gradient dreg expects one KL weight for all sites: use gradient plain")
        if any(site["mask"] is not None for site in latent):
            raise InputError("the gradient dreg expects latent sites without a mask: use gradient plain")
        return 1 - scales[0] * (1 - v)

    def _leave_out_the_score(
        self,
        guide: Program,
        guide_trace: Trace,
        moved: Trace,
        names: list[str],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Let the gradient of log q at the sites run through the draws only.

        As log q(z; φ) − log q(sg z; φ) + sg log q(sg z; φ): the parts straight through φ cancel. Where a
        site depends on another's draw, that takes two more runs of the guide.
        """
        fixed = _with_values(guide_trace, names, lambda name: guide_trace.nodes[name]["value"].detach())
        if len(names) > 1:
            runs = [poutine.trace(poutine.replay(guide, trace=trace)) for trace in (moved, fixed)]
            moved, fixed = (run.get_trace(*args, **kwargs) for run in runs)
        for name in names:
            site = guide_trace.nodes[name]
            at_draw, score = (_log_prob(trace.nodes[name]) for trace in (moved, fixed))
            if is_validation_enabled() and not torch.allclose(at_draw, site["log_prob"], 1e-2, 1e-2):
                raise InputError(
                    f"the gradient {self.gradient} runs the guide again, and got another density at the same "
                    f"draws of {name!r}, as by dropout: use gradient plain"
                )
            site["log_prob"] = at_draw - score + score.detach()


def _with_values(trace: Trace, names: list[str], value: Callable[[str], Tensor]) -> Trace:
    """A copy of the trace with other values at the named sites, for replay."""
    other = trace.copy()
    for name in names:
        other.nodes[name] = {**trace.nodes[name], "value": value(name)}
    return other


def _log_prob(site: Mapping[str, Any]) -> Tensor:
    """Log density at a site, scaled and masked."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])


def _per_datum(trace: Trace, names: list[str], layout: Layout) -> Tensor:
    """Log densities of sites, scaled and masked, summed: (K, B)."""
    parts = [layout.per_datum(trace.nodes[name]["log_prob"], plates(trace, name)["data"]) for name in names]
    return reduce(torch.add, parts)


def _check_data_plate(trace: Trace) -> int:
    """Size of the plate "data"; refused where a site is outside, or the bound would not be one per datum."""
    size = 0
    for name in sites(trace):
        site = trace.nodes[name]
        data = next((frame for frame in site["cond_indep_stack"] if frame.name == "data"), None)
        if data is None or data.full_size != data.size:
            raise InputError(
                'expected every site inside a pyro.plate named "data" that is not subsampled, got the site '
                f"{name!r}: the weights of an importance-weighted bound are those of each datum"
            )
        if site["is_observed"] and not is_identically_one(site["scale"]):
            raise InputError(
                f"an importance-weighted bound expects observed sites without a scale, got {name!r} with "
                f"{site['scale']}: log Σ w^s is another bound; scale the learning rate instead"
            )
        size = data.size
    return size
