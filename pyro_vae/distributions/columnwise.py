"""The law of the entries of a row, each group of columns by a law of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class OfColumns(constraints.Constraint):
    """Each entry in the support of its group, or NaN; discrete where all of them are."""

    def __init__(self, supports: Sequence[Any], places: Sequence[Tensor]) -> None:
        self.supports = tuple(supports)
        self.places = tuple(places)
        self.is_discrete = all(support.is_discrete for support in supports)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each entry is missing or possible: (..., D)."""
        inside = [
            support.check(value.index_select(-1, place))
            for support, place in zip(self.supports, self.places, strict=True)
        ]
        together = torch.cat(inside, -1).index_select(-1, torch.cat(self.places).argsort())
        return together | value.isnan()


class Columnwise(TorchDistribution):
    """p(x) = Π_d p_d(x_d) of batch shape (..., D): each entry of a row by the law of its column.

    Columns of one kind have one law of many entries, so that the work grows with kinds and not with columns.
    An entry that is NaN was not observed: log p(NaN) = 0, with gradient 0. Draws, mean and variance are those
    of all entries. Where some entries have a density and others a probability, p is a density by the product
    of both measures.

    Args:
        laws: Of each group, batch shape (..., n) and event shape ().
        places: Columns of each group, (n,) int64; together each of 0 … D − 1 once.
        inside: A possible entry of each column, (D,), at which the densities of missing ones are taken.

    >>> import pyro.distributions as dist
    >>> laws = [dist.Normal(torch.zeros(1), 1.0), dist.Bernoulli(torch.tensor([0.25, 0.5]))]
    >>> law = Columnwise(laws, [torch.tensor([1]), torch.tensor([0, 2])], torch.zeros(3)).to_event(1)
    >>> law.log_prob(torch.tensor([1.0, torch.nan, 1.0])).exp(), law.mean
    (tensor(0.1250), tensor([0.2500, 0.0000, 0.5000]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        laws: Sequence[Any],
        places: Sequence[Tensor],
        inside: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.laws, self.places, self.inside = tuple(laws), tuple(places), inside
        self._order = torch.cat(self.places).argsort()
        leading = self.laws[0].batch_shape[:-1]
        super().__init__(Size((*leading, len(self._order))), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Columnwise":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(Columnwise, _instance)
        leading = Size(batch_shape)[:-1]
        laws = [law.expand(Size((*leading, law.batch_shape[-1]))) for law in self.laws]
        Columnwise.__init__(new, laws, self.places, self.inside, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        """Of each entry that of its law, and NaN."""
        return OfColumns([law.support for law in self.laws], self.places)

    @property
    def has_rsample(self) -> bool:
        """Whether draws have gradients: where those of all groups have."""
        return all(law.has_rsample for law in self.laws)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log p_d(x_d) of each entry, 0 where it is NaN: (..., D)."""
        if self._validate_args:
            self._validate_sample(value)
        missing = value.isnan()
        there = torch.where(missing, self.inside.to(value.dtype), value)
        found = [
            law.log_prob(there.index_select(-1, place))
            for law, place in zip(self.laws, self.places, strict=True)
        ]
        return torch.where(missing, 0.0, self._together(found))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of all entries."""
        with torch.no_grad():
            return self._together([law.sample(Size(sample_shape)) for law in self.laws])

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of all entries, with gradients."""
        return self._together([law.rsample(Size(sample_shape)) for law in self.laws])

    @property
    def mean(self) -> Tensor:
        """Of each entry; of classes that of their codes, which have no order."""
        return self._together([law.mean for law in self.laws])

    @property
    def variance(self) -> Tensor:
        """Of each entry."""
        return self._together([law.variance for law in self.laws])

    def _together(self, groups: Sequence[Tensor]) -> Tensor:
        """Numbers of the groups (..., n) in the order of the columns (..., D)."""
        leading = torch.broadcast_shapes(*(group.shape[:-1] for group in groups))
        whole = [group.expand(*leading, group.shape[-1]) for group in groups]
        return torch.cat(whole, -1).index_select(-1, self._order)


class Codes(constraints.Constraint):
    """Whole numbers from 0 to below a number for each entry."""

    is_discrete = True

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is a code of its column."""
        return (value == value.round()) & (value >= 0) & (value < self.numbers)


class Categories(TorchDistribution):
    """P(x = c) = softmax(l)_c on the codes c = 0 … C − 1, with a C of its own for each column.

    Args:
        logits: l, (..., n, C) with the largest C; those from the C of a column on count for nothing.
        numbers: C of each column, (n,).

    >>> law = Categories(torch.zeros(2, 3), torch.tensor([3, 2]))
    >>> law.log_prob(torch.tensor([2.0, 1.0])).exp(), law.mean
    (tensor([0.3333, 0.5000]), tensor([1.0000, 0.5000]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, logits: Tensor, numbers: Tensor, validate_args: bool | None = None) -> None:
        self.numbers = numbers
        unused = torch.arange(logits.shape[-1], device=logits.device) >= numbers[:, None]
        self.logits = logits.masked_fill(unused, -torch.inf).log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Categories":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(Categories, _instance)
        new.numbers = self.numbers
        new.logits = self.logits.expand(*batch_shape, self.logits.shape[-1])
        super(Categories, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The codes of each column."""
        return Codes(self.numbers)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x)."""
        if self._validate_args:
            self._validate_sample(value)
        leading = torch.broadcast_shapes(value.shape, self.logits.shape[:-1])
        code = value.expand(leading)[..., None].long()
        logits = self.logits.expand(*leading, self.logits.shape[-1])
        return logits.gather(-1, code)[..., 0]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of codes, in the type of the logits."""
        shape = self._extended_shape(Size(sample_shape))
        with torch.no_grad():
            probs = self.logits.exp().expand(*shape, self.logits.shape[-1])
            codes = probs.reshape(-1, probs.shape[-1]).multinomial(1, replacement=True)
        return codes.reshape(shape).to(self.logits.dtype)

    @property
    def probs(self) -> Tensor:
        """Of each class: (..., n, C)."""
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        """E[x] of the codes, which have no order."""
        return (self.probs * self._codes).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Var[x] of the codes."""
        return (self.probs * (self._codes - self.mean[..., None]).square()).sum(-1)

    @property
    def _codes(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], device=self.logits.device).to(self.logits.dtype)
