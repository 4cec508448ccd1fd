"""Pyro programs on a part of a batch, with the random numbers of all of it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.batch import Program

#: What is given to programs beside their own: where their data are in the whole batch.
PLACE = "place in the whole batch"


class Place(NamedTuple):
    """Where a part of a batch is in it."""

    #: Its first datum.
    start: int
    #: Data of the whole batch.
    total: int


class Share:
    """A Pyro program on a part of a batch: all parts together are the program on the whole batch.

    A draw at a site in the plate of the data is made for the whole batch, and its own rows are taken, so that
    it does not depend on the parts. A site outside of that plate is there once in the whole batch, but once
    in each part, too: its log density has the weight b/B, as has that of a plate which is scaled to a
    fixed number of data. So losses and gradients of all parts add up to those of the whole.

    Args:
        program: With a plate of the data; called with `PLACE` beside what is given to it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, x: Tensor, **given: Any) -> Any:
        """The program of x, with all else that is given."""
        place = Place(*given.pop(PLACE))
        if len(x) == place.total:
            return self.program(x, **given)
        with _AsPart(len(x), place):
            return self.program(x, **given)


class Unplaced:
    """A function of x and what is given, called as a `Share` is."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, x: Tensor, **given: Any) -> Tensor:
        """The function of x, with all else that is given."""
        given.pop(PLACE)
        return self.function(x, **given)


def plates(trace: Trace) -> dict[str, int]:
    """The plates of a run, and how many places each has."""
    frames = (frame for site in trace.nodes.values() for frame in site.get("cond_indep_stack", ()))
    return {frame.name: frame.size for frame in frames if frame.vectorized}


class _AsPart(Messenger):
    """Handler of the sites of a program on `size` data."""

    def __init__(self, size: int, place: Place) -> None:
        super().__init__()
        self.size, self.place = size, place
        #: The mode of the draw that is being made.
        self.drawing = ExitStack()

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if site_is_subsample(message):
            return
        plates = [frame for frame in message["cond_indep_stack"] if frame.vectorized]
        of_data = [frame for frame in plates if frame.size == self.size]
        frame = max(of_data, key=lambda each: each.dim, default=None)
        if frame is None or frame.full_size not in (None, frame.size):
            message["scale"] = message["scale"] * (self.size / self.place.total)
        if frame is not None and not message["is_observed"]:
            self.drawing.enter_context(_RowsOfTheWhole(message, frame.dim, self.place))

    def _pyro_post_sample(self, message: dict[str, Any]) -> None:
        self.drawing.close()

    def __exit__(self, *error: Any) -> Any:
        self.drawing.close()
        return super().__exit__(*error)


class _RowsOfTheWhole(TorchDispatchMode):
    """Draws random numbers for the whole batch, and takes the rows of a part.

    Args:
        message: Of the site, whose distribution is read when it draws: until then plates may expand it.
        dim: Axis of the data, counted from the right of the batch shape.
        place: Of the part.
    """

    def __init__(self, message: dict[str, Any], dim: int, place: Place) -> None:
        super().__init__()
        self.message, self.dim, self.place = message, dim, place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        shape = tuple(self.message["fn"].batch_shape)
        axis = len(shape) + self.dim
        if torch.Tag.nondeterministic_seeded not in func.tags or not any(_begins(arg, shape) for arg in args):
            return func(*args, **kwargs)
        whole = [self._whole(arg, axis) if _begins(arg, shape) else arg for arg in args]
        drawn = func(*whole, **kwargs).narrow(axis, self.place.start, shape[axis])
        return args[0].copy_(drawn) if func.overloadpacket.__name__.endswith("_") else drawn

    def _whole(self, arg: Any, axis: int) -> Any:
        """A size, or a parameter of the draw, for the whole batch; rows of other parts are any."""
        if not isinstance(arg, Tensor):
            return [*arg[:axis], self.place.total, *arg[axis + 1 :]]
        places = torch.arange(self.place.total, device=arg.device) - self.place.start
        return arg.index_select(axis, places.clamp(0, arg.shape[axis] - 1))


def _begins(arg: object, shape: tuple[int, ...]) -> bool:
    """Whether a size, or that of a tensor, begins with a batch shape."""
    size = arg.shape if isinstance(arg, Tensor) else arg
    return isinstance(size, list | tuple) and tuple(size[: len(shape)]) == shape
