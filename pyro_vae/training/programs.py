"""Any model and guide in training: their parameters are those of Pyro's store."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import pyro
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

from pyro_vae.batch import Batch
from pyro_vae.compiled.guards import Guards
from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError
from pyro_vae.programs import Program
from pyro_vae.training.data import Splits, TensorSplit, splits_of
from pyro_vae.training.joint import TrainedModule
from pyro_vae.training.trained import Trained, resolve_device
from pyro_vae.vae import JointProgram


class HasPrograms(Protocol):
    """Anything with a Pyro model and guide."""

    @property
    def model(self) -> Program:
        """The Pyro program of p(x, z)."""

    @property
    def guide(self) -> Program:
        """The Pyro program of q(z|x)."""


class TrainedPrograms(Trained):
    """Any two Pyro programs: their parameters are what the first step finds or creates in Pyro's store.

    Args:
        given: What the user gave.
        model: Pyro program of p(x, z).
        guide: Pyro program of q(z|x).
        device: `auto`, or that on which they are already.
        like: The data.

    Raises:
        InputError: where a program cannot be called, or would have to be moved.
    """

    def __init__(self, given: Any, model: Program, guide: Program, device: str, like: Split) -> None:
        super().__init__(given, model, guide)
        for what, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise InputError(f"fit expects a Pyro program as {what}, got {type(program).__name__}")
        self.known = None
        #: Of what the programs use in the store.
        self.names: list[str] = []
        self.modules, tensors = reached(model, guide)
        parameters = [tensor for tensor in tensors if tensor.is_floating_point()]
        plain = isinstance(like, TensorSplit)
        here = like.device if plain else torch.get_default_device()
        self.device = parameters[0].device if parameters else here
        self.dtype = parameters[0].dtype if parameters else None if plain else torch.get_default_dtype()
        if device != "auto" and resolve_device(device) != self.device:
            raise InputError(
                f"fit trains Pyro programs where they are, on {self.device}, got device {device!r}: move "
                "their modules and tensors by .to(), and leave device out"
            )

    def check(self, splits: Splits) -> None:
        """Hold the data against the signatures; nothing is run, since that would create parameters."""
        self.check_signatures(splits)

    def objective(self, objective: Callable[..., ELBO]) -> Callable[..., ELBO]:
        """As a user makes it: plates are found out, and particles follow one another."""
        if isinstance(objective, ELBO):
            return objective  # which is refused
        return lambda num_particles, **_: objective(num_particles=num_particles)

    def store(self) -> AbstractContextManager[object]:
        """The user's store."""
        return nullcontext()

    def place(self, batch: Batch) -> Batch:
        """Data on the device; in the type of the parameters, where they are no whole numbers."""
        return batch.to(self.device, self.dtype, whole=True)

    def meet(self, params: Iterable[Tensor]) -> list[Tensor]:
        """All that the first step has used, in the order of their names."""
        used = set(params)
        names = map(pyro.get_param_store().param_name, used)
        self.names = sorted(name for name in names if name is not None)
        self.modules, _ = reached(self.model, self.guide)  # a first run may have made some
        # the running average of a baseline has been replaced by now
        self.known = [tensor for _, tensor in self.named_parameters() if tensor in used]
        return self.known

    def used(self, params: set[Tensor], held: set[Tensor]) -> set[Tensor]:
        """All that the optimiser holds: what a step does not use has no gradient, and stays."""
        if not params <= held:
            self._refuse([tensor for tensor in params - held if tensor.grad is not None])
        return held

    def check_gradients(self, held: set[Tensor]) -> None:
        """Refuse a gradient in what the optimiser does not hold, of the store or reached by the programs."""
        self._refuse([leaf for leaf in self.leaves() if leaf.grad is not None and leaf not in held])

    def check_store(self, held: set[Tensor]) -> None:
        """Refuse a gradient in what has come into the store after the first step."""
        self.used(set(_stored().values()), held)

    def _refuse(self, strange: list[Tensor]) -> None:
        if strange:
            names = {id(tensor): name for name, tensor in _stored().items()}
            which = [
                repr(names[id(t)]) if id(t) in names else f"a tensor of shape {tuple(t.shape)}"
                for t in strange
            ]
            more = f" and {len(which) - 1} more" if len(which) > 1 else ""
            raise InputError(
                f"{len(which)} parameters get a gradient but are not being optimised: {which[0]}{more}; name "
                "them by pyro.module or pyro.param in the first step, clear Pyro's store of other models "
                "(pyro.clear_param_store()), or freeze them (requires_grad_(False))"
            )

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """What the programs use in the store, unconstrained."""
        stored = _stored()
        return [(name, stored[name]) for name in self.names if name in stored]

    def leaves(self) -> Iterable[Tensor]:
        """All in the store, and all that the programs reach."""
        found = [*reached(self.model, self.guide)[1], *_stored().values()]
        return {id(tensor): tensor for tensor in found}.values()

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters, unconstrained, by their names in the store; buffers by those of their modules."""
        state = {name: tensor.detach() for name, tensor in self.named_parameters()}
        for number, module in enumerate(self.modules):
            for name, buffer in module.named_buffers():
                state[f"{type(module).__name__} {number}: {name}"] = buffer
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Any) -> object:
        """Take over what `state_dict` gave, in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
        return None

    def check_places(self, batch_size: int, number: int) -> None:
        """Refuse batches for an autoguide that has made a latent for each place in the first one.

        Raises:
            InputError: where the data at one place are others in each batch.
        """
        guides = (each for root in self.modules for each in root.modules() if isinstance(each, AutoGuide))
        for guide in guides if batch_size < number else ():
            for name, site in _made(guide):
                frames = () if site["type"] != "sample" or site["is_observed"] else site["cond_indep_stack"]
                if any(f.vectorized and f.size == batch_size == (f.full_size or f.size) for f in frames):
                    raise InputError(
                        f"{type(guide).__name__} holds {name!r} of {batch_size} data by their places in a "
                        f"batch, got other data there in each batch: give batch_size={number}, all data"
                    )


def what_is_trained(
    program: Any, data: Dataset | Batch | Tensor | NDArray[Any], device: str
) -> tuple[Splits, Trained]:
    """The data, and what `fit` trains on them.

    Raises:
        InputError: where it is no module with model and guide, and no pair of them, or the data are none.
    """
    if isinstance(program, JointProgram):
        return splits_of(data), TrainedModule(program, resolve_device(device))
    if isinstance(program, tuple) and len(program) == 2:
        model, guide = program
    elif hasattr(program, "model") and hasattr(program, "guide") and not isinstance(program, type):
        model, guide = program.model, program.guide
    else:
        got = f"the class {program.__name__}" if isinstance(program, type) else type(program).__name__
        raise InputError(
            f"fit expects a module with a Pyro model and guide, or both as (model, guide), got {got}"
        )
    splits = splits_of(data)
    return splits, TrainedPrograms(program, model, guide, device, splits.train)


def reached(*programs: Program) -> tuple[list[nn.Module], list[Tensor]]:
    """Modules that programs use, none of them within another; and all tensors that can get a gradient."""
    guards = Guards(programs)
    found = [thing for thing in guards._seen.values() if isinstance(thing, nn.Module)]
    within = {id(child) for module in found for child in module.modules() if child is not module}
    tensors = [tensor for tensor in guards.tensors if tensor.requires_grad and tensor.is_leaf]
    return [module for module in found if id(module) not in within], tensors


def _stored() -> dict[str, Tensor]:
    """All parameters in Pyro's store, unconstrained."""
    return dict(pyro.get_param_store().named_parameters())


def _made(guide: AutoGuide) -> list[tuple[str, Any]]:
    """The sites of an autoguide that has been set up."""
    trace = getattr(guide, "prototype_trace", None)
    return [] if trace is None else list(trace.nodes.items())
