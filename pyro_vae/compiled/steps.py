"""A computation with gradients as flat graphs: built, held against eager Pyro, and guarded."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pyro
import torch
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.compiled.graph import FlatGraph, NotCompiled, Outputs
from pyro_vae.compiled.kept import Kept, compared, largest_deviation
from pyro_vae.compiled.policy import Speaker
from pyro_vae.compiled.reads import Untraceable, UntraceableItem
from pyro_vae.compiled.record import (
    EagerRun,
    Function,
    ValuesAndGradients,
    add_gradients,
    as_tensor,
    without_gradients,
)
from pyro_vae.compiled.views import PLAIN

Backend = Literal["flat", "inductor"]

#: Graphs kept for different shapes of the arguments, and for different states of one shape (as train, eval).
MAX_SHAPES, MAX_STATES = 8, 4
#: Builds for one shape after which the programs are taken to change at every run.
MAX_BUILDS = 8


class FlatSteps:
    """A function that computes scalars and calls `backward`, run as flat graphs.

    In the first two runs for each kind of arguments the graph is held against an eager run: values,
    gradients, buffers, and the state of the random numbers. Where it cannot be built or does not agree,
    all runs stay eager, and one warning says why. What counts is always what the graph gives, so that a
    training that is continued in a new process goes on to the last bit.

    Args:
        function: Gives a tuple of numbers or scalar tensors, and leaves gradients in the parameters.
        roots: What the function depends on besides its arguments.
        backend: `flat` runs the graph operation by operation, `inductor` compiles it.
        fast: Use operations that are faster and round differently, on a CPU.
        who: Whose warnings they are.
        watch: Look at every run whether something that a graph depends on has changed, and show SVI the
            parameters; else only `look_again` does.
    """

    def __init__(
        self,
        function: Function,
        roots: Sequence[object],
        *,
        backend: Backend,
        fast: bool,
        who: str,
        watch: bool = True,
    ) -> None:
        self.function = function
        self.roots = roots
        self.watch = watch
        plain = {"inductor": False, "fast": False}
        best = {"inductor": backend == "inductor", "fast": fast}
        #: Ways to run a graph, the best first.
        self.ways = [best] if best == plain else [best, plain]
        #: Why all runs are eager; empty while they are not.
        self.eager_because = ""
        self._kept: dict[object, list[Kept]] = {}
        self._builds: dict[object, int] = {}
        self._first_runs = 0
        #: Whether what the programs get by `Tensor.item` changes too often for a graph of each number.
        self._items_stay = False
        self._speaker = Speaker(who)

    def __call__(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """The values of the function; its gradients are added to those in the parameters."""
        flat, key = _flattened(args, kwargs)
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        if self.eager_because or self._must_be_eager(flat):
            return self._eager(args, kwargs)
        kept = self._found(key)
        if kept is None:
            return self._build(key, tensors, args, kwargs)
        if not kept.checked or (self.watch and not kept.in_store()):
            return self._check(kept, key, tensors, args, kwargs)
        for name in kept.sites if self.watch else ():
            pyro.param(name)  # SVI optimises the parameters that it sees here
        result = kept.run(tensors)
        add_gradients(kept.leaves, result.gradients)
        return result.values

    def graph_for(self, *args: Any, **kwargs: Any) -> tuple[Kept, list[Tensor]] | None:
        """The graph for such arguments, where there is one, and the tensors that it takes."""
        flat, key = _flattened(args, kwargs)
        kept = self._found(key)
        return None if kept is None else (kept, [leaf for leaf in flat if isinstance(leaf, Tensor)])

    def _found(self, key: object) -> Kept | None:
        """The graph for arguments of this kind that still holds."""
        return next((kept for kept in self._kept.get(key, ()) if not kept.changed(self.watch)), None)

    def holds(self, kept: Kept) -> bool:
        """Whether a graph is still one of those that are kept."""
        return any(kept is each for states in self._kept.values() for each in states)

    def look_again(self) -> None:
        """Forget the graphs that depend on what has changed."""
        for key, states in self._kept.items():
            self._kept[key] = [kept for kept in states if kept.guards.hold()]

    def _eager(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
        return [as_tensor(value) for value in self.function(*args, **kwargs)]

    def _must_be_eager(self, leaves: Sequence[object]) -> bool:
        """Whether this very run cannot be that of a graph; says why, once."""
        if not torch.is_grad_enabled():
            return True
        handlers = [h for h in _PYRO_STACK if not (isinstance(h, BlockMessenger) or _only_watches(h))]
        strange = [leaf for leaf in leaves if not isinstance(leaf, (Tensor, *PLAIN))]
        if handlers:
            around = type(handlers[0]).__name__
            self._speaker.say(f"runs inside {around} are eager: put the handler around model and guide")
        elif strange:
            self._speaker.say(f"runs on a {type(strange[0]).__name__} are eager: give tensors and numbers")
        elif torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            self._speaker.say("runs inside torch.autocast are eager: use in_bfloat16 of pyro_vae.networks")
        elif any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            self._speaker.say("runs on data that require a gradient are eager: detach them")
        else:
            return False
        return True

    def _build(
        self, key: object, tensors: list[Tensor], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> list[Tensor]:
        """An eager run, after which a graph is built and held against it."""
        if key not in self._kept and len(self._kept) >= MAX_SHAPES:
            self._speaker.say(
                f"after {MAX_SHAPES} different kinds of arguments, further ones are run eagerly"
            )
            return self._eager(args, kwargs)
        run = EagerRun(self.function, self.roots, args, kwargs)
        if run.created and not run.problem and self._first_runs < MAX_BUILDS:
            self._first_runs += 1
            return run.deliver(run.result)
        states = self._kept.setdefault(key, [])
        self._builds[key] = self._builds.get(key, 0) + 1
        self._items_stay |= self._builds[key] > MAX_STATES and any(k.graph.numbers.changed() for k in states)
        if self._builds[key] > MAX_BUILDS:
            changed = next((kept.changed() for kept in states), "what the programs depend on")
            self.give_up(f"{changed} is another one at almost every run")
            return run.deliver(run.result)
        if self.watch:
            self._warn_of_strangers(run)
        try:
            if run.problem or run.created:
                raise Untraceable(run.problem or f"{run.created} is made anew as it runs")
            kept, result = self._best(run, tensors, args, kwargs)
        except Untraceable as error:
            self.give_up(str(error))
            return run.deliver(run.result)
        states.append(kept)
        del states[:-MAX_STATES]
        return run.deliver(result)

    def _best(
        self, run: EagerRun, tensors: list[Tensor], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Kept, ValuesAndGradients]:
        """The graph of a run in the best way in which it can be built and agrees, and what it gives."""
        problem = ""
        for way in list(self.ways):
            try:
                kept = self.trace(run, tensors, args, kwargs, way)
            except NotCompiled as error:
                problem = str(error)
            else:
                result, problem = compared(kept, run, tensors)
                if result is not None:
                    return kept, result
            if way != self.ways[-1]:
                self._speaker.say(
                    f"runs the flat graph as it is, since {_way_in_words(way)} failed: {problem}"
                )
                self.ways.remove(way)
        raise Untraceable(problem)

    def trace(
        self,
        run: EagerRun,
        tensors: list[Tensor],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        way: dict[str, bool],
    ) -> Kept:
        """The graph of a run."""
        flat, spec = tree_flatten((args, kwargs))

        def function(*inputs: Tensor) -> Outputs:
            remaining = iter(inputs)
            leaves = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in flat]
            new_args, new_kwargs = tree_unflatten(leaves, spec)
            values = self.function(*new_args, **new_kwargs)
            return (*map(as_tensor, values), *[leaf.grad for leaf in run.leaves])

        graph = self._graph(run, function, tensors, way)
        leaves = {id(leaf) for leaf in run.leaves}
        if any(t.requires_grad and t.is_leaf and id(t) not in leaves for t in graph.tensors):
            raise Untraceable("a parameter is used that cannot be found from model and guide")
        if changed := run.guards.changed():
            raise Untraceable(f"{changed} changes as it runs")
        return Kept(graph, run.guards, run.leaves, run.sites, largest_deviation(graph, way, tensors))

    def _graph(
        self, run: EagerRun, function: Callable[..., Outputs], tensors: list[Tensor], way: dict[str, bool]
    ) -> FlatGraph:
        run.before.restore()
        try:
            with without_gradients(run.leaves), torch.enable_grad():
                return FlatGraph(function, tuple(tensors), **way, items_stay=self._items_stay)
        except UntraceableItem:
            self._items_stay = True
        finally:
            run.after.restore()
        return self._graph(run, function, tensors, way)

    def _check(
        self, kept: Kept, key: object, tensors: list[Tensor], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> list[Tensor]:
        """An eager run, against which the graph is held."""
        run = EagerRun(self.function, self.roots, args, kwargs)
        sites = [{name: id(p) for name, p in each.sites.items()} for each in (run, kept)]
        if sites[0] != sites[1] or not run.reaches_only(kept.leaves):
            self._kept[key].remove(kept)  # the programs use other parameters now
            return run.deliver(run.result)
        result, problem = (None, run.problem) if run.problem else compared(kept, run, tensors)
        if result is None:
            self.give_up(problem)
            return run.deliver(run.result)
        kept.checked = True
        return run.deliver(result)

    def _warn_of_strangers(self, run: EagerRun) -> None:
        known = {id(parameter) for parameter in run.sites.values()}
        strangers = sum(
            gradient is not None and id(leaf) not in known
            for leaf, gradient in zip(run.leaves, run.result.gradients, strict=True)
        )
        if run.sites and strangers:
            self._speaker.say(
                f"{strangers} tensors get a gradient but are not the parameters of Pyro's store, "
                "so that SVI does not train them: clear the store of other models "
                "(pyro.clear_param_store()), or register every module"
            )

    def give_up(self, reason: str) -> None:
        """Run eagerly from now on, and say why."""
        self.eager_because = reason
        self._kept.clear()
        self._speaker.as_plain_pyro(reason)


def _flattened(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], object]:
    """The leaves of some arguments, and their kind."""
    flat, spec = (args, None) if not kwargs else tree_flatten((args, kwargs))
    if not all(isinstance(leaf, Tensor) for leaf in flat):
        flat, spec = tree_flatten((args, kwargs))
    return flat, (spec, tuple(map(kind_of, flat)), torch.get_default_dtype())


def kind_of(leaf: object) -> object:
    """What a graph depends on of an argument: all of a tensor but its content, else the value."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.is_conj(), leaf.is_neg()
    if isinstance(leaf, float) and leaf == 0:
        return type(leaf), repr(leaf)  # −0.0 is not 0.0
    return type(leaf), (leaf.start, leaf.stop, leaf.step) if isinstance(leaf, slice) else leaf


def _only_watches(handler: object) -> bool:
    """Whether a handler changes nothing for the programs, as that of SVI around a step."""
    return getattr(handler, "param_only", False) is True


def _way_in_words(way: dict[str, bool]) -> str:
    return " and ".join(name for name, used in way.items() if used)
