"""An ELBO of Pyro's, run as a flat graph."""

from typing import Any

from pyro.infer import ELBO
from pyro.util import warn_if_nan

from pyro_vae.batch import Program
from pyro_vae.compiled.steps import Backend, FlatSteps
from pyro_vae.errors import InputError

#: Pairs of model and guide for which graphs are kept.
MAX_PAIRS = 8


class CompiledELBO(ELBO):
    """Any ELBO of Pyro's or of this package's, for `pyro.infer.SVI`, traced once into a flat graph.

    Model and guide run as Pyro programs in the first two steps only. From then on a step is the torch
    operations that they consisted of, loss and gradients in one graph, without Pyro, Python or autograd
    between them. The parameters, buffers and other tensors that the programs use are read at every step,
    and random numbers are drawn anew. What else they depend on is watched: attributes, closures and globals
    that are numbers or strings, numbers read from tensors that the programs hold, train or eval, modules,
    shapes, types and devices. Where one has changed, a new graph is made. Where none can be made, as where a
    program decides by numbers of the data, draws from a generator of its own or counts its runs, or where
    it does not give what eager Pyro gives in the first two steps, one warning says so, and every step
    is eager, as if there had never been a graph. Pyro's validation is not in a graph.

    Where a first step makes what later ones use, as parameters of the store or an autoguide, the second one
    counts for the first.

    A weight of the KL term belongs in a tensor that is changed in place, as in `KLWeight`, since a number
    that changes at every step would need a graph for each.

    Args:
        elbo: What is computed, as `Trace_ELBO(max_plate_nesting=1)` or `ImportanceWeightedELBO(50)`.
        backend: `flat` runs the operations one by one: no compiler, 1 to 3 seconds until the first step, and
            loss and gradients equal those of eager Pyro to the last bit. `inductor` compiles them, which
            takes 5 to 20 seconds and a C++ compiler, and agrees up to rounding; the random numbers stay the
            same.
        fast: On a CPU, use operations that cost less and agree up to rounding: oneDNN rather than MKL for
            large matrix products, which is twice as fast on CPUs of AMD, and log(1 + y) rather than log1p(y)
            in softplus and Bernoulli densities, one logarithm of a product where these are summed. By default
            with `inductor` only.

    Raises:
        InputError: where `backend` is neither of the two, or `elbo` is no ELBO.

    >>> import pyro, torch
    >>> from pyro.infer import SVI, Trace_ELBO
    >>> from pyro_vae import Digits, FusedAdam, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> elbo = CompiledELBO(Trace_ELBO(max_plate_nesting=1))
    >>> svi = SVI(vae.model, vae.guide, FusedAdam({"lr": 1e-3}), elbo)
    >>> losses = [svi.step(data.train.batch(slice(0, 100))) for _ in range(10)]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(self, elbo: ELBO, backend: Backend = "flat", *, fast: bool | None = None) -> None:
        if not isinstance(elbo, ELBO) or isinstance(elbo, CompiledELBO):
            raise InputError(f"CompiledELBO expects an ELBO as Trace_ELBO(), got {type(elbo).__name__}")
        if backend not in ("flat", "inductor"):
            raise InputError(f"backend expects 'flat' or 'inductor', got {backend!r}")
        super().__init__(
            elbo.num_particles, elbo.max_plate_nesting, vectorize_particles=elbo.vectorize_particles
        )
        self.elbo = elbo
        self.backend: Backend = backend
        self.fast = backend == "inductor" if fast is None else fast
        self._steps: dict[tuple[Program, Program], FlatSteps] = {}

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss by eager Pyro, without a gradient."""
        return self.elbo.loss(model, guide, *args, **kwargs)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss by eager Pyro, as a tensor."""
        return self.elbo.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:
        """The loss, with its gradient added to that in the parameters, by the flat graph.

        A pair of losses for `ReweightedWakeSleep`, as by itself.
        """
        steps = self._steps.get((model, guide)) or self._make_steps(model, guide)
        losses = [float(warn_if_nan(loss, "loss")) for loss in steps(*args, **kwargs)]
        return losses[0] if len(losses) == 1 else tuple(losses)

    def __getattr__(self, name: str) -> Any:
        """What the ELBO has besides, as `compute_marginals` and `sample_posterior`, by eager Pyro."""
        if name.startswith("_") or name == "elbo":
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return getattr(self.elbo, name)

    def _make_steps(self, model: Program, guide: Program) -> FlatSteps:
        def function(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
            loss = self.elbo.loss_and_grads(model, guide, *args, **kwargs)
            return loss if isinstance(loss, tuple) else (loss,)

        roots = (self.elbo, model, guide)
        steps = FlatSteps(function, roots, backend=self.backend, fast=self.fast, who="CompiledELBO")
        if len(self._steps) < MAX_PAIRS:
            self._steps[model, guide] = steps
        else:
            steps.give_up(f"there are more than {MAX_PAIRS} pairs of model and guide")
        return steps

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_steps": {}}  # a copy makes graphs of its own

    def _get_trace(self, *args: Any) -> Any:
        return self.elbo._get_trace(*args)
