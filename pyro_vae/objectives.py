"""What is maximised: bounds on log p(x) as Pyro ELBOs, and the weight of their KL term.

Pyro's own `Trace_ELBO` and `TraceMeanField_ELBO` serve as they are; the bounds here are ELBOs of the same
kind, for `pyro.infer.SVI` with any model and guide that have a plate "data".
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_vae.errors import InputError, count, make
from pyro_vae.importance import per_datum, plates, sites, unscaled

Program = Callable[..., Any]
Gradient = Literal["dreg", "stl", "plain"]

#: Arguments of Pyro's ELBOs that `fit` gives, or that are no choice of a user.
PLUMBING = frozenset(
    {
        "num_particles",
        "max_plate_nesting",
        "max_iarange_nesting",
        "vectorize_particles",
        "strict_enumeration_warning",
        "ignore_jit_warnings",
        "jit_options",
        "retain_graph",
        "tail_adaptive_beta",
    }
)


def make_objective(objective: Callable[..., ELBO], num_particles: int) -> ELBO:
    """The ELBO that `objective` makes for programs whose one plate is "data"."""
    several = count("num_particles", num_particles) > 1

    def with_particles(number: int) -> object:
        return objective(number, max_plate_nesting=1, vectorize_particles=several)

    made = make("objective", with_particles, num_particles)
    if not isinstance(made, ELBO):
        raise InputError(
            f"objective expects a class of ELBO as Trace_ELBO, or a partial of one, got one that makes "
            f"{type(made).__name__}"
        )
    return made


def in_words(objective: ELBO) -> str:
    """Class and choices of an objective."""
    choices = {name: value for name, value in vars(objective).items() if isinstance(value, int | float | str)}
    return f"{type(objective).__name__} {choices}"


class Bound(Trace_ELBO):
    """An objective that is one differentiable tensor.

    Contract for the author of the next one: `negative_bound` gives minus the bound, summed over the data,
    from a trace of the model and one of the guide. Each site has its `log_prob`, scaled and masked, with
    the particles at axis −`max_plate_nesting`.

    Args:
        num_particles: K, draws of z per datum, always made at once.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: As in Pyro's ELBOs, and without effect.
    """

    def __init__(
        self, num_particles: int = 1, max_plate_nesting: float = math.inf, vectorize_particles: bool = True
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=True)
        self.max_plate_nesting += num_particles == 1  # Pyro counts the axis of several particles only

    @abstractmethod
    def negative_bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """Minus the bound, summed over the data, in nats."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        (traces,) = self._get_traces(model, guide, args, kwargs)
        return self.negative_bound(*traces)

    @torch.no_grad()
    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `differentiable_loss`, without a gradient."""
        return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """As `loss`, with the gradient left in the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _guess_max_plate_nesting(self, *args: Any) -> None:
        super()._guess_max_plate_nesting(*args)
        self.max_plate_nesting += self.num_particles == 1

    def _vectorized_num_particles(self, fn: Program) -> Program:
        return pyro.plate("particles", self.num_particles, dim=-self.max_plate_nesting)(fn)


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


class FreeBitsELBO(Bound):
    """E_q[log p(x|z)] − Σ_j max(λ, KL_j): the ELBO with λ nats of KL for free in each group j.

    KL_j is the mean over the batch of log q(z_j|x) − log p(z_j) by the draws. Below λ it has no gradient,
    so the prior does not switch a latent dimension off while the decoder has not learned to use it. Kingma
    et al., "Improving Variational Inference with Inverse Autoregressive Flow" (2016), eq. 15. A group is
    a latent dimension where prior and posterior are both independent over them, else the whole site.

    Args:
        num_particles: K, draws of z per datum, averaged.
        max_plate_nesting: Number of plate axes in model and guide; found out where it is infinite.
        vectorize_particles: As in Pyro's ELBOs, and without effect: the draws are always made at once.
        free_bits: λ, in nats per group and datum.

    Raises:
        InputError: where `free_bits` is negative.

    >>> import pyro
    >>> from pyro_vae import Digits, assemble
    >>> vae, x = assemble(Digits()), Digits().train.batch(slice(0, 100))
    >>> optimiser = pyro.optim.Adam({"lr": 1e-3})
    >>> loss = pyro.infer.SVI(vae.model, vae.guide, optimiser, FreeBitsELBO(free_bits=0.1)).step(x)
    """

    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
        *,
        free_bits: float = 0.25,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, vectorize_particles)
        if not 0 <= free_bits < math.inf:
            raise InputError(f"free_bits expects a number of nats that is not negative, got {free_bits}")
        self.free_bits = free_bits

    def negative_bound(self, model_trace: Trace, guide_trace: Trace) -> Tensor:
        """− Σ_b log p(x_b|z_b) + B Σ_j max(λ, KL_j), averaged over the draws."""
        observed = [model_trace.nodes[name]["log_prob_sum"] for name in sites(model_trace, observed=True)]
        loss = -torch.stack(observed).sum() / self.num_particles
        for name in sites(guide_trace, observed=False):
            site = guide_trace.nodes[name]
            kl = log_ratio(site, model_trace.nodes[name])
            draws = site["fn"].batch_shape.numel()
            mean = kl.reshape(draws, -1).mean(0)
            loss = loss + site["scale"] * draws / self.num_particles * mean.clamp(min=self.free_bits).sum()
        return loss

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        model_trace, guide_trace = super()._get_trace(model, guide, args, kwargs)
        check_reparameterised(guide_trace, self)
        return model_trace, guide_trace


def log_ratio(guide_site: Mapping[str, Any], model_site: Mapping[str, Any]) -> Tensor:
    """Log q(z_j|x) − log p(z_j) at the draw: (*batch_shape, groups), unscaled."""
    q, p, z = guide_site["fn"], model_site["fn"], guide_site["value"]
    if guide_site["mask"] is not None or model_site["mask"] is not None:
        raise InputError(f"FreeBitsELBO expects sites without a mask, got {guide_site['name']!r}")
    if isinstance(q, Independent) and isinstance(p, Independent):
        return q.base_dist.log_prob(z) - p.base_dist.log_prob(z)
    return (guide_site["unscaled_log_prob"] - model_site["unscaled_log_prob"])[..., None]


def check_reparameterised(guide_trace: Trace, objective: ELBO) -> None:
    """Refuse a guide whose draws carry no gradient."""
    for name in sites(guide_trace, observed=False):
        fn = guide_trace.nodes[name]["fn"]
        if not fn.has_rsample:
            raise InputError(
                f"{type(objective).__name__} expects reparameterised sites in the guide, got {name!r} with "
                f"{type(fn).__name__}: use Trace_ELBO"
            )


class KLWeight(Messenger):
    """Handler that multiplies the log densities of the latent sites by β, in model and guide alike.

    Under it `Trace_ELBO` and the other objectives maximise E_q[log p(x|z)] − β KL(q(z|x) ‖ p(z)): the
    β-VAE (Higgins et al. 2017), and KL warm-up (Bowman et al. 2016, Sønderby et al. 2016) where β rises.

    Args:
        weight: β, a tensor that is read at every run and may be changed in place.

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

    Args:
        objective: Any of Pyro's or this package's; its traces are listened to.
    """

    def __init__(self, objective: ELBO) -> None:
        self.num_particles = objective.num_particles
        self.vectorized = objective.vectorize_particles
        self.elbos: list[Tensor] = []
        self._get_trace = objective._get_trace
        objective._get_trace = self._listen

    def _listen(self, *args: Any) -> tuple[Trace, Trace]:
        traces = self._get_trace(*args)
        with torch.no_grad():
            log_joint, log_q = (
                torch.stack([unscaled(trace.nodes[name]).sum() for name in sites(trace)]).sum()
                for trace in traces
            )
        self.elbos.append((log_joint - log_q) / (self.num_particles if self.vectorized else 1))
        return traces

    def take(self) -> float:
        """The ELBO since the last call, summed over the data; NaN where the objective made no trace."""
        elbos, self.elbos = self.elbos, []
        return float(torch.stack(elbos).mean()) if elbos else math.nan


def check_mean_field(model: Program, guide: Program, x: Tensor) -> None:
    """What a user of `TraceMeanField_ELBO` must know of these programs.

    Raises:
        InputError: where a latent site is drawn before another in one program and after it in the other,
            since KL terms site by site would then be wrong.

    Warns:
        UserWarning: where a site has no analytic KL, so that Pyro samples it.
    """
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
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
