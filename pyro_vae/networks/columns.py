"""An encoder of rows of a mixed table."""

import math

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import embedding

from pyro_vae.columns import WORDS, Column, Columns
from pyro_vae.errors import InputError
from pyro_vae.networks.base import Shape, declared_shape

#: Numbers for each class of a category, at the most.
_WIDEST = 8


class ColumnsEncoder(nn.Module):
    """A network that sees each column as its kind asks for.

    Real numbers, logarithms of positive ones, and log(1 + x) of counts are standardised by the mean and
    standard deviation of the training data; yes_no is 0 and 1; each class of a category is a learned vector
    (an embedding). What is missing is 0 in all of them. With `sees_mask` the network sees, after all these,
    which entries are observed.

    Args:
        network: An encoder of inputs of shape `seen_shape(columns, ...)`.
        columns: Of the table.
        sees_mask: Whether the network sees which entries are observed.
        beside: How many numbers follow the D entries, to be seen as they are.

    Raises:
        InputError: where the network takes inputs of another shape.

    >>> from pyro_vae import MLP, Column
    >>> columns = (Column("age", "count"), Column("city", "category", ("Bonn", "Kiel", "Ulm")))
    >>> ColumnsEncoder.seen_shape(columns)
    (4,)
    >>> encoder = ColumnsEncoder(MLP().encoder((4,)), columns)
    >>> encoder(torch.tensor([[40.0, 2.0], [torch.nan, 0.0]])).shape
    torch.Size([2, 200])
    """

    location: Tensor
    scale: Tensor
    numbers: Tensor
    starts: Tensor
    plain: Tensor
    words: Tensor
    logs: Tensor
    ones: Tensor

    def __init__(
        self, network: nn.Module, columns: Columns, *, sees_mask: bool = False, beside: int = 0
    ) -> None:
        super().__init__()
        self.network, self.sees_mask = network, sees_mask
        self.input_shape: Shape = (len(columns) + beside,)
        self.output_shape = declared_shape(network, "output_shape")
        wanted, taken = self.seen_shape(columns, sees_mask, beside), declared_shape(network, "input_shape")
        if taken != wanted:
            raise InputError(f"expected an encoder of shape {wanted} for these columns, got {taken}")
        self.num_columns = len(columns)
        plain = [place for place, column in enumerate(columns) if column.kind != "category"]
        words = _categories(columns)
        logs, ones = ([columns[place].kind == kind for place in plain] for kind in ("positive", "count"))
        numbers = [len(columns[place].classes) for place in words]
        for name, value in {
            "plain": torch.tensor(plain, dtype=torch.int64),
            "words": torch.tensor(words, dtype=torch.int64),
            "logs": torch.tensor(logs, dtype=torch.bool),
            "ones": torch.tensor(ones, dtype=torch.bool),
            "numbers": torch.tensor(numbers, dtype=torch.int64),
            "starts": torch.tensor([0, *numbers[:-1]], dtype=torch.int64).cumsum(0)[: len(words)],
        }.items():
            self.register_buffer(name, value, persistent=False)
        for name in ("location", "scale"):
            of_plain = [_seen_by(columns[place])[name] for place in plain]
            self.register_buffer(name, torch.tensor(of_plain, dtype=torch.get_default_dtype()))
        width = _width(columns)
        self.vectors = nn.Parameter(torch.randn(sum(numbers), width)) if words else None

    @staticmethod
    def seen_shape(columns: Columns, sees_mask: bool = False, beside: int = 0) -> Shape:
        """The shape of what the network sees."""
        words = len(_categories(columns))
        mask = len(columns) if sees_mask else 0
        return (len(columns) - words + words * _width(columns) + mask + beside,)

    def forward(self, x: Tensor) -> Tensor:
        """The features of x: (..., D) to (..., *output_shape)."""
        if x.shape[-1:] != Size(self.input_shape):
            raise InputError(
                f"the network expects inputs of shape {self.input_shape}, got a tensor of shape "
                f"{tuple(x.shape)}: build the network for the shape of the data"
            )
        rows, beside = x[..., : self.num_columns], x[..., self.num_columns :]
        missing = rows.isnan()
        seen = [self._numbers(rows.index_select(-1, self.plain))]
        if self.vectors is not None:
            seen.append(self._classes(rows.index_select(-1, self.words)))
        if self.sees_mask:
            seen.append((~missing).to(x.dtype))
        features: Tensor = self.network(torch.cat([*seen, beside], -1))
        return features

    def _numbers(self, x: Tensor) -> Tensor:
        """Standardised numbers, 0 where missing."""
        safe = torch.where(x.isnan(), 1.0, x)
        positive = safe.clamp(min=torch.finfo(x.dtype).tiny)
        change = torch.where(
            self.logs, positive.log(), torch.where(self.ones, safe.clamp(min=0).log1p(), safe)
        )
        standard = (change - self.location) / self.scale
        return torch.where(x.isnan(), 0.0, standard)

    def _classes(self, x: Tensor) -> Tensor:
        """The vectors of classes side by side, 0 where missing."""
        assert self.vectors is not None
        missing = x.isnan()
        codes = torch.where(missing, 0.0, x).round().long().clamp(min=0)
        vectors = embedding(torch.minimum(codes, self.numbers - 1) + self.starts, self.vectors)
        return torch.where(missing[..., None], 0.0, vectors).flatten(-2)


def _categories(columns: Columns) -> list[int]:
    """The places of those that are seen as vectors."""
    return [place for place, column in enumerate(columns) if column.kind == "category"]


def _seen_by(column: Column) -> dict[str, float]:
    """By what an entry is standardised."""
    if column.kind in WORDS:
        return {"location": 0.0, "scale": 1.0}
    return {"location": column.location, "scale": column.scale}


def _width(columns: Columns) -> int:
    """The length of the vector of a class: about twice the root of the largest number of classes, up to 8."""
    largest = max((len(column.classes) for column in columns if column.kind == "category"), default=1)
    return min(_WIDEST, largest, 2 * math.isqrt(largest) + 1)
