"""Densities of columns of one kind, all at once; each is exchanged for another by column."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, Literal, Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.columns import Columns, Kind
from pyro_vae.distributions import Affine, Categories
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.counts import LOG_DISPERSION_BOUNDS, NegativeBinomial, Poisson
from pyro_vae.networks import FreeNumbers, bounded, check_bounds, head

#: Range of the logarithm of a count's mean over that of the training data, approached smoothly.
LOG_RATIO_BOUNDS = (-12.0, 12.0)

#: Range of log(df − 2) of a learned Student's t, so that it has a variance, approached smoothly.
LOG_DF_BOUNDS = (-6.0, 6.0)


class ColumnDensity(nn.Module, ABC):
    """p(x_d|z) of n columns of one kind: made by `ColumnsLikelihood`.

    Contract for the author of the next one: the constructor takes choices only, each with a default, so that
    `MyDensity()` says which density is meant; `takes` names the kinds of columns that it is one of. `set_up`
    makes parameters and heads for the columns; `forward` takes the decoder's features (..., F) and returns a
    distribution of batch shape (..., n) and event shape (), in the columns' own units: log p has the Jacobian
    of any standardisation in it. Numbers of the columns that it needs are buffers.

    >>> from pyro_vae import MLP, Column
    >>> class LaplaceColumns(ColumnDensity):
    ...     takes = ("real",)
    ...     def set_up(self, decoder, columns):
    ...         self.register_buffer("middle", torch.tensor([column.location for column in columns]))
    ...         self.register_buffer("unit", torch.tensor([column.scale for column in columns]))
    ...         self.loc = head(decoder, (len(columns),))
    ...     def forward(self, features):
    ...         return dist.Laplace(self.middle + self.unit * self.loc(features), self.unit)
    >>> columns = (Column("height", "real", location=1.7, scale=0.1),)
    >>> law = LaplaceColumns().made_for(MLP().decoder(5, (1,)), columns)
    >>> px = law(torch.zeros(3, 200))
    >>> px.batch_shape, px.event_shape
    (torch.Size([3, 1]), torch.Size([]))
    """

    #: Kinds of columns.
    takes: ClassVar[tuple[Kind, ...]] = ()
    #: Its support, for messages.
    support_in_words: ClassVar[str] = "possible values"

    def made_for(self, decoder: nn.Module, columns: Columns) -> Self:
        """The same choices with parameters for these columns.

        Raises:
            InputError: where a column is of another kind.
        """
        for column in columns:
            if column.kind not in self.takes:
                raise InputError(
                    f"{type(self).__name__} is a density of {' or '.join(self.takes)} columns, got "
                    f"{column.name!r} of kind {column.kind}: choose another density, or give the table "
                    f"columns={{{column.name!r}: {self.takes[0]!r}}}"
                )
        made = deepcopy(self)
        made.set_up(decoder, columns)
        return made

    @abstractmethod
    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """Make parameters, heads on the decoder's features, and buffers."""

    @abstractmethod
    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""

    def _keep(self, columns: Columns, *names: str) -> None:
        """Numbers of the columns as buffers (n,)."""
        for name in names:
            numbers = torch.tensor([getattr(column, name) for column in columns], dtype=torch.float64)
            self.register_buffer(name, numbers.to(torch.get_default_dtype()))


class NormalColumns(ColumnDensity):
    """N(x_d; a_d + s_d m_d(z), s_d² σ_d²), with a and s mean and standard deviation of the training data.

    Args:
        scale: Of σ: `per_column` (one learned number for each column) or `per_datum` (by the network, for
            each entry).
        log_scale_bounds: Range of log σ, approached smoothly.

    >>> from pyro_vae import MLP, Column
    >>> column = Column("height", "real", location=1.7, scale=0.1)
    >>> law = NormalColumns().made_for(MLP().decoder(5, (1,)), (column,))
    >>> law(torch.zeros(3, 200)).batch_shape
    torch.Size([3, 1])
    """

    takes: ClassVar[tuple[Kind, ...]] = ("real", "heavy_tailed")
    support_in_words = "finite numbers"
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        scale: Literal["per_column", "per_datum"] = "per_column",
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__()
        if scale not in ("per_column", "per_datum"):
            raise InputError(f"scale expects 'per_column' or 'per_datum', got {scale!r}")
        self.per_datum = scale == "per_datum"
        self.log_scale_bounds = check_bounds(log_scale_bounds)

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """Heads for m, and for log σ where it is per datum."""
        self._keep(columns, "location", "scale")
        self.loc = head(decoder, (len(columns),))
        self.log_scale: nn.Module
        if self.per_datum:
            self.log_scale = head(decoder, (len(columns),))
        else:
            self.log_scale = FreeNumbers(torch.zeros(len(columns)))

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        return Affine(self._standard(*self._placed(features)), self.location, self.scale)

    def _placed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """M and σ of the standardised entries."""
        return self.loc(features), bounded(self.log_scale(features), self.log_scale_bounds).exp()

    def _standard(self, loc: Tensor, scale: Tensor) -> Any:
        """The law of (x − a) / s."""
        return dist.Normal(loc, scale)


class StudentTColumns(NormalColumns):
    """Student's t of the standardised entries, of location m_d(z), scale σ_d and ν_d degrees of freedom.

    For numbers with outliers: the log density falls by (ν + 1) log|x|, and not by a square.

    Args:
        df: ν, a fixed positive number, or None for one learned for each column, above 2.
        scale: Of σ: `per_column` (one learned number for each column) or `per_datum` (by the network, for
            each entry).
        log_scale_bounds: Range of log σ, approached smoothly.

    >>> from pyro_vae import MLP, Column
    >>> column = Column("income", "heavy_tailed", location=3e4, scale=2e4)
    >>> law = StudentTColumns(df=3.0).made_for(MLP().decoder(5, (1,)), (column,))
    >>> law(torch.zeros(3, 200)).batch_shape
    torch.Size([3, 1])
    """

    takes: ClassVar[tuple[Kind, ...]] = ("heavy_tailed", "real")

    def __init__(
        self,
        *,
        df: float | None = None,
        scale: Literal["per_column", "per_datum"] = "per_column",
        log_scale_bounds: tuple[float, float] = (-6.0, 6.0),
    ) -> None:
        super().__init__(scale=scale, log_scale_bounds=log_scale_bounds)
        if df is not None and not 0 < df < math.inf:
            raise InputError(f"df expects a positive number, or None for one to be learned, got {df}")
        self.df = df

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """As the normal, and log(ν − 2) where it is learned."""
        super().set_up(decoder, columns)
        learned = self.df is None
        self.log_df = FreeNumbers(torch.ones(len(columns))) if learned else None  # 2 + e degrees at first

    def _standard(self, loc: Tensor, scale: Tensor) -> Any:
        if self.log_df is None:
            assert self.df is not None
            df = torch.full_like(loc[..., :1], self.df)
        else:
            df = 2 + bounded(self.log_df(), LOG_DF_BOUNDS).exp()
        return dist.StudentT(df, loc, scale)


class LogNormalColumns(NormalColumns):
    """Log x_d ~ N(a_d + s_d m_d(z), s_d² σ_d²), with a and s those of log x in the training data.

    log p(x) = log N(log x) − log x, per unit of x.

    Args:
        scale: Of σ: `per_column` (one learned number for each column) or `per_datum` (by the network, for
            each entry).
        log_scale_bounds: Range of log σ, approached smoothly.

    >>> from pyro_vae import MLP, Column
    >>> column = Column("price", "positive", location=4.0, scale=0.7)
    >>> law = LogNormalColumns().made_for(MLP().decoder(5, (1,)), (column,))
    >>> law(torch.zeros(3, 200)).sample().min() > 0
    tensor(True)
    """

    takes: ClassVar[tuple[Kind, ...]] = ("positive",)
    support_in_words = "positive numbers"

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        loc, scale = self._placed(features)
        return dist.LogNormal(self.location + self.scale * loc, self.scale * scale)


class CountColumns(ColumnDensity):
    """A probability of counts, of mean μ_d(z) = m_d · exp(the network's), m the mean of the training data."""

    takes = ("count",)
    support_in_words = "counts from 0"
    typical: Tensor

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """A head for log μ."""
        self._keep(columns, "typical")
        self.log_ratio = head(decoder, (len(columns),))

    def _log_means(self, features: Tensor) -> Tensor:
        smallest = 1e-2  # of a column of zeros
        return self.typical.clamp(min=smallest).log() + bounded(self.log_ratio(features), LOG_RATIO_BOUNDS)


class PoissonColumns(CountColumns):
    """Poisson(x_d; μ_d(z)), of variance μ.

    >>> from pyro_vae import MLP, Column
    >>> law = PoissonColumns().made_for(MLP().decoder(5, (1,)), (Column("visits", "count", typical=3.0),))
    >>> law(torch.zeros(3, 200)).batch_shape
    torch.Size([3, 1])
    """

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        return Poisson(self._log_means(features).exp())


class NegativeBinomialColumns(CountColumns):
    """NB(x_d; μ_d(z), θ_d), of variance μ + μ²/θ, with one learned θ for each column.

    >>> from pyro_vae import MLP, Column
    >>> columns = (Column("visits", "count", typical=3.0),)
    >>> law = NegativeBinomialColumns().made_for(MLP().decoder(5, (1,)), columns)
    >>> law(torch.zeros(3, 200)).batch_shape
    torch.Size([3, 1])
    """

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """A head for log μ, and log θ."""
        super().set_up(decoder, columns)
        # that of the training data: (variance − mean) / mean² is about exp(s²) − 1, with s that of logarithms
        start = torch.tensor([-math.log(math.expm1(column.scale**2)) for column in columns])
        self.log_dispersion = FreeNumbers(start.clamp(-4, 4))

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        log_dispersion = bounded(self.log_dispersion(), LOG_DISPERSION_BOUNDS)
        return NegativeBinomial(log_dispersion.exp(), logits=self._log_means(features) - log_dispersion)


class BernoulliColumns(ColumnDensity):
    """Bernoulli(x_d; σ(l_d(z))) of 0 and 1, starting about the share of 1 in the training data.

    >>> from pyro_vae import MLP, Column
    >>> columns = (Column("smokes", "yes_no", ("no", "yes"), location=0.3),)
    >>> BernoulliColumns().made_for(MLP().decoder(5, (1,)), columns)(torch.zeros(3, 200)).batch_shape
    torch.Size([3, 1])
    """

    takes = ("yes_no",)
    support_in_words = "0 or 1"
    location: Tensor

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """A head for the logits."""
        self._keep(columns, "location")
        self.logits = head(decoder, (len(columns),))

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        return dist.Bernoulli(logits=self.location.clamp(0.01, 0.99).logit() + self.logits(features))


class CategoricalColumns(ColumnDensity):
    """softmax(l_d(z))_c of the class c of each column.

    >>> from pyro_vae import MLP, Column
    >>> columns = (Column("city", "category", ("Bonn", "Kiel", "Ulm")), Column("sex", "category", ("f", "m")))
    >>> CategoricalColumns().made_for(MLP().decoder(5, (2,)), columns)(torch.zeros(3, 200)).probs.shape
    torch.Size([3, 2, 3])
    """

    takes = ("category", "yes_no")
    support_in_words = "codes of its classes"
    numbers: Tensor
    places: Tensor

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        """A head for the logits of all classes of all columns, which are then put side by side."""
        numbers = [len(column.classes) for column in columns]
        starts = [sum(numbers[:place]) for place in range(len(numbers))]
        places = [
            [start + min(code, number - 1) for code in range(max(numbers))]
            for start, number in zip(starts, numbers, strict=True)
        ]
        self.register_buffer("numbers", torch.tensor(numbers), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)  # (n, C), the last repeated
        self.logits = head(decoder, (sum(numbers),))

    def forward(self, features: Tensor) -> Any:
        """The law of the columns: batch shape (..., n)."""
        side_by_side = self.logits(features).index_select(-1, self.places.flatten())
        return Categories(side_by_side.unflatten(-1, self.places.shape), self.numbers)


#: The density of each kind of column, where no other is chosen.
DENSITIES: Mapping[str, type[ColumnDensity]] = {
    "real": NormalColumns,
    "heavy_tailed": StudentTColumns,
    "positive": LogNormalColumns,
    "count": NegativeBinomialColumns,
    "yes_no": BernoulliColumns,
    "category": CategoricalColumns,
}
