"""The sample sites of a trace, their plates, and their log densities per datum."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.errors import InputError


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


def per_datum(trace: Trace, names: Iterable[str], total: Tensor, *, scaled: bool = False) -> Tensor:
    """`total` (K, B) plus the log densities of the named sites, summed over all other plates.

    With `scaled`, times the scales that handlers have set.
    """
    for name in names:
        site, axes = trace.nodes[name], plates(trace, name)
        sizes = {frame.name: frame.size for frame in site["cond_indep_stack"] if frame.vectorized}
        if sizes.get("data") != total.shape[1]:
            raise InputError(
                f'expected every site inside a pyro.plate named "data" of size {total.shape[1]}, that of x, '
                f"got the site {name!r} inside {_in_words(sizes)}: log p(x) per datum needs it there"
            )
        log_prob = site["log_prob"] if scaled else unscaled(site)
        kept = {log_prob.ndim + axes["particles"], log_prob.ndim + axes["data"]}
        others = [axis for axis in range(log_prob.ndim) if axis not in kept]
        total = total + (log_prob.sum(others) if others else log_prob)
    return total


def unscaled(site: Mapping[str, Any]) -> Tensor:
    """The log density at a site, masked, without the scales that handlers have set."""
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])


def _in_words(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in sizes.items() if name != "particles") or "none"


def check_density(model_trace: Trace) -> None:
    """Refuse a model that says of a site that it is no density, with the reason."""
    for name in sites(model_trace, observed=True):
        reason = model_trace.nodes[name]["infer"].get("no_density")
        if reason:
            raise InputError(reason)


def check_axes(trace: Trace, name: str) -> None:
    """Refuse a log density with an axis of no plate, over which the sum would run silently."""
    shape, axes = trace.nodes[name]["log_prob"].shape, plates(trace, name).values()
    if any(size > 1 and axis - len(shape) not in axes for axis, size in enumerate(shape)):
        raise InputError(
            f"expected the log density of the site {name!r} to have an axis for each plate and no other, "
            f"got shape {tuple(shape)} and plates at {sorted(axes)}: use to_event, or set the plates' dim"
        )


def plain(distribution: Any) -> Any:
    """What is inside `Independent`."""
    while isinstance(distribution, Independent):
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


def check_delta(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a guide that has one point where the model has a density."""
    for name in sites(guide_trace, observed=False):
        pair = [plain(trace.nodes[name]["fn"]) for trace in (model_trace, guide_trace)]
        if [isinstance(fn, Delta) for fn in pair] == [False, True]:
            raise InputError(
                f"expected a guide with a density at the site {name!r}, got a Delta: its one point has no "
                "weight; use a guide that draws"
            )


def first_difference(one: Trace, other: Trace, tolerance: float) -> str | None:
    """The first site of `one` whose log density is another one in `other`; None where all agree."""
    for name in sites(one):
        old, new = (trace.nodes[name]["log_prob"] for trace in (one, other))
        if not torch.allclose(old, new, rtol=tolerance, atol=tolerance, equal_nan=True):
            return name
    return None


def check_precision(trace: Trace, name: str) -> None:
    """Refuse a log density of 16 bits: at −100 it is known to half a nat at the best."""
    dtype = trace.nodes[name]["log_prob"].dtype
    if dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            f"expected a log density in float32 or float64, got {dtype} at the site {name!r}: use .float() "
            "on the parameters of its distribution"
        )
