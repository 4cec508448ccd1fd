"""The optimiser of a training, made when its parameters are known."""

from collections.abc import Callable, Iterable
from typing import Any

from pyro.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

from pyro_vae.errors import InputError, make
from pyro_vae.optimisers import SingleOptimiser
from pyro_vae.optimisers.clipping import clip_bounds
from pyro_vae.optimisers.made import checked
from pyro_vae.training.options import MakeOptimiser
from pyro_vae.training.trained import Trained


class Optimising(PyroOptim):
    """One torch optimiser over all that is trained, for `pyro.infer.SVI`.

    Where the first step has to create the parameters, it is made between the gradients of that step and
    its update, so that the update is the one that SVI takes.

    Args:
        programs: What is trained.
        optimiser: Makes the torch optimiser.
        clip_norm: Bound on the norm of the whole gradient.
        ready: Called once when it is made; what it refuses is refused before any parameter is changed.
    """

    def __init__(
        self,
        programs: Trained,
        optimiser: MakeOptimiser,
        clip_norm: float | None,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(Optimizer, {})
        self.programs, self.ready = programs, ready
        self._make = optimiser
        self.clip_args = {"clip_norm": clip_norm}
        clip_bounds(self.clip_args)
        self.single: SingleOptimiser | None = None
        #: What the torch optimiser holds and moves.
        self.held: set[Tensor] = set()
        #: Called when the gradients are there, before each update.
        self.before_update: Callable[[], None] | None = None

    @property
    def optimiser(self) -> Optimizer:
        """The torch optimiser, once it is made."""
        assert self.single is not None and self.single.optimiser is not None
        return self.single.optimiser

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """One step on the gradients that SVI has left in `params`."""
        params = params if isinstance(params, set) else set(params)
        self.meet(params)
        if self.before_update is not None:
            self.before_update()
        assert self.single is not None
        self.single(self.programs.used(params, self.held), *args, **kwargs)

    def meet(self, params: Iterable[Tensor]) -> None:
        """Make the optimiser of what a first step has used."""
        if self.single is None:
            self.begin(self.programs.meet(params))
            self.programs.check_gradients(self.held)
            self.ready()

    def begin(self, trained: list[Tensor]) -> None:
        """Make the optimiser.

        Raises:
            InputError: where there is nothing to train, or what is made cannot take plain steps.
        """
        if not trained:
            raise InputError(
                "expected a model with parameters to train, got none: all are frozen, or none is named by "
                "pyro.module or pyro.param"
            )
        made = checked(make("optimiser", self._make, trained))
        self.held = {p for group in made.param_groups for p in group["params"] if p.requires_grad}
        self.single = SingleOptimiser(made, clip_args=self.clip_args)
