"""The sample sites of a trace, their plates, and their log densities per datum."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, Transform, biject_to
from torch.distributions.constraints import MixtureSameFamilyConstraint

from pyro_vae.errors import InputError


@biject_to.register(MixtureSameFamilyConstraint)
def _of_mixture(constraint: Any) -> Transform:
    """That of the components, which torch does not know, where their support is one and the same."""
    base = constraint.base_constraint
    inner = base
    while hasattr(inner, "base_constraint"):
        inner = inner.base_constraint
    if any(isinstance(bound, Tensor) and bound.ndim for bound in vars(inner).values()):
        raise NotImplementedError("components of a mixture with supports of their own")
    return biject_to(base)


def sites(trace: Trace, *, observed: bool | None = None) -> list[str]:
    """Names of the sample sites that have a density: all, the observed, or the latent ones."""
    return [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
        and observed in (None, site["is_observed"])
    ]


def plates(trace: Trace, name: str) -> dict[str, int]:
    """Axes of the plates around a site."""
    return {frame.name: frame.dim for frame in trace.nodes[name]["cond_indep_stack"] if frame.vectorized}


def unscaled(site: Mapping[str, Any]) -> Tensor:
    """The log density at a site, masked, without the scales that handlers have set."""
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])


def is_masked(site: Mapping[str, Any]) -> bool:
    """Whether a site is under a mask, set by a handler or in its distribution."""
    inner = isinstance(plain(site["fn"]), MaskedDistribution)
    return inner or (site["mask"] is not None and site["mask"] is not True)


def unmasked(site: Mapping[str, Any]) -> Tensor:
    """The log density at a site as if nothing were masked."""
    fn, event_dims = site["fn"], 0
    while isinstance(fn, Independent | MaskedDistribution):
        event_dims += fn.reinterpreted_batch_ndims if isinstance(fn, Independent) else 0
        fn = fn.base_dist
    return sum_rightmost(fn.log_prob(site["value"]), event_dims)


def check_density(model_trace: Trace) -> None:
    """Refuse a model that says of a site that it is no density, with the reason."""
    for name in sites(model_trace, observed=True):
        reason = model_trace.nodes[name]["infer"].get("no_density")
        if reason:
            raise InputError(reason)


def check_density_axes(trace: Trace, name: str, axes_of_plates: int | None = None) -> None:
    """Refuse a log density with an axis of no plate, over which the sum would run silently.

    With `axes_of_plates` only among so many axes from the right; enumerated ones lie left of them.
    """
    shape, axes = trace.nodes[name]["log_prob"].shape, plates(trace, name).values()
    first = 0 if axes_of_plates is None else max(len(shape) - axes_of_plates, 0)
    if any(shape[axis] > 1 and axis - len(shape) not in axes for axis in range(first, len(shape))):
        raise InputError(
            f"expected the log density of the site {name!r} to have an axis for each plate and no other, "
            f"got shape {tuple(shape)} and plates at {sorted(axes)}: use to_event, or set the plates' dim"
        )


def plain(distribution: Any) -> Any:
    """What is inside `Independent`."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def core(distribution: Any) -> Any:
    """What is inside `Independent` and masks."""
    while isinstance(distribution, Independent | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution


def check_subsampling(trace: Trace) -> None:
    """Refuse a plate that draws some of its members, and with them another density at each run."""
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or not site_is_subsample(site):
            continue
        size, drawn = site["fn"].size, site["fn"].subsample_size
        if drawn is not None and drawn < size:
            raise InputError(
                f"expected plates without subsampling, got {drawn} of {size} in the plate {name!r}: the "
                "density would be another one at each draw"
            )


def check_latents(model_trace: Trace, guide_trace: Trace, summed: Collection[str]) -> None:
    """Refuse a guide that does not sample the model's latent sites, or samples others.

    Of the model's those do not count that are summed out, and the entries that `obs_mask` leaves open; of
    the guide's, auxiliary ones of which the others are a function.
    """
    latent = set(sites(model_trace, observed=False)) - (imputed(model_trace) | set(summed))
    guided = set(sites(guide_trace, observed=False)) - (set(summed) | imputed(model_trace))
    guided -= _changed_variables(model_trace, guide_trace)
    if latent != guided:
        raise InputError(
            f"expected the guide to sample the model's latent sites {sorted(latent)} and no others, "
            f"got {sorted(guided)}"
        )


def check_observed(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a guide that observes what the model does, whose density would count twice."""
    both = set(sites(model_trace, observed=True)) & set(sites(guide_trace, observed=True))
    if both:
        raise InputError(
            f"expected a guide that draws the latent sites only, got one that observes {sorted(both)} as the "
            "model does: leave these out of it"
        )


def imputed(model_trace: Trace) -> set[str]:
    """The sites at which `pyro.sample(..., obs_mask=)` draws what is not observed."""
    nodes = model_trace.nodes
    found = set()
    for name, site in nodes.items():
        if site["type"] == "sample" and site["infer"].get("_deterministic"):
            parts = [f"{name}_observed", f"{name}_unobserved"]
            if all(part in nodes for part in parts):
                found.add(parts[1])
    return found


def _changed_variables(model_trace: Trace, guide_trace: Trace) -> set[str]:
    """Auxiliary sites of a guide of which the model's latent sites are a function, as in Pyro's autoguides.

    That is a change of variables where both have as many free numbers. With more of them the weights of
    p(x, z) against the density of all draws would have no mean.
    """
    nodes = guide_trace.nodes
    auxiliary = {
        name
        for name in sites(guide_trace, observed=False)
        if nodes[name]["infer"].get("is_auxiliary") and name not in model_trace.nodes
    }
    points = _points(model_trace, guide_trace)
    try:
        drawn = sum(_free_numbers(nodes[name]) for name in auxiliary)
        needed = sum(
            _free_numbers({**model_trace.nodes[name], "value": nodes[name]["value"]}) for name in points
        )
    except NotImplementedError:  # of a support that has no bijection
        return set()
    return auxiliary if drawn == needed else set()


def _points(model_trace: Trace, guide_trace: Trace) -> list[str]:
    """Latent sites at which the guide has a `Delta` and the model a density."""
    return [
        name
        for name in sites(guide_trace, observed=False)
        if name in model_trace.nodes
        and isinstance(plain(guide_trace.nodes[name]["fn"]), Delta)
        and not isinstance(plain(model_trace.nodes[name]["fn"]), Delta)
    ]


def _free_numbers(site: Mapping[str, Any]) -> int:
    return int(biject_to(site["fn"].support).inv(site["value"]).numel())


def check_delta(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a guide that has one point where the model has a density."""
    points = _points(model_trace, guide_trace)
    if points and not _changed_variables(model_trace, guide_trace):
        raise InputError(
            f"expected a guide with a density at the site {points[0]!r}, got a Delta: its one point has no "
            "weight; use a guide that draws"
        )


def check_support(trace: Trace) -> None:
    """Refuse an observed value outside the support of its distribution, where it is not masked."""
    for name in sites(trace, observed=True):
        site = trace.nodes[name]
        if site["fn"].support is None:
            continue
        inside = site["fn"].support.check(site["value"])
        masks = [site["mask"], getattr(plain(site["fn"]), "_mask", None)]
        for mask in masks:
            if isinstance(mask, Tensor):
                inside = inside | ~mask
        if not inside.all():
            raise InputError(
                f"expected data within the support of the site {name!r} wherever it is not masked, got some "
                "outside: mask missing entries, as by poutine.mask(mask=~x.isnan())"
            )


def elements(site: Mapping[str, Any]) -> Tensor | None:
    """The sum of the sizes of a log density's elements, over one event; None where it has no elements."""
    fn, event_dims = site["fn"], 0
    while isinstance(fn, Independent):
        event_dims += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    if not event_dims or isinstance(fn, MaskedDistribution):
        return None
    sizes: Tensor = fn.log_prob(site["value"]).abs().flatten(-event_dims).sum(-1)
    return scale_and_mask(sizes, mask=site["mask"])


def check_precision(trace: Trace, name: str) -> None:
    """Refuse a log density of 16 bits: at −100 it is known to half a nat at the best."""
    dtype = trace.nodes[name]["log_prob"].dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            f"expected a log density in float32 or float64, got {dtype} at the site {name!r}: use .float() "
            "on the parameters of its distribution"
        )
