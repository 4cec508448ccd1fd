"""States of parameters by Pyro's keys, and a torch optimiser with its schedule set to such states."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.errors import InputError
from pyro_vae.optimisers.made import load_groups

#: What torch's schedules keep for each group.
PER_GROUP = {"base_lrs", "_last_lr", "lr_lambdas", "max_lrs", "min_lrs", "base_momentums", "max_momentums"}
#: What torch's optimisers keep in the shape of the parameter.
ELEMENTWISE = {
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "acc_delta",
    "sum",
    "prev",
}
#: Options that say how a step is computed; which of them there are depends on the version of torch.
HOW = {"foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay"}


@dataclass(frozen=True, eq=False)
class Saved:
    """What is saved of one parameter."""

    options: dict[str, Any]
    state: dict[str, Any]
    schedule: dict[str, Any] | None

    def is_like(self, other: "Saved") -> bool:
        """Whether both can be in one group."""
        return self.options == other.options and self.schedule == other.schedule

    def check_shape(self, name: str, tensor: Tensor) -> None:
        """Refuse the state of a tensor of another shape."""
        for key in sorted(ELEMENTWISE & self.state.keys()):
            value = self.state[key]
            if isinstance(value, Tensor) and value.shape != tensor.shape:
                raise InputError(
                    f"expected a state for {name} of shape {tuple(tensor.shape)}, got {tuple(value.shape)}: "
                    "load the state saved with this model and guide"
                )


def pack(
    optimiser: Optimizer, schedule: LRScheduler | None, group: int, state: Mapping[str, Any]
) -> dict[str, Any]:
    """What Pyro's optimiser gives for a parameter, which there has a torch optimiser of its own."""
    options = {key: value for key, value in optimiser.param_groups[group].items() if key != "params"}
    alone = {"state": {0: state} if state else {}, "param_groups": [{**options, "params": [0]}]}
    if schedule is None:
        return alone
    return {"scheduler": _of_group(schedule.state_dict(), group), "optimizer": alone}


def unpack(name: object, packed: object) -> Saved:
    """What `pack` or an optimiser of Pyro's gave for a parameter.

    Raises:
        InputError: where it is no such thing.
    """
    under = isinstance(packed, Mapping) and {"scheduler", "optimizer"} <= packed.keys()
    alone = packed["optimizer"] if under else packed  # type: ignore[index]
    if not (
        isinstance(name, str) and isinstance(alone, Mapping) and {"state", "param_groups"} <= alone.keys()
    ):
        raise InputError(
            "expected a state by the names of parameters, as get_state of an optimiser for SVI gives it, "
            f"got {type(packed).__name__} for {name!r}"
        )
    (group,) = alone["param_groups"]
    options = {key: value for key, value in group.items() if key != "params"}
    return Saved(options, dict(alone["state"].get(0, {})), dict(packed["scheduler"]) if under else None)  # type: ignore[index]


def check_names(new: Iterable[str], saved: Iterable[str], all_at_once: bool) -> None:
    """Refuse a state of other parameters than those of the first step, of which some may come later."""
    lacked, strange = sorted(set(new) - set(saved)), sorted(set(saved) - set(new))
    if (lacked and strange) or (all_at_once and (lacked or strange)):
        raise InputError(
            f"expected a state of the parameters that are trained, got one that lacks {_some(lacked)} and "
            f"names {_some(strange)} that this step does not use: load the state saved with this model "
            "and guide"
        )


def load_saved(
    optimiser: Optimizer, schedule: LRScheduler | None, groups: Mapping[str, int], saved: Mapping[str, Saved]
) -> None:
    """Set the options of all groups, and the schedule, to those saved of their parameters.

    Raises:
        InputError: where they are those of another optimiser or schedule, or of several in one group.
    """
    of_groups: list[Saved | None] = [None] * len(optimiser.param_groups)
    for name, one in saved.items():
        first = of_groups[groups[name]] = of_groups[groups[name]] or one
        if first.options != one.options:
            raise InputError(
                "expected a state with equal options for the parameters of a group, got "
                f"{one.options} for {name} and {first.options} for another: load the state saved with the "
                "same groups"
            )
        _check_schedule(schedule, name, one)
        _check_options(optimiser, groups[name], one)
    if schedule is not None:
        _check_one_place([one.schedule or {} for one in saved.values()])
        own = schedule.state_dict()
        schedule.load_state_dict(
            _joined(
                [_of_group(own, i) if one is None else one.schedule or {} for i, one in enumerate(of_groups)]
            )
        )
    load_groups(optimiser, [{} if one is None else one.options for one in of_groups])


def _check_options(optimiser: Optimizer, group: int, saved: Saved) -> None:
    own = optimiser.param_groups[group].keys() - {"params"}
    differing = sorted((own ^ saved.options.keys()) - HOW)
    if differing:
        raise InputError(
            f"expected a state of {type(optimiser).__name__}, got one of an optimiser that differs in its "
            f"options {', '.join(differing)}"
        )


def _check_schedule(schedule: LRScheduler | None, name: str, saved: Saved) -> None:
    own = None if schedule is None else schedule.state_dict()
    if (own is None) != (saved.schedule is None):
        words = ["without a schedule", "under a schedule"]
        raise InputError(
            f"expected a state {words[own is not None]}, got one {words[own is None]} for {name}: make the "
            "optimiser as the one that was saved"
        )
    differing = sorted(key for key in (own or {}).keys() ^ (saved.schedule or {}).keys() if key[0] != "_")
    if differing:
        raise InputError(
            f"expected a state under {type(schedule).__name__}, got one under a schedule that differs in "
            f"{', '.join(differing)}"
        )


def _of_group(state: Mapping[str, Any], group: int) -> dict[str, Any]:
    """The state of a schedule of this group alone."""
    part = {key: [value[group]] if key in PER_GROUP else value for key, value in state.items()}
    if "_schedulers" in part:
        part["_schedulers"] = [_of_group(inner, group) for inner in part["_schedulers"]]
    return part


def _joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of one schedule of all groups, from those of each, which are at one place."""
    whole = {
        key: [state[key][0] for state in states] if key in PER_GROUP else value
        for key, value in states[0].items()
    }
    if "_schedulers" in whole:
        whole["_schedulers"] = [
            _joined(inner) for inner in zip(*(state["_schedulers"] for state in states), strict=True)
        ]
    return whole


def _check_one_place(states: Sequence[Mapping[str, Any]]) -> None:
    if any(_shared(state) != _shared(states[0]) for state in states):
        places = sorted({state.get("last_epoch", -1) for state in states})
        raise InputError(
            "expected schedules at one place, since one schedule moves all parameters here, got them at "
            f"{', '.join(map(str, places))}: go on with the optimiser of pyro.optim that was saved"
        )


def _shared(state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a schedule is not of one group."""
    part = {key: value for key, value in state.items() if key not in PER_GROUP}
    if "_schedulers" in part:
        part["_schedulers"] = [_shared(inner) for inner in part["_schedulers"]]
    return part


def _some(names: list[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more if names else "none"
