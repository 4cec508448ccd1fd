"""Which plate is that of the data."""

from collections.abc import Iterable, Mapping
from typing import Any

from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.errors import InputError
from pyro_vae.programs.layout import PARTICLES
from pyro_vae.programs.sites import plates, sites

#: The name by which a plate is taken where several could be meant, and one that stands for all of them.
USUAL, ANY = "data", "_data"


class DataPlate:
    """The plate of the data at each site, by its name.

    Args:
        names: Names of the plates that grow with the data.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset({*names, ANY})

    @classmethod
    def found(
        cls, together: Iterable[Trace], total: int, alone: Iterable[Trace], one: int, named: str | None
    ) -> "DataPlate":
        """The plates whose axis is as long as the data in two runs of different numbers of data.

        Args:
            together: Traces of programs on `total` data, with log densities.
            total: How many.
            alone: The same programs on `one`.
            one: How many.
            named: The plate's name, where the user gives it.

        Raises:
            InputError: where a site lies in no such plate, or in several.
        """
        found = set()
        for many, few in zip(together, alone, strict=True):
            for name in (name for name in sites(many) if name in few.nodes):
                axes = plates(many, name)
                lengths = {plate: _length(many.nodes[name]["log_prob"], axis) for plate, axis in axes.items()}
                fitting = [
                    plate
                    for plate, axis in axes.items()
                    if lengths[plate] == total and _length(few.nodes[name]["log_prob"], axis) == one
                ]
                found.add(_chosen(many, name, fitting, lengths, total, named))
        return cls(found)

    @classmethod
    def of_size(cls, traces: Iterable[Trace], total: int, named: str | None) -> "DataPlate":
        """The plates whose axis is as long as the data, in one run of programs that take no other number."""
        found = set()
        for trace in traces:
            for name in sites(trace):
                log_prob = trace.nodes[name]["log_prob"]
                lengths = {plate: _length(log_prob, axis) for plate, axis in plates(trace, name).items()}
                fitting = [plate for plate, length in lengths.items() if length == total]
                found.add(_chosen(trace, name, fitting, lengths, total, named))
        return cls(found)

    def axis(self, trace: Trace, name: str) -> int:
        """The axis of the data at a site, from the right."""
        own = [axis for plate, axis in plates(trace, name).items() if plate in self.names]
        if len(own) != 1:
            inside = ", ".join(plate for plate in plates(trace, name) if plate != PARTICLES) or "none"
            names = ", ".join(sorted(self.names - {ANY})) or "none"
            raise InputError(
                f"expected every site inside the plate of the data ({names}), got the site {name!r} inside "
                f"{inside}: log p(x) per datum needs it there"
            )
        return own[0]


def _length(log_prob: Tensor, axis: int) -> int:
    return log_prob.shape[axis] if log_prob.ndim >= -axis else 1


def _chosen(
    trace: Trace, site: str, fitting: list[str], lengths: dict[str, int], total: int, named: str | None
) -> str:
    """The plate of the data among those around one site."""
    wanted = named or USUAL
    if wanted in fitting:
        return wanted
    if named is None and len(fitting) == 1:
        return fitting[0]
    if named is None and fitting:
        raise InputError(
            f"expected one plate of the data, got {' and '.join(sorted(fitting))} at the site {site!r}: name "
            f"it, as data_plate={fitting[0]!r}"
        )
    for frame in trace.nodes[site]["cond_indep_stack"]:
        if not frame.vectorized:
            raise InputError(
                f"expected every site inside a pyro.plate of the size of x, got the site {site!r} inside the "
                f"sequential plate {frame.name!r}: open it once, as with pyro.plate({frame.name!r}, len(x))"
            )
    inside = ", ".join(f"{plate} ({length})" for plate, length in lengths.items()) or "none"
    what = f"the plate {named!r}" if named else "a pyro.plate"
    raise InputError(
        f"expected every site inside {what} of the size of x, here {total}, got the site {site!r} inside "
        f"{inside}: log p(x) per datum needs it there, as with pyro.plate('data', len(x)); a latent that "
        "all data share has no place in it"
    )


def undeclared(traces: Iterable[Trace], total: int, alone: Iterable[Trace]) -> dict[str, int]:
    """Sites outside of all plates whose first axis grows with the data: how many event axes it takes.

    0 where it is an axis of the batch, which Pyro's validation refuses, and 1 where it is the first one of
    an event of independent parts, as in a program that declares all data as one event by `to_event(2)`.

    Args:
        traces: Of guide and model on `total` data.
        total: How many.
        alone: The same on one datum.
    """
    found = {}
    for many, few in zip(traces, alone, strict=True):
        for name in (name for name in sites(many) if name in few.nodes and not plates(many, name)):
            one, all_ = (trace.nodes[name]["fn"] for trace in (few, many))
            if (one.batch_shape, all_.batch_shape) == ((1,), (total,)):
                found[name] = 0
            elif _is_one_event(one, 1) and _is_one_event(all_, total):
                found[name] = 1
    return found


def _is_one_event(fn: Any, size: int) -> bool:
    return isinstance(fn, Independent) and fn.batch_shape == () and fn.base_dist.batch_shape[:1] == (size,)


class Plated(Messenger):
    """Puts sites into a plate of the data that their program leaves out.

    Args:
        events: By site, how many event axes become that of the data, as `undeclared` gives them.
    """

    def __init__(self, events: Mapping[str, int]) -> None:
        super().__init__()
        self.events = events

    def _pyro_sample(self, message: Any) -> None:
        events = self.events.get(message["name"])
        if events is None:
            return
        if events:
            fn = message["fn"]
            message["fn"] = fn.base_dist.to_event(fn.reinterpreted_batch_ndims - events)
        frame = CondIndepStackFrame(name=ANY, dim=-1, size=-1, counter=0)
        message["cond_indep_stack"] = (frame, *message["cond_indep_stack"])
