"""A function without gradients as flat graphs, one for each shape."""

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

from pyro_vae.compiled.graph import FlatGraph
from pyro_vae.compiled.policy import OTHER_OPERATIONS, Speaker, agree, tolerance
from pyro_vae.compiled.reads import Untraceable
from pyro_vae.errors import one_line
from pyro_vae.randomness import own_draws


class FlatFunction:
    """A function of tensors, run as a flat graph.

    The first result of each graph is held against that of the function, by the same random numbers. Where
    there is no graph or it does not agree, the function itself runs from then on, and a warning says why.

    Args:
        fast: Use operations that are faster and round differently, on a CPU.
        inductor: Compile the graphs.
        who: Whose warning it is.
    """

    def __init__(self, *, fast: bool, inductor: bool, who: str) -> None:
        self.fast, self.inductor = fast, inductor
        self._speaker = Speaker(who)
        self.eager = False
        self._graphs: dict[Hashable, FlatGraph] = {}

    def __call__(self, function: Callable[..., Tensor], args: Sequence[Tensor], key: Hashable) -> Tensor:
        """What `function` gives; functions of one key differ in nothing but the shapes of their arguments."""
        if self.eager:
            return function(*args)
        full = (key, *((arg.shape, arg.stride(), arg.dtype, arg.device) for arg in args))
        if full not in self._graphs or self._graphs[full].numbers.changed():
            self._build(function, args, full)
        if self.eager:
            return function(*args)
        (result,) = self._graphs[full](*args)
        assert result is not None
        return result

    def _build(self, function: Callable[..., Tensor], args: Sequence[Tensor], key: Hashable) -> None:
        """Make the graph, or give up, leaving the random numbers as they are."""
        device = args[0].device
        with own_draws(device):
            expected = function(*args)
        try:
            with own_draws(device):
                graph = FlatGraph(
                    lambda *args: (function(*args),), tuple(args), fast=self.fast, inductor=self.inductor
                )
            with own_draws(device):
                (result,) = graph(*args)
            close = agree(result, expected, tolerance(graph.rounding, OTHER_OPERATIONS), size=1.0)
            problem = "" if close else "the graph gives other values"
        except Untraceable as error:
            problem = str(error)
        except Exception as error:  # of a compiler
            problem = one_line(error)
        if not problem:
            self._graphs[key] = graph
        elif self.inductor:
            self.inductor = False
            self._speaker.without_inductor(problem)
            self._build(function, args, key)
        else:
            self.eager = True
            self._speaker.as_plain_pyro(problem)
