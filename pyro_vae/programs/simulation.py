"""Data drawn from a model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyro_vae.batch import Batch, Program
from pyro_vae.errors import InputError
from pyro_vae.programs.comparing import close, parts_of
from pyro_vae.programs.latents import Latents
from pyro_vae.programs.layout import Layout
from pyro_vae.programs.running import buffers_kept
from pyro_vae.programs.sites import core, imputed, sites
from pyro_vae.randomness import own_draws


class Simulated(NamedTuple):
    """Data drawn from a model, with the latents that they were drawn from."""

    #: x drawn, and what is given as it was.
    batch: Batch
    #: The unconstrained latents, exact draws from p(z|x): (B, n).
    u: Tensor


@torch.no_grad()
def simulate(latents: Latents, like: Batch, num: int) -> Simulated:
    """`num` data from the model, z ~ p(z), x ~ p(x|z), with their latents.

    The model may observe x in other shapes, in another order, or in parts at several sites: which entry each
    site has is found out by a run on x whose entries are numbered. What is given is kept, that of the first
    datum, of the second and so on, over again; but where the model observes something given, it is drawn,
    too. Entries that are NaN stay so.

    Args:
        latents: Of the model.
        like: Data (at least one) of the shape and type wanted, which the model is called with.
        num: How many.

    Raises:
        InputError: where the model does not observe every entry of x as it is, or has densities that depend
            on x, so that what it draws is no argument for it.
    """
    if latents.pair.whole:
        raise InputError(
            "expected a guide that can be run on any data, to run it on simulated ones, got one for these "
            "very data, as an autoguide with parameters for each datum"
        )
    latents.check_numbers()
    template = like.repeat(-(-num // len(like)))[:num]
    layout = Layout(1, num, latents.pair.depth, repeated=True)
    with _Drawn():
        drawn = latents.pair.run_model(template, layout, None, summing=False)
    values = {name: drawn.nodes[name]["value"] for name in sites(drawn) if name in _observed_in(drawn)}
    batch = _argument(latents, template, drawn, values)
    u = latents.pack(drawn, layout)
    _check_densities(latents, template, batch, values, u)
    return Simulated(batch, u[0])


class _Drawn(UnconditionMessenger):
    """Draws what a model observes; a deterministic site stays what it is."""

    def _pyro_sample(self, message: Any) -> None:
        if not message["infer"].get("_deterministic"):
            super()._pyro_sample(message)


class _Observing(Messenger):
    """Puts other values at observed sites, in the type that they have there, and NaN where they have it."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if message["is_observed"] and message["name"] in self.values:
            own, value = message["value"], self.values[message["name"]].to(message["value"])
            missing = own.isnan() if own.is_floating_point() else None
            message["value"] = value if missing is None else torch.where(missing, own, value)


def _observed_in(trace: Trace) -> list[str]:
    """The sites at which the model observes data, not a value that it has computed."""
    return [
        name
        for name in sites(trace)
        if trace.nodes[name]["infer"].get("was_observed")
        and not isinstance(core(trace.nodes[name]["fn"]), Delta)
    ]


def _argument(latents: Latents, template: Batch, drawn: Trace, values: Mapping[str, Tensor]) -> Batch:
    """The data for which the model observes the values that it has drawn."""
    plate, size = latents.pair.plate, len(template)
    x, given = template.x.reshape(size, -1).clone(), dict(template.given)
    entries, named = entries_of(latents.pair.model, template, list(values))
    for name, value in values.items():
        site = drawn.nodes[name]
        rows = value.movedim(value.ndim - site["fn"].event_dim + plate.axis(drawn, name), 0).reshape(size, -1)
        if name in named:
            given[named[name]] = rows.reshape(template.given[named[name]].shape).to(
                template.given[named[name]]
            )
        else:
            x[:, entries[name]] = rows.to(x)
    x = x.reshape(template.x.shape)
    if x.is_floating_point():
        x = torch.where(template.x.isnan(), template.x, x)
    return Batch(x, given)


def entries_of(model: Program, template: Batch, names: list[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """By observed site, which entries of a datum it has, or the name of what is given that it has.

    Args:
        model: A Pyro program.
        template: Data that it takes, of which the first is looked at.
        names: The observed sites.

    Raises:
        InputError: where these are not all entries, each once.
    """
    one = template[:1]
    numbers = torch.arange(one.x.numel(), device=one.device).reshape(one.x.shape)
    exact = one.x.dtype if one.x.is_floating_point() else torch.int64  # of few bits, it could not hold them
    traces = [_observed_trace(model, Batch(n.to(exact), one.given)) for n in (numbers, -1 - numbers)]
    known = all(trace is not None for trace in traces)
    entries = {name: _as_entries(traces, name, numbers) for name in names if known}
    actual = _observed_trace(model, one)
    assert actual is not None
    named, strange = {}, []
    for name in names:
        value = actual.nodes[name]["value"]
        if entries.get(name) is not None:
            continue
        given = [key for key, other in one.given.items() if _same(value, other)]
        if given:
            named[name] = given[0]
        elif not known and len(names) == 1 and _same(value, one.x):
            entries[name] = numbers.flatten()
        else:
            strange.append(name)
    found = {name: index for name, index in entries.items() if index is not None}
    seen = torch.cat([index for index in found.values()]) if found else numbers.new_zeros(0)
    if strange or not torch.equal(seen.sort().values, numbers.flatten()):
        what = (
            f"changes it at the site {strange[0]!r}"
            if strange
            else "leaves out or repeats some entries of it"
        )
        raise InputError(
            f"expected a model that observes its argument as it is, got one that {what} (it observes "
            f"{names or 'nothing'}): data that it draws would be no argument for it"
        )
    return found, named


def _observed_trace(model: Program, one: Batch) -> Trace | None:
    """A trace of the model on one datum, without log densities; None where it cannot be run on it."""
    with own_draws(one.device), pyro.validation_enabled(False), buffers_kept():
        try:
            return poutine.trace(model).get_trace(one.x, **one.given)
        except Exception:
            return None


def _as_entries(traces: list[Trace | None], name: str, numbers: Tensor) -> Tensor | None:
    """Which entries of x are observed at a site, where nothing else is.

    Args:
        traces: With the entries of x numbered from 0 on, and from −1 downwards.
        name: Of the site.
        numbers: From 0 on.
    """
    value, other = (trace.nodes[name]["value"] for trace in traces if trace is not None)
    index = value.flatten().long()
    same = value.shape == other.shape and torch.equal(index.to(value), value.flatten())
    if not same or not torch.equal(-1 - index.to(other), other.flatten()):
        return None
    fits = bool(((index >= 0) & (index < numbers.numel())).all())
    return index if fits and index.numel() == index.unique().numel() else None


def _same(value: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and value.numel() == other.numel() > 0
        and bool(((value.flatten() == other.flatten()) | _both_nan(value.flatten(), other.flatten())).all())
    )


def _both_nan(one: Tensor, other: Tensor) -> Tensor:
    return one.isnan() & other.isnan()


def _check_densities(
    latents: Latents, template: Batch, batch: Batch, values: Mapping[str, Tensor], u: Tensor
) -> None:
    """Refuse a model whose densities depend on its argument, since x was drawn under another one."""
    layout = latents.pair.layout("model", 1, len(batch))
    with _Observing(values):
        under = latents.model_at(template, u)[0]
    old, new = (
        parts_of(latents.pair, None, trace, layout, layout)
        for trace in (under, latents.model_at(batch, u)[0])
    )
    own = {f"the site {name!r} of the model" for name in imputed(under)}
    for name, found in old.items():
        if name not in own and not close(found, new[name]):
            raise InputError(
                f"expected densities that do not depend on the model's argument, got one at {name} that does "
                "(as of an autoregressive decoder): data drawn from the model would be drawn under another "
                "argument"
            )
