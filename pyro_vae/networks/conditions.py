"""What is given beside x as one vector of numbers, on which networks depend."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from pyro_vae.errors import InputError, count, counts


class Conditions(nn.Module):
    """One vector c of each datum: classes one-hot, numbers as they are, one after the other.

    A linear layer of c holds a vector for each class, and is linear in numbers.

    Args:
        kinds: By name, the number of classes of a whole number 0, 1, … (B,), or the shape of one datum's
            numbers: () for (B,), (3,) for (B, 3).

    Raises:
        InputError: where there are none, or a number of classes or a size is not positive.

    >>> conditions = Conditions({"label": 3, "age": ()})
    >>> conditions({"label": torch.tensor([2, 0]), "age": torch.tensor([0.5, 2.0])})
    tensor([[0.0000, 0.0000, 1.0000, 0.5000],
            [1.0000, 0.0000, 0.0000, 2.0000]])
    """

    like: Tensor

    def __init__(self, kinds: Mapping[str, int | tuple[int, ...]]) -> None:
        super().__init__()
        if not kinds:
            raise InputError("expected conditions, got none: name a field, as condition='label'")
        self.kinds = dict(kinds)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the module's type
        self.names = tuple(kinds)
        sizes = []
        for name, kind in kinds.items():
            if isinstance(kind, int):
                sizes.append(count(f"classes of {name}", kind))
                self.register_buffer(f"one_hot_{name}", torch.eye(kind), persistent=False)
            else:
                sizes.append(math.prod(counts(f"shape of {name}", kind)))
        #: Length of c.
        self.size = sum(sizes)

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        """The vector c of each datum: (..., size)."""
        parts = []
        for name, kind in self.kinds.items():
            if isinstance(kind, int):
                parts.append(embedding(given[name], getattr(self, f"one_hot_{name}")))
            else:
                numbers = given[name].to(self.like.dtype)
                parts.append(numbers.flatten(numbers.ndim - len(kind)) if kind else numbers[..., None])
        return torch.cat(parts, -1)

    def check(self, given: Mapping[str, Tensor]) -> None:
        """Refuse classes that are none of those known, and numbers of another shape.

        Raises:
            InputError: with what was expected.
        """
        for name, kind in self.kinds.items():
            value = given[name]
            if not isinstance(kind, int):
                if value.shape[1:] != torch.Size(kind):
                    raise InputError(
                        f"expected {name} of shape (B, *{kind}), got {tuple(value.shape)}: give the numbers "
                        "that the model was made for"
                    )
            elif value.dtype != torch.int64 or int(value.min()) < 0 or int(value.max()) >= kind:
                got = f"{value.min():g} to {value.max():g} of {value.dtype}"
                unseen = value.dtype == torch.int64 and int(value.min()) == -1
                other = ", or choose SemiSupervisedVAE, where -1 is a label that was not seen"
                raise InputError(
                    f"expected {name} as whole numbers (int64) from 0 to {kind - 1}, got {got}: number the "
                    f"classes as in training{other if unseen else ''}"
                )


def conditions_of(component: nn.Module) -> tuple[str, ...]:
    """The names of what a component depends on besides its argument."""
    names: tuple[str, ...] = getattr(component, "conditions", ())
    return names
