"""Which group of a torch optimiser each parameter is in."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pyro_vae.errors import InputError, make
from pyro_vae.optimisers.made import checked
from pyro_vae.optimisers.states import Saved


class Groups:
    """Groups of parameters with equal options, by their names.

    Args:
        constructor: Makes the torch optimiser.
        options_of: The options of the parameter of a name.
    """

    def __init__(
        self, constructor: Callable[..., Optimizer], options_of: Callable[[str], dict[str, Any]]
    ) -> None:
        self._constructor, self._options_of = constructor, options_of
        #: The group of each parameter that the optimiser holds.
        self.number: dict[str, int] = {}
        #: Those whose options were loaded, and are not those given: no other parameter joins them.
        self.closed: set[int] = set()
        self._options: list[dict[str, Any]] = []  # of each group, as given: a schedule changes the group's

    def of_saved(self, saved: Mapping[str, Saved]) -> dict[str, int]:
        """Groups of equal options, those given and those saved, also of parameters to come."""
        groups: dict[str, int] = {}
        firsts: list[Saved] = []
        self._options = []
        for name, one in sorted(saved.items()):
            options = self._options_of(name)
            for i, first in enumerate(firsts):
                if first.is_like(one) and self._options[i] == options:
                    groups[name] = i
            if name not in groups:
                groups[name] = len(firsts)
                firsts.append(one)
                self._options.append(options)
        return groups

    def choose(self, new: Iterable[str], *, may_begin_one: bool = True) -> dict[str, int]:
        """The group of each parameter: the one that it has, that of equal options, or a new one.

        Raises:
            InputError: where it takes a new one and there must be none, as under a schedule.
        """
        groups = dict(self.number)
        for name in new:
            if name in groups:
                continue
            options = self._options_of(name)
            fitting = [i for i, own in enumerate(self._options) if own == options and i not in self.closed]
            if not fitting:
                if not may_begin_one:
                    raise InputError(
                        f"expected the options of a group that the schedule began with, got {options} for "
                        f"{name}, which came later: give it the options of another, use it in the first "
                        "step, or leave out the schedule"
                    )
                self._options.append(options)
            groups[name] = fitting[0] if fitting else len(self._options) - 1
        return {name: groups[name] for name in new}

    def extended(
        self, optimiser: Optimizer | None, new: Mapping[str, Tensor], groups: Mapping[str, int]
    ) -> Optimizer:
        """The torch optimiser with `new` in it, made where there is none.

        The class itself makes each group, so that it checks the options and begins the states.
        """
        members: list[list[Tensor]] = [[] for _ in self._options]
        for name, tensor in new.items():
            members[groups[name]].append(tensor)
        made = [
            checked(make("optimiser", partial(self._constructor, **options), [{"params": each}]))
            for options, each in zip(self._options, members, strict=True)
        ]
        whole = optimiser or made.pop(0)
        for i, part in enumerate(made, start=0 if optimiser else 1):
            (addition,) = part.param_groups
            if i < len(whole.param_groups):
                whole.param_groups[i]["params"].extend(addition["params"])
            else:
                whole.add_param_group(addition)
            whole.state.update(part.state)
        return whole
