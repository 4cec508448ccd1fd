"""What `fit` needs of what it trains."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.nn.modules.batchnorm import BatchNorm1d

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError
from pyro_vae.networks import Network
from pyro_vae.programs import Program
from pyro_vae.programs.running import check_signature
from pyro_vae.ranks import here
from pyro_vae.training.data import Splits


class Trained(ABC):
    """A model and a guide in training.

    Contract for the author of the next one: `known` are the parameters that are trained, or None where the
    first step has to create them; `meet` takes those that it has used. `state_dict` holds all that training
    changes, on which a continuation depends.

    Args:
        given: What the user gave, as callbacks get it.
        model: Pyro program of p(x, z).
        guide: Pyro program of q(z|x).
    """

    #: What is trained, in the order of the optimiser; None until it is known.
    known: list[Tensor] | None
    #: Modules that the programs use, none of them within another.
    modules: list[nn.Module]
    device: torch.device
    #: Of data that are no whole numbers; None where they stay as they are.
    dtype: torch.dtype | None
    #: Whether `check` has run both programs, so that they are known to have an ELBO.
    has_run = False
    #: The part of the training over which the weight of the KL term rises by default.
    warm_up_share = 0.0

    def __init__(self, given: Any, model: Program, guide: Program) -> None:
        self.given, self.model, self.guide = given, model, guide

    @abstractmethod
    def check(self, splits: Splits) -> None:
        """Refuse data that do not fit."""

    @abstractmethod
    def objective(self, objective: Callable[..., ELBO]) -> Callable[..., ELBO]:
        """What makes the objective from the options that `make_objective` gives."""

    @abstractmethod
    def store(self) -> AbstractContextManager[object]:
        """Around all that names parameters in Pyro's store."""

    @abstractmethod
    def place(self, batch: Batch) -> Batch:
        """Data on the device and in the type of the parameters."""

    def check_signatures(self, splits: Splits) -> None:
        """Refuse programs that do not take what the data give, or need what they do not give."""
        batch = self.place(splits.train.take(slice(0, 2)))
        remedy = (
            "give Batch(x, {'y': y}) by the names of their arguments, or name the fields of a Dataset that "
            "they get, as data.giving('label')"
        )
        for what, program in (("guide", self.guide), ("model", self.model)):
            check_signature(what, program, batch, remedy)

    @abstractmethod
    def meet(self, params: Iterable[Tensor]) -> list[Tensor]:
        """Those parameters, of all that the first step has used, that are trained."""

    @abstractmethod
    def used(self, params: set[Tensor], held: set[Tensor]) -> set[Tensor]:
        """What the optimiser is to move where a step has used `params`; refused where it holds others."""

    @abstractmethod
    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """What is trained, by name."""

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """The modules that a checkpoint describes, by name."""
        return ()

    @abstractmethod
    def leaves(self) -> Iterable[Tensor]:
        """All tensors that may have a gradient."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers, by name."""

    @abstractmethod
    def load_state_dict(self, state: Any) -> object:
        """Take over what `state_dict` gave, in place."""

    def train(self) -> None:
        """Put all modules into training mode."""
        for module in self.modules:
            module.train()

    def eval(self) -> None:
        """Put all modules into evaluation mode."""
        for module in self.modules:
            module.eval()

    def drop_gradients(self) -> None:
        """Leave no gradient behind, nor take one over."""
        for _, parameter in self.named_parameters():
            parameter.grad = None

    def check_gradients(self, held: set[Tensor]) -> None:  # noqa: B027
        """Refuse a gradient in what the optimiser does not hold, after the first step."""

    def check_store(self, held: set[Tensor]) -> None:  # noqa: B027
        """Refuse a gradient in what has come into the store after the first step."""

    def check_places(self, batch_size: int, number: int) -> None:  # noqa: B027
        """Refuse batches of `batch_size` data from `number` where a program is made for other ones."""

    @contextmanager
    def gradients_aside(self) -> Iterator[None]:
        """Without any gradient; what is not trained gets its own back."""
        before = [(leaf, leaf.grad) for leaf in self.leaves() if leaf.grad is not None]
        for leaf, _ in before:
            leaf.grad = None
        try:
            yield
        finally:
            self.drop_gradients()
            trained = {id(parameter) for _, parameter in self.named_parameters()}
            for leaf, gradient in before:
                if id(leaf) not in trained:
                    leaf.grad = gradient

    def check_precision(self, precision: str) -> None:
        """Refuse bfloat16 where no network would be computed in it."""
        networks = (each for root in self.modules for each in root.modules() if isinstance(each, Network))
        if precision == "bfloat16" and next(networks, None) is None:
            raise InputError(
                "precision 'bfloat16' is that of networks made by an Architecture, as MLP, got programs "
                "without one: leave it out, or use torch.autocast within the programs"
            )

    def check_last_batch(self, batch_size: int, number: int, steps: int, ranks: int) -> None:
        """Refuse a batch, or a rank's part, of one for batch norm, which would end training in an epoch."""
        alone = _last(number, batch_size) < 2 * ranks and steps * batch_size >= number
        kinds = (type(each) for root in self.modules for each in root.modules())
        norm = next((kind for kind in kinds if issubclass(kind, BatchNorm1d)), None)
        if alone and norm is not None:
            raise InputError(
                f"{norm.__name__} needs two data or more, but the last of the batches of {batch_size} from "
                f"{number} has one{' for a rank' if ranks > 1 else ''}: give "
                f"{_remedy(number, batch_size, 2 * ranks)}"
            )


def _last(number: int, batch_size: int) -> int:
    """Data in the last batch of an epoch."""
    return number % batch_size or batch_size


def _remedy(number: int, batch_size: int, least: int) -> str:
    """The batch size next to this one whose last batch has `least` data or more."""
    sizes = (size for size in range(2, number + 1) if _last(number, size) >= least)
    nearest = min(sizes, key=lambda size: abs(size - batch_size), default=0)
    return f"batch_size={nearest}" if nearest else "more data"


def resolve_device(device: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one, that of the rank, else MPS, else the CPU.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    if device == "cuda" and here().several:
        device = f"cuda:{here().local}"
    try:
        place = torch.zeros(1, device=device)
        place.item()  # a device without data, such as meta, cannot train
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"expected a device such as auto, cpu or cuda:0, got {device!r} ({reason})"
        ) from error
    return place.device
