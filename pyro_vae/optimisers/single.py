"""One torch optimiser over all parameters."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.optim import PyroOptim
from pyro.params.param_store import (
    module_from_param_with_module_name,
    normalize_param_name,
    user_param_name,
)
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_vae.errors import InputError, make
from pyro_vae.optimisers.clipping import clip_bounds
from pyro_vae.optimisers.gradients import had_gradient, has_begun, note_gradients
from pyro_vae.optimisers.groups import Groups
from pyro_vae.optimisers.made import groups_of, load_states
from pyro_vae.optimisers.states import check_names, load_saved, pack, unpack
from pyro_vae.storage.checkpoints import load_tensors, save_tensors

OptimiserOptions = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]


class SingleOptimiser(PyroOptim):
    """One torch optimiser over all parameters, as an optimiser for `pyro.infer.SVI`.

    Pyro's own optimisers hold one torch optimiser per tensor, which costs more than the step itself
    where networks are small. The steps are the very same, to the last bit, for every torch optimiser that
    updates each tensor by itself, as those of `torch.optim` do: a parameter that a step does not use stays
    as it is, and one that is used without a gradient moves on by momentum and weight decay, with the
    gradient zero that its last step left there (until its first gradient it stays as it is). What differs
    is that `clip_norm` is of the whole gradient, that there is one schedule for all, and that gradients
    are None after a step, where a Pyro optimiser that takes over in the same process would find zeros.

    It is made as Pyro's optimisers are, from a torch optimiser's class and its options. Parameters join
    at the step that first uses them, into the group of those with equal options. Or it is given a made
    torch optimiser, and then refuses to train anything else than what that holds.

    Args:
        optimiser: A torch optimiser's class, or a made torch optimiser that already holds the parameters.
        optim_args: Options of the class: a dictionary, or a function from a parameter's name, as in
            `nn.Module.named_parameters` after the name of the module in Pyro, to its dictionary.
        clip_args: `clip_norm`, a bound on the norm of the whole gradient (Pyro's optimisers bound that of
            each tensor), and after it `clip_value`, a bound on the size of each element.
        schedule: A function from the torch optimiser to a scheduler, which `step` moves on. It is one for all
            parameters: a late one joins it where it is.

    Raises:
        InputError: where these cannot be used; in a step, where parameters are not those of the made
            optimiser (SVI would then train nothing and not say so), a late parameter needs a new group
            under a schedule, or a loaded state is that of another model, optimiser or schedule, or of
            schedules that are not at one place.

    >>> import pyro, torch
    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> def options(name):
    ...     return {"lr": 1e-2 if name.endswith("bias") else 1e-3}
    >>> optimiser = SingleOptimiser(torch.optim.SGD, options, {"clip_norm": 10.0})
    >>> svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, pyro.infer.Trace_ELBO())
    >>> loss = svi.step(data.train.batch(slice(0, 100)))
    >>> [group["lr"] for group in optimiser.optimiser.param_groups]
    [0.01, 0.001]

    A made one:

    >>> optimiser = SingleOptimiser(torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True))
    >>> svi = pyro.infer.SVI(vae.model, vae.guide, optimiser, pyro.infer.Trace_ELBO())
    >>> loss = svi.step(data.train.batch(slice(0, 100)))
    """

    def __init__(
        self,
        optimiser: Optimizer | Callable[..., Optimizer],
        optim_args: OptimiserOptions | None = None,
        clip_args: Mapping[str, float | None] | None = None,
        *,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
    ) -> None:
        self.clip_norm, self.clip_value = clip_bounds(clip_args)
        self._make_schedule = schedule
        self._waiting: dict[str, dict[str, Any]] = {}  # states of parameters that are not met yet
        self.optimiser: Optimizer | None = None
        self.schedule: LRScheduler | None = None
        self._fixed: list[Tensor] | None = None
        if isinstance(optimiser, Optimizer):
            if optim_args is not None:
                raise InputError(
                    "optim_args expects a torch optimiser's class, got a made one: leave them out"
                )
            held = [tensor for group in optimiser.param_groups for tensor in group["params"]]
            self._fixed = [tensor for tensor in held if tensor.requires_grad]
            self.optimiser, self.schedule = optimiser, self._scheduled(optimiser)
            super().__init__(type(optimiser), {})
        else:
            if optim_args is not None and not callable(optim_args) and not isinstance(optim_args, Mapping):
                raise InputError(
                    f"optim_args expects a dictionary or a function from names, got {optim_args}"
                )
            super().__init__(optimiser, optim_args if callable(optim_args) else dict(optim_args or {}))
        self._forget()

    def _forget(self) -> None:
        """Know no parameter, as before the first step."""
        self._held: set[Tensor] | None = None
        self._fresh: set[Tensor] = set()  # those that never had a gradient
        self._tensors: dict[str, Tensor] = {}
        self._groups = Groups(self.pt_optim_constructor, self._options_of)
        self.parameters: list[Tensor] = []
        if self._fixed is None:
            self.optimiser, self.schedule = None, None

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step on the gradients that SVI has left in `params`."""
        params = params if isinstance(params, set) else set(params)
        unused = () if params == self._held else self._meet(params)
        if self.optimiser is None:
            return  # there was never a parameter
        self._complete(params)
        self._clip()
        self.optimiser.step(*args, **kwargs)
        for parameter in self.parameters:
            parameter.grad = None
        for parameter, gradient in unused:
            parameter.grad = gradient

    def step(self, *args: Any, **kwargs: Any) -> None:
        """Go on in the schedule, as in `pyro.optim.PyroLRScheduler`; SVI takes the optimiser's steps.

        Args:
            *args: What the scheduler's `step` takes: the metric for `ReduceLROnPlateau`, else nothing.
            **kwargs: The same by name.

        Raises:
            InputError: where there is no schedule, or no step of SVI came before.
        """
        if self._make_schedule is None:
            raise InputError(
                "expected a schedule to step, got none: give schedule, or leave out step(), "
                "since SVI takes the optimiser's steps"
            )
        if self._held is None or self.schedule is None:
            raise InputError("expected a step of SVI before one of the schedule, got none")
        self.schedule.step(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        """A copy of all that an exact continuation needs, as Pyro's optimisers give it.

        It has for each parameter, by its name in Pyro's parameter store, the `state_dict()` that a torch
        optimiser of this parameter alone would have: `{"state": {0: ...}, "param_groups": [...]}`. Under a
        schedule it is `{"scheduler": ..., "optimizer": ...}` of both, as `pyro.optim.PyroLRScheduler` has
        it. So `set_state` of each takes what the other gave. Before the first step it is what was set, or
        empty.
        """
        if self._held is None or self.optimiser is None:
            return deepcopy(self._waiting)
        states = {name: unpack(name, packed).state for name, packed in self._waiting.items()}
        states |= {name: self.optimiser.state.get(tensor, {}) for name, tensor in self._tensors.items()}
        return deepcopy(
            {
                name: pack(self.optimiser, self.schedule, self._groups.number[name], state)
                for name, state in sorted(states.items())
            }
        )

    def set_state(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `get_state` gave, from the next step on.

        Its options take the place of those that this optimiser was made with, `fused` among them. A
        parameter that it names and that the next step does not use may come later, as may a parameter
        that it does not name. Training goes on as if it had never stopped, also where the next step gives
        a parameter no gradient: gradients are not saved, so that Pyro's leave out such a step in a new
        process.

        Raises:
            InputError: where it is no such state.
        """
        for name, packed in state_dict.items():
            unpack(name, packed)
        if state_dict:  # else from before the first step
            self._waiting = deepcopy(dict(state_dict))
            self._forget()

    def save(self, filename: str | Path) -> None:
        """Write the state to a file, atomically; `load` of Pyro's optimisers reads it too."""
        save_tensors(Path(filename), self.get_state())

    def load(self, filename: str | Path, map_location: object = None) -> None:
        """Set the state that `save` wrote, or that of Pyro's optimisers, without executing code in the file.

        Args:
            filename: The file.
            map_location: Without effect, since a state goes where its parameter is; as in Pyro.

        Raises:
            InputError: where it is missing, corrupt or no such state.
        """
        self.set_state(load_tensors(Path(filename)))

    def _meet(self, params: set[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Take in what is new, and put aside the gradients of what this step does not use."""
        if self._fixed is not None and params != set(self._fixed):
            self._refuse(params)
        unused = [tensor for tensor in self._tensors.values() if tensor not in params]
        new = _by_name(params.difference(self._tensors.values()))
        if new:
            self._check_shapes(new)
            if self._held is None:
                self._begin(new)
            else:
                self._add(new)
        aside = [(tensor, tensor.grad) for tensor in unused if tensor.grad is not None]
        for tensor, _ in aside:
            tensor.grad = None
        return aside

    def _complete(self, params: set[Tensor]) -> None:
        """Give the gradient zero to what has none in this step and had one before, as in Pyro."""
        without = [parameter for parameter in params if parameter.grad is None]
        if self._fresh:
            note_gradients(self._fresh & params - set(without))
            self._fresh = {tensor for tensor in self._fresh if not had_gradient(tensor)}
        for parameter in without:
            if parameter not in self._fresh:
                parameter.grad = torch.zeros_like(parameter)

    def _clip(self) -> None:
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        if self.clip_value is not None and any(tensor.grad is not None for tensor in self.parameters):
            clip_grad_value_(self.parameters, self.clip_value)

    def _begin(self, new: dict[str, Tensor]) -> None:
        """The first step: make optimiser and schedule, and load what waits."""
        saved = {name: unpack(name, packed) for name, packed in self._waiting.items()}
        if saved:
            check_names(new, saved, all_at_once=self._fixed is not None)
        first = {name: tensor for name, tensor in new.items() if name in saved or not saved}
        optimiser, schedule = self.optimiser, self.schedule
        if optimiser is not None:
            groups = groups_of(new, optimiser)
        else:
            groups = self._groups.of_saved(saved) if saved else self._groups.choose(new)
            optimiser = self._groups.extended(None, first, groups)
            schedule = self._scheduled(optimiser)
        if saved:
            given = [dict(group) for group in optimiser.param_groups]
            load_saved(optimiser, schedule, groups, saved)
            if schedule is None:
                changed = (i for i, group in enumerate(optimiser.param_groups) if group != given[i])
                self._groups.closed = set(changed)
        self.optimiser, self.schedule = optimiser, schedule
        self._take(first, groups)
        if len(first) < len(new):
            self._add({name: tensor for name, tensor in new.items() if name not in first})

    def _add(self, new: dict[str, Tensor]) -> None:
        """A later step: add what is new to the optimiser."""
        for name in new.keys() & self._tensors.keys():
            self._drop(name)
        groups = self._groups.choose(new, may_begin_one=self.schedule is None)
        self._groups.extended(self.optimiser, new, groups)
        self._take(new, groups)

    def _take(self, new: dict[str, Tensor], groups: dict[str, int]) -> None:
        """Remember parameters that the optimiser holds, and load the states that wait for them."""
        assert self.optimiser is not None
        self._tensors.update(new)
        self._held = set(self._tensors.values())
        self._groups.number.update(groups)
        # in an order that depends neither on the process nor on when each came, as the norm's last bit does
        self.parameters = self._fixed or [tensor for _, tensor in sorted(self._tensors.items())]
        waited = {name: unpack(name, self._waiting.pop(name)) for name in new if name in self._waiting}
        states = {new[name]: saved.state for name, saved in waited.items() if saved.state}
        if states:
            load_states(self.optimiser, states)
        note_gradients(tensor for tensor in new.values() if has_begun(self.optimiser.state.get(tensor)))
        self._fresh.update(new.values())

    def _drop(self, name: str) -> None:
        """Forget a tensor in whose place Pyro's parameter store has another."""
        assert self.optimiser is not None
        old = self._tensors.pop(name)
        group = self.optimiser.param_groups[self._groups.number.pop(name)]
        group["params"] = [tensor for tensor in group["params"] if tensor is not old]
        self.optimiser.state.pop(old, None)

    def _options_of(self, name: str) -> dict[str, Any]:
        """Options of the parameter of that name."""
        given = self.pt_optim_args
        options = given
        if callable(given):  # one of two arguments takes the names of the module and of the parameter in it
            in_module = module_from_param_with_module_name(name), user_param_name(name)
            options = given(*((normalize_param_name(name),) if self.pt_optim_args_argc == 1 else in_module))
        if not isinstance(options, Mapping):
            raise InputError(
                f"optim_args expects a function from names to dictionaries, got {options} for {name}"
            )
        return dict(options)

    def _scheduled(self, optimiser: Optimizer) -> LRScheduler | None:
        if self._make_schedule is None:
            return None
        schedule: object = make("schedule", self._make_schedule, optimiser)
        if not isinstance(schedule, LRScheduler):
            raise InputError(
                "schedule expects a function from a torch optimiser to a scheduler, "
                f"got {type(schedule).__name__}"
            )
        return schedule

    def _check_shapes(self, new: dict[str, Tensor]) -> None:
        for name in new.keys() & self._waiting.keys():
            unpack(name, self._waiting[name]).check_shape(name, new[name])

    def _refuse(self, params: set[Tensor]) -> None:
        held = set(self._fixed or [])
        raise InputError(
            "expected model and guide to use the very parameters that the optimiser holds, got "
            f"{len(held - params)} of {len(held)} not used by the programs and {len(params - held)} that it "
            "does not hold: register every module in model or guide, freeze what is not to be trained "
            "(requires_grad_(False)), and clear Pyro's parameter store of other models"
        )


def _by_name(params: Iterable[Tensor]) -> dict[str, Tensor]:
    """Parameters by their names in Pyro's store, in the order of these."""
    store = pyro.get_param_store()
    named = {store.param_name(tensor): tensor for tensor in params}
    if None in named:
        raise InputError(
            "expected parameters of Pyro's parameter store, got a tensor of shape "
            f"{tuple(named[None].shape)} that is not in it: name it by pyro.param or pyro.module"
        )
    return dict(sorted(named.items()))
