"""The likelihood of a row of a mixed table."""

from collections.abc import Iterable, Mapping

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.columns import KINDS, Columns
from pyro_vae.distributions import Columnwise
from pyro_vae.errors import InputError
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.likelihoods.densities import DENSITIES, ColumnDensity
from pyro_vae.networks import Shape, declared_shape


class ColumnsLikelihood(Likelihood):
    """p(x|z) = Π_d p_d(x_d|z), each column of a table by a density or probability of its own kind.

    As in Nazábal, Olmos, Ghahramani & Valera, "Handling incomplete heterogeneous data using VAEs" (2020).
    Missing entries (NaN) are left out. All columns of one density are one distribution, so that a thousand
    columns cost no loop. log p(x|z) is in nats, per unit of each column that has a density: numbers are
    standardised inside, by buffers of the training data, and the Jacobian is counted.

    | kind | density | others |
    |---|---|---|
    | `real` | `NormalColumns` | `StudentTColumns` |
    | `heavy_tailed` | `StudentTColumns` | `NormalColumns` |
    | `positive` | `LogNormalColumns` | |
    | `count` | `NegativeBinomialColumns` | `PoissonColumns` |
    | `yes_no` | `BernoulliColumns` | `CategoricalColumns` |
    | `category` | `CategoricalColumns` | |

    Args:
        decoder: Network from z to features, to which the heads are added.
        data_shape: (D,).
        columns: Of the table, D of them: `Table.columns`.
        densities: By the name of a column, or by kind, a density in place of the one above, as
            `{"income": StudentTColumns(df=3.0), "count": PoissonColumns()}`.

    Raises:
        InputError: where there are no columns, or not as many as entries; where a density is given for what
            is no column or kind, or is none of that kind.

    >>> from pyro_vae import MLP, SklearnTable
    >>> table = SklearnTable("wine")
    >>> likelihood = ColumnsLikelihood(MLP().decoder(5, table.data_shape), table.data_shape, table.columns)
    >>> z, x = torch.zeros(17, 5), table.test.batch()
    >>> likelihood(z).log_prob(x).shape
    torch.Size([17])
    >>> x[:, 0] = torch.nan  # p(x) of the others
    >>> likelihood(z).log_prob(x).isfinite().all()
    tensor(True)
    """

    takes_missing = True
    inside: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        data_shape: Iterable[int],
        columns: Columns,
        *,
        densities: dict[str, ColumnDensity] | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.columns = decoder, tuple(columns)
        self.data_shape: Shape = tuple(data_shape)
        if self.data_shape != (len(self.columns),):
            raise InputError(
                f"expected a column for each entry of data of shape {self.data_shape}, got "
                f"{len(self.columns)}: use a Table, or another likelihood"
            )
        self.groups = nn.ModuleList()
        groups = _groups(self.columns, densities or {})
        for number, (density, places) in enumerate(groups):
            self.groups.append(density.made_for(decoder, tuple(self.columns[place] for place in places)))
            self.register_buffer(f"places_{number}", torch.tensor(places), persistent=False)
        inside = [round(each.typical) if each.kind == "count" else each.typical for each in self.columns]
        self.register_buffer(
            "inside", torch.tensor(inside, dtype=torch.get_default_dtype()), persistent=False
        )

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z): batch shape (...), event shape (D,)."""
        features = self.decoder(z)
        places = [getattr(self, f"places_{number}") for number in range(len(self.groups))]
        return Columnwise([group(features) for group in self.groups], places, self.inside).to_event(1)

    @property
    def density_in_words(self) -> str:
        """What p(x|z) is: a density of some columns in their own units, times a probability of the others."""
        features = self.inside.new_zeros(declared_shape(self.decoder, "output_shape"))
        total = len(self.columns)
        dense = sum(
            len(getattr(self, f"places_{number}"))
            for number, group in enumerate(self.groups)
            if not group(features).support.is_discrete
        )
        if dense == total == 1:
            return "a density of 1 column in its own unit"
        number = f"{dense} of {total} columns" if dense < total else f"{total} columns"
        times = ", times a probability of the others" if dense < total else ""
        return f"a density of {number} in their own units{times}"

    def check(self, px: TorchDistribution, x: Tensor) -> None:
        """Refuse data of which an entry is none of its column.

        Raises:
            InputError: with the first such entry and its column.
        """
        outside = ~px.base_dist.support.check(x)
        if not bool(outside.any()):
            return
        row, place = outside.nonzero()[0].tolist()
        column = self.columns[place]
        group = next(
            group
            for number, group in enumerate(self.groups)
            if place in getattr(self, f"places_{number}").tolist()
        )
        raise InputError(
            f"{type(self).__name__} expects {group.support_in_words} in the column {column.name!r}, got "
            f"{float(x[row, place]):.7g} in row {row}: give data by the columns of the training, as "
            "table.like(columns) does"
        )


def _groups(
    columns: Columns, densities: Mapping[str, ColumnDensity]
) -> list[tuple[ColumnDensity, list[int]]]:
    """Each density that is used, with the places of its columns."""
    names = [column.name for column in columns]
    for name, density in densities.items():
        if name not in (*names, *KINDS):
            raise InputError(
                f"densities expects names of columns or kinds, got {name!r}: choose among "
                f"{', '.join([*names[:20], *KINDS])}"
            )
        if not isinstance(density, ColumnDensity):
            raise InputError(
                f"densities expects a density for {name!r}, as StudentTColumns(), got {density!r}: call the "
                "class"
            )
    found: dict[str, tuple[ColumnDensity, list[int]]] = {}
    for place, column in enumerate(columns):
        key = column.name if column.name in densities else column.kind
        density = densities[key] if key in densities else DENSITIES[column.kind]()
        found.setdefault(key, (density, []))[1].append(place)
    return list(found.values())
